/*
 * own: a program that brings its own malloc, as browsers do. A preloaded allocator is mapped into
 * it and serves nothing; the harness must notice.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static unsigned char room[1 << 20];
static size_t used;

void *malloc(size_t size);
void free(void *block);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);

void *malloc(size_t size)
{
    void *block = room + used;

    used += (size + 15) & ~(size_t)15;
    return used <= sizeof(room) ? block : NULL;
}

void free(void *block)
{
    (void)block;
}

void *calloc(size_t count, size_t size)
{
    return malloc(count * size);
}

void *realloc(void *block, size_t size)
{
    void *moved = malloc(size);

    return block && moved ? memcpy(moved, block, size) : moved;
}

int main(void)
{
    char *text = malloc(32);

    snprintf(text, 32, "served by %s", "itself");
    puts(text);
    free(text);
    return 0;
}
