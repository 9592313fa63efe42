/*
 * mixed.c - threads that allocate, resize and free all sizes, each with blocks of its own and with
 * a table that all of them take from and put into.
 */
#include <pthread.h>
#include <stdlib.h>

#include "stress.h"

#define TABLE 4096
#define OWN 512

static struct block *_Atomic table[TABLE];

static void exchange(struct rng *r, struct block **b)
{
    /* Acquire and release: a block travels with its content. */
    *b = atomic_exchange_explicit(&table[rng_below(r, TABLE)], *b, memory_order_acq_rel);
}

static void *worker(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);
    struct block *own[OWN] = {NULL};

    while (!stress_over()) {
        for (int i = 0; i < 200; i++) {
            struct block **b = &own[rng_below(&r, OWN)];
            size_t what = rng_below(&r, 8);

            if (what == 0)
                exchange(&r, b);
            else if (*b == NULL)
                *b = block_new(&r, random_size(&r));
            else if (what == 1)
                *b = block_resize(&r, *b, random_size(&r));
            else {
                block_free(*b);
                *b = NULL;
            }
        }
    }
    for (size_t i = 0; i < OWN; i++)
        if (own[i] != NULL)
            block_free(own[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t t[256];

    stress_start(argc, argv, 4, 6);
    for (size_t i = 0; i < stress.threads; i++)
        if (pthread_create(&t[i], NULL, worker, (void *)(i + 1)) != 0)
            stress_fail("no thread");
    for (size_t i = 0; i < stress.threads; i++)
        pthread_join(t[i], NULL);
    for (size_t i = 0; i < TABLE; i++)
        if (table[i] != NULL)
            block_free(table[i]);
    return stress_end();
}
