/*
 * handoff.c - producers that only allocate, consumers that only free, and pipelines of both.
 *
 * What is on its way is bounded, so memory must be, too: the program fails when it keeps growing.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "stress.h"

#define SLOTS 1024

/* One ring for each pair; a stage frees what it takes with some probability, else passes it on. */
struct ring {
    struct block *_Atomic slot[SLOTS];
    _Atomic bool closed;
    size_t put_at, get_at; /* of one thread each */
};

static struct ring ring[256];

static bool put(struct ring *q, struct block *b)
{
    struct block *none = NULL;

    while (!atomic_compare_exchange_strong_explicit(&q->slot[q->put_at], &none, b,
                                                    memory_order_release, memory_order_relaxed)) {
        none = NULL;
        sched_yield();
    }
    q->put_at = (q->put_at + 1) % SLOTS;
    return true;
}

static struct block *get(struct ring *q)
{
    for (;;) {
        bool closed = atomic_load_explicit(&q->closed, memory_order_acquire);
        struct block *b = atomic_exchange_explicit(&q->slot[q->get_at], NULL, memory_order_acquire);

        if (b != NULL) {
            q->get_at = (q->get_at + 1) % SLOTS;
            return b;
        }
        if (closed)
            return NULL;
        sched_yield();
    }
}

static void *producer(void *arg)
{
    size_t me = (size_t)arg;
    struct rng r = rng_for(me);
    /* Each producer has a size that it likes, and now and then any other. */
    size_t liked = 16u << rng_below(&r, 11);

    while (!stress_over())
        for (int i = 0; i < 100; i++)
            put(&ring[me], block_new(&r, rng_below(&r, 8) ? liked + sizeof(struct block)
                                                          : random_size(&r) % 20000 + 64));
    atomic_store_explicit(&ring[me].closed, true, memory_order_release);
    return NULL;
}

/* Takes from its ring; half of what it gets it frees, for the other half it makes a new block. */
static void *stage(void *arg)
{
    size_t me = (size_t)arg;
    struct rng r = rng_for(me + 1000);
    struct block *b;

    while ((b = get(&ring[me - 1])) != NULL) {
        if (rng_below(&r, 2))
            b = block_resize(&r, b, 64 + rng_below(&r, 2000));
        put(&ring[me], b);
    }
    atomic_store_explicit(&ring[me].closed, true, memory_order_release);
    return NULL;
}

static void *consumer(void *arg)
{
    struct block *b;

    while ((b = get(&ring[(size_t)arg])) != NULL)
        block_free(b);
    return NULL;
}

/* Looks at memory while the others work: after the first quarter it must not keep growing. */
static void watch(void)
{
    struct timespec pause = {.tv_nsec = 50000000};
    unsigned ticks = stress.seconds * 20, n = 0;
    long early = 0, late = 0;

    for (; !stress_over(); n++) {
        nanosleep(&pause, NULL);
        long now = stress_resident();
        if (n < ticks / 4)
            early = now > early ? now : early;
        else
            late = now > late ? now : late;
    }
    if (late > early * 2 + 64 * 1024)
        stress_fail("memory grows: at most %ld KB at first, %ld KB later", early, late);
}

int main(int argc, char **argv)
{
    pthread_t t[256 * 3];
    size_t n = 0;

    stress_start(argc, argv, 4, 2);
    if (stress.threads > 100)
        stress.threads = 100;
    /* Threads by threes: producer, stage, consumer. */
    for (size_t i = 0; i < stress.threads; i++) {
        if (pthread_create(&t[n++], NULL, producer, (void *)(2 * i)) != 0 ||
            pthread_create(&t[n++], NULL, stage, (void *)(2 * i + 1)) != 0 ||
            pthread_create(&t[n++], NULL, consumer, (void *)(2 * i + 1)) != 0)
            stress_fail("no thread");
    }
    watch();
    while (n > 0)
        pthread_join(t[--n], NULL);
    return stress_end();
}
