/*
 * classes.c - one size at a time, as fast as it goes: every class is filled by all threads at once,
 * each block freed by another thread than the one that made it, then all is gone; what is left
 * resident at the end is bounded. This is the path that fills, empties and adopts whole slabs.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "stress.h"

#define PER_THREAD 3000

static void **blocks[256];
static pthread_barrier_t barrier;
static size_t size;

static void fill(unsigned char *p, size_t n, unsigned mark)
{
    memset(p, (int)mark, n < 64 ? n : 64);
    p[n - 1] = (unsigned char)mark;
}

static void check(const unsigned char *p, size_t n, unsigned mark)
{
    for (size_t i = 0; i < n && i < 64; i++)
        if (p[i] != (unsigned char)mark)
            stress_fail("%p of %zu bytes: byte %zu is %#x instead of %#x", (const void *)p, n, i,
                        p[i], mark & 0xff);
    if (p[n - 1] != (unsigned char)mark)
        stress_fail("%p of %zu bytes: the last byte is wrong", (const void *)p, n);
}

static void *worker(void *arg)
{
    size_t me = (size_t)arg;

    for (;;) {
        pthread_barrier_wait(&barrier); /* main chose a size */
        if (size == 0)
            return NULL;
        size_t nr = size > 4096 ? PER_THREAD / 10 : PER_THREAD;
        for (size_t i = 0; i < nr; i++) {
            blocks[me][i] = malloc(size);
            if (blocks[me][i] == NULL)
                stress_fail("no memory");
            fill(blocks[me][i], size, (unsigned)(me * 31 + i));
        }
        pthread_barrier_wait(&barrier);
        /* Two thirds of a neighbour's, and of the next one's the rest. */
        size_t a = (me + 1) % stress.threads, b = (me + 2) % stress.threads;
        for (size_t i = 0; i < nr; i++) {
            size_t whose = i % 3 ? a : b;
            check(blocks[whose][i], size, (unsigned)(whose * 31 + i));
            free(blocks[whose][i]);
        }
        atomic_fetch_add_explicit(&stress_ops, 2 * nr, memory_order_relaxed);
        pthread_barrier_wait(&barrier);
    }
}

int main(int argc, char **argv)
{
    pthread_t t[256];

    stress_start(argc, argv, 4, 4);
    struct rng r = rng_for(0);
    pthread_barrier_init(&barrier, NULL, stress.threads + 1);
    for (size_t i = 0; i < stress.threads; i++) {
        blocks[i] = malloc(PER_THREAD * sizeof(void *));
        if (pthread_create(&t[i], NULL, worker, (void *)i) != 0)
            stress_fail("no thread");
    }
    for (int round = 0; !stress_over(); round++) {
        size = round < 64 ? (size_t)(round + 1) * 16
                          : 1 + rng_below(&r, (size_t)16 << rng_below(&r, 12));
        for (int phase = 0; phase < 3; phase++)
            pthread_barrier_wait(&barrier);
    }
    malloc_trim(0);
    if (stress_resident() > 128 * 1024)
        stress_fail("%ld KB are resident after everything was freed", stress_resident());
    size = 0;
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < stress.threads; i++) {
        pthread_join(t[i], NULL);
        free(blocks[i]);
    }
    return stress_end();
}
