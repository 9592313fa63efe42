/*
 * churn.c - threads that come and go by the thousand, leave blocks to others, and end with blocks
 * in the hands of nobody; destructors of thread data free and allocate. Memory must stay bounded.
 */
#include <pthread.h>
#include <stdlib.h>

#include "stress.h"

#define LEFT 2048

static struct block *_Atomic left[LEFT]; /* by threads that are gone */
static pthread_key_t key;
static _Atomic uint64_t ended;

/* After the thread's last line: free its list, allocate once more, leave that behind. */
static void destructor(void *arg)
{
    struct block *list = arg;
    struct rng r = rng_for((uintptr_t)list->seed);

    while (list != NULL) {
        struct block *next = list->next;
        block_free(list);
        list = next;
    }
    struct block *b = block_new(&r, random_size(&r));
    b = atomic_exchange_explicit(&left[rng_below(&r, LEFT)], b, memory_order_acq_rel);
    if (b != NULL)
        block_free(b);
    ended++;
}

static void *short_life(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);
    struct block *list = NULL;

    for (size_t n = 1 + rng_below(&r, 300); n > 0; n--) {
        struct block *b = block_new(&r, random_size(&r) % 10000 + sizeof(*b));

        if (rng_below(&r, 3) == 0) {
            b = atomic_exchange_explicit(&left[rng_below(&r, LEFT)], b, memory_order_acq_rel);
            if (b != NULL)
                block_free(b);
        } else if (rng_below(&r, 3) == 0 || list == NULL) {
            b->next = list;
            list = b;
        } else {
            block_free(b);
        }
    }
    if (list == NULL)
        list = block_new(&r, 100);
    if (pthread_setspecific(key, list) != 0)
        stress_fail("pthread_setspecific");
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t t[256];
    uint64_t salt = 1;
    long early = 0, now;

    stress_start(argc, argv, 4, 16);
    if (pthread_key_create(&key, destructor) != 0)
        stress_fail("pthread_key_create");
    for (int round = 0; !stress_over(); round++) {
        for (size_t i = 0; i < stress.threads; i++)
            if (pthread_create(&t[i], NULL, short_life, (void *)(uintptr_t)salt++) != 0)
                stress_fail("no thread");
        for (size_t i = 0; i < stress.threads; i++)
            pthread_join(t[i], NULL);
        now = stress_resident();
        if (round < 20)
            early = now > early ? now : early;
        else if (now > early * 2 + 64 * 1024)
            stress_fail("memory grows: %ld KB after 20 rounds, %ld KB after %d", early, now, round);
    }
    if (ended != salt - 1)
        stress_fail("%llu threads began, %llu ran their destructor", (unsigned long long)salt - 1,
                    (unsigned long long)ended);
    for (size_t i = 0; i < LEFT; i++)
        if (left[i] != NULL)
            block_free(left[i]);
    return stress_end();
}
