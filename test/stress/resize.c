/*
 * resize.c - chains of realloc: growing from nothing to 64 MiB and shrinking back by every kind of
 * step, across the borders between slabs, page runs and mappings, several at a time.
 */
#include <pthread.h>
#include <stdlib.h>

#include "stress.h"

#define CHAINS 6
#define TOP ((size_t)64 << 20)

/* Sizes around which something else serves the block. */
static const size_t borders[] = {1024, 8192, 32768, 65536, 1 << 20, 2 << 20, 4 << 20, 16 << 20};

static size_t next_size(struct rng *r, size_t size, bool growing)
{
    size_t n;

    switch (rng_below(r, 4)) {
    case 0: /* a few bytes */
        n = growing ? size + 1 + rng_below(r, 100) : size - rng_below(r, size < 100 ? size : 100);
        break;
    case 1: /* a page or so */
        n = growing ? size + rng_below(r, 9000) : size - rng_below(r, size < 9000 ? size : 9000);
        break;
    case 2: /* the next border, one more or less */
        n = borders[rng_below(r, sizeof(borders) / sizeof(borders[0]))] + rng_below(r, 3) - 1;
        break;
    default: /* by half, as growing arrays do */
        n = growing ? size + size / 2 : size - size / 3;
    }
    return n < sizeof(struct block) ? sizeof(struct block) : n;
}

static void *worker(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);
    struct block *chain[CHAINS];
    bool growing[CHAINS];

    for (size_t i = 0; i < CHAINS; i++) {
        chain[i] = block_new(&r, sizeof(struct block) + i);
        growing[i] = true;
    }
    while (!stress_over()) {
        size_t i = rng_below(&r, CHAINS);
        /* Only one of them gets really large. */
        size_t top = i == 0 ? TOP : TOP / 64;
        size_t n = next_size(&r, chain[i]->size, growing[i]);

        if (n > top || n < 200)
            growing[i] = n < 200;
        chain[i] = block_resize(&r, chain[i], n > top ? top : n);
    }
    for (size_t i = 0; i < CHAINS; i++)
        block_free(chain[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t t[256];

    stress_start(argc, argv, 4, 3);
    for (size_t i = 0; i < stress.threads; i++)
        if (pthread_create(&t[i], NULL, worker, (void *)(i + 1)) != 0)
            stress_fail("no thread");
    for (size_t i = 0; i < stress.threads; i++)
        pthread_join(t[i], NULL);
    return stress_end();
}
