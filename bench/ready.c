/*
 * ready: have the machine's memory at hand, then give it back.
 *
 *     ready MEGABYTES
 *
 * Touches that much memory in huge pages, where there are such, and ends. A virtual machine may
 * tell its host after a second or two which large stretches of its memory are free, and the host
 * takes them away (free page reporting). Whoever touches them first then waits for the host, in
 * time that counts as his: 300 MB in huge pages took 304 ms after 10 s of rest, and 52 right after
 * another program had used and freed them; in pages of 4 KiB, which come from stretches that are not
 * reported, 88 either way. So the benchmark runs this before programs that take much memory, and
 * what they are charged for does not depend on who ran before. Prints how long it took.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096
#define HUGE_PAGE ((size_t)2 << 20)

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    char *end = NULL;
    size_t bytes = argc == 2 ? strtoul(argv[1], &end, 10) << 20 : 0;

    if (bytes == 0 || *end != '\0') {
        fprintf(stderr, "usage: ready MEGABYTES\n");
        return 2;
    }
    double start = now_ms();
    char *p = mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("ready: mmap");
        return 1;
    }
    p += -(size_t)p % HUGE_PAGE;
    madvise(p, bytes, MADV_HUGEPAGE); /* where it is refused, in small pages */
    for (size_t at = 0; at < bytes; at += PAGE)
        ((volatile char *)p)[at] = 1;
    printf("%.1f ms\n", now_ms() - start);
    return 0;
}
