/*
 * forkpause.c - how long fork(2) stops a program with many small values, under whatever allocator it
 * is run with.
 *
 *   forkpause MiB      prints the median, in microseconds
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 9

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

/* A chain through the heap: of values of 16 to 240 bytes. */
static void *fill(size_t bytes)
{
    void **last = NULL;

    for (size_t done = 0, i = 0; done < bytes; i++) {
        size_t size = 16 + i * 7 % 225;
        void **now = malloc(size);

        if (now == NULL)
            return NULL;
        memset(now, 1, size);
        *now = last;
        last = now;
        done += size;
    }
    return last;
}

int main(int argc, char **argv)
{
    double v[ROUNDS];

    if (fill((argc > 1 ? strtoul(argv[1], NULL, 10) : 1024) << 20) == NULL)
        return 1;
    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        pid_t pid = fork();

        if (pid == 0)
            _exit(0);
        v[i] = now_us() - t;
        waitpid(pid, NULL, 0);
    }
    qsort(v, ROUNDS, sizeof(*v), by_value);
    printf("%.1f\n", v[ROUNDS / 2]);
    return 0;
}
