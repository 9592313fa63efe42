/*
 * holes.c - crowds of blocks of which some stay, so that slabs get holes (slab/holes.h), all the time.
 *
 * Each thread makes a crowd of one size, frees most of it in stretches, has what lies between given
 * back, and fills up again, round after round. Some of what stays it leaves on a board, from where
 * any thread takes and frees it; and now and then a thread ends, and another begins with its slabs.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "stress.h"

#define CROWD 1500
#define BOARD 4096

static struct block *_Atomic board[BOARD];

/* What lay there is somebody's to free now: ours. */
static void swap(struct rng *r, struct block *b)
{
    struct block *old = atomic_exchange_explicit(&board[rng_below(r, BOARD)], b,
                                                 memory_order_acq_rel);

    if (old != NULL)
        block_free(old);
}

static void fill_up(struct rng *r, struct block **at, size_t size)
{
    for (size_t i = 0; i < CROWD; i++)
        if (at[i] == NULL)
            at[i] = block_new(r, size);
}

static void thin_out(struct rng *r, struct block **at, size_t size)
{
    size_t stretch = 1 + rng_below(r, 40000 / size + 2);
    bool stays = false;

    for (size_t i = 0; i < CROWD; i++) {
        if (i % stretch == 0)
            stays = rng_below(r, 4) == 0;
        if (at[i] == NULL || (stays && rng_below(r, 8) != 0)) {
            if (at[i] != NULL)
                block_check(at[i]);
            continue;
        }
        if (rng_below(r, 16) == 0)
            swap(r, at[i]);
        else
            block_free(at[i]);
        at[i] = NULL;
    }
}

/* The clock goes only while its thread is busy with something. */
static void pass_time(struct rng *r)
{
    for (int i = 0; i < 2000; i++)
        block_free(block_new(r, 64 + rng_below(r, 200)));
}

static void *worker(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);
    struct block *at[CROWD] = {NULL};
    size_t size = 64 + rng_below(&r, rng_below(&r, 2) ? 300 : 9000);

    for (size_t round = 4 + rng_below(&r, 30); round > 0 && !stress_over(); round--) {
        fill_up(&r, at, size);
        thin_out(&r, at, size);
        if (rng_below(&r, 3) != 0)
            malloc_trim(0);
        else
            pass_time(&r);
    }
    for (size_t i = 0; i < CROWD; i++)
        if (at[i] != NULL)
            swap(&r, at[i]);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t t[256];
    uintptr_t made = 0;

    stress_start(argc, argv, 4, 3);
    if (stress.threads > 256)
        stress.threads = 256;
    for (unsigned i = 0; i < stress.threads; i++)
        if (pthread_create(&t[i], NULL, worker, (void *)++made) != 0)
            stress_fail("no thread");
    for (unsigned i = 0; !stress_over(); i = (i + 1) % stress.threads) {
        pthread_join(t[i], NULL);
        if (pthread_create(&t[i], NULL, worker, (void *)++made) != 0)
            stress_fail("no thread");
    }
    for (unsigned i = 0; i < stress.threads; i++)
        pthread_join(t[i], NULL);
    for (size_t i = 0; i < BOARD; i++)
        if (board[i] != NULL)
            block_free(board[i]);
    malloc_trim(0);
    if (stress_resident() > 64 * 1024)
        stress_fail("%ld KB resident, and nothing is live", stress_resident());
    return stress_end();
}
