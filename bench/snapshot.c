/*
 * snapshot.c - snapshots against fork(2), row by row, with the target of each and whether it is met.
 *
 *   snapshot MiB huge|4k
 *
 * The heap is one of small blocks (4000 bytes), filled; run it with QUIRE_CONF=huge:on for huge
 * pages. Medians of several rounds. Each line: what, figure, figure of fork, ratio, target, verdict.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "quire/snapshot.h"

#define ROUNDS 9
#define BLOCK 4000u

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

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

static void row(const char *what, double ours, double theirs, double target)
{
    double ratio = ours / theirs;

    printf("%-44s %10.3f %10.3f  ratio %8.4f  target %7.4f  %s\n", what, ours, theirs, ratio, target,
           target <= 0 ? "-" : (ratio <= target ? "met" : "not met"));
    fflush(stdout);
}

static quire_snapshot_t *take(void)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);

    if (s == NULL) {
        perror("quire_snapshot_take");
        exit(1);
    }
    return s;
}

static double fork_pause(void)
{
    double v[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        v[i] = now_us() - t;
        waitpid(pid, NULL, 0);
    }
    return median(v, ROUNDS);
}

static double snapshot_pause(void)
{
    double v[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        quire_snapshot_t *s = take();
        v[i] = now_us() - t;
        quire_snapshot_release(s);
    }
    return median(v, ROUNDS);
}

/* Microseconds for each page of a write to blocks [0, n) times stride. */
static double write_pages(size_t n, size_t stride)
{
    double t = now_us();

    for (size_t i = 0; i < n; i++)
        *(volatile char *)block[i * stride] = 1;
    return (now_us() - t) / (double)n;
}

static double first_write(size_t n, size_t stride)
{
    double v[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        quire_snapshot_t *s = take();
        v[i] = write_pages(n, stride);
        quire_snapshot_release(s);
    }
    return median(v, ROUNDS);
}

/* The same with a child that holds the memory. */
static double first_write_fork(size_t n, size_t stride)
{
    double v[ROUNDS];
    char c;

    for (int i = 0; i < ROUNDS; i++) {
        int end[2];
        if (pipe(end) != 0)
            exit(1);
        pid_t pid = fork();
        if (pid == 0) {
            close(end[1]);
            _exit((int)read(end[0], &c, 1));
        }
        close(end[0]);
        v[i] = write_pages(n, stride);
        close(end[1]);
        waitpid(pid, NULL, 0);
    }
    return median(v, ROUNDS);
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 256) << 20;
    int huge = argc > 2 && strcmp(argv[2], "huge") == 0;
    struct quire_snapshot_stat st;

    nr = bytes / 4096;
    block = mmap(NULL, nr * sizeof(*block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                 0);
    for (size_t i = 0; i < nr; i++) {
        block[i] = malloc(BLOCK);
        if (block[i] == NULL)
            return 1;
        memset(block[i], (int)i, BLOCK);
    }
    quire_snapshot_t *s = take();
    quire_snapshot_stat(s, &st);
    printf("%zu MiB in %s pages, %lu stretches, by %s\n", bytes >> 20, huge ? "huge" : "4 KiB",
           (unsigned long)st.ranges, st.method == QUIRE_SNAPSHOT_BY_PROTECTION ? "protection" : st.why_not);
    quire_snapshot_release(s);
    row(huge ? "pause, us, against fork of the same huge heap" : "pause, us, against fork",
        snapshot_pause(), fork_pause(), huge ? 1.0 / 6 : 0);
    row("first write, dense, us per page", first_write(nr / 4, 1), first_write_fork(nr / 4, 1), 0.3);
    row("first write, sparse, us per page", first_write(1000, nr / 1000 / 2),
        first_write_fork(1000, nr / 1000 / 2), 3);
    return 0;
}
