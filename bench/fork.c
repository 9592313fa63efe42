/*
 * fork.c - measures quire_fork() on a heap of small blocks; bench/snapshot.py runs it.
 *
 *   fork MiB
 *
 * With QUIRE_CONF=fork:shared or without. Prints a name and a number a line: microseconds, or KiB
 * where the name says so; medians of several rounds.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "quire/fork.h"

#define ROUNDS 15
#define BLOCK 4000u
#define WRITTEN 1000u /* blocks, each on a page of its own */

static char **block;
static size_t nr;

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void say(const char *what, double *v)
{
    qsort(v, ROUNDS, sizeof(*v), by_value);
    printf("%s %.3f\n", what, v[ROUNDS / 2]);
}

/* Memory that is this child's alone. */
static double own_kib(pid_t pid)
{
    char path[64], line[256];
    long kib = 0;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "Anonymous: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return (double)kib;
}

static void round_of_fork(double *call, double *after_write, double *grown)
{
    int end[2];
    char c;

    if (pipe(end) != 0)
        exit(1);
    double t = now_us();
    pid_t pid = quire_fork();
    *call = now_us() - t;
    if (pid == 0) {
        close(end[1]);
        _exit(read(end[0], &c, 1) != 0);
    }
    if (pid < 0)
        exit(1);
    close(end[0]);
    usleep(20000);
    double before = own_kib(pid);
    t = now_us();
    for (size_t i = 0; i < WRITTEN; i++)
        *(volatile char *)block[nr / WRITTEN * i] = 1;
    *after_write = (now_us() - t) / WRITTEN;
    *grown = own_kib(pid) - before;
    close(end[1]);
    waitpid(pid, NULL, 0);
    usleep(200000); /* what is left of the fork is cleared away */
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 256) << 20;
    double call[ROUNDS], after_write[ROUNDS], grown[ROUNDS];
    struct quire_fork_stat st;

    nr = bytes / 4096;
    block =
        mmap(NULL, nr * sizeof(*block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < nr; i++) {
        block[i] = malloc(BLOCK);
        if (block[i] == NULL)
            return 1;
        memset(block[i], (int)i, BLOCK);
    }
    for (int i = 0; i < ROUNDS; i++)
        round_of_fork(&call[i], &after_write[i], &grown[i]);
    quire_fork_stat(&st);
    printf("method %d\n", st.method);
    say("call", call);
    say("write", after_write);
    say("grown_kib", grown);
    return 0;
}
