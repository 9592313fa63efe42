/*
 * A program to look into: it allocates, says that it is there, and waits until its input ends.
 * With OWN_MALLOC it defines malloc itself, as Chromium does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef OWN_MALLOC
static _Alignas(16) char arena[1 << 20];
static size_t used;

void *malloc(size_t size)
{
    void *p = arena + used;

    used += (size + 15) & ~(size_t)15;
    return used <= sizeof(arena) ? p : NULL;
}

void *calloc(size_t n, size_t size)
{
    return malloc(n * size);
}

void *realloc(void *old, size_t size)
{
    void *p = malloc(size);

    if (p && old)
        memcpy(p, old, size); /* reads past the old end, but within the arena */
    return p;
}

void free(void *p)
{
    (void)p;
}
#endif

int main(int argc, char **argv)
{
    char *volatile p = malloc(100);
    char end;

    (void)argc;
    (void)argv;
    if (!p)
        return 1;
    free(p);
    if (write(1, "ready\n", 6) != 6)
        return 1;
    while (read(0, &end, 1) > 0)
        ;
    return 7;
}
