/*
 * prodcons: one side allocates and fills messages, the other checks and frees them. Every free
 * happens in another thread than its malloc, which an allocator has to bring home without a lock
 * per object and without its memory growing.
 *
 * Each pair of threads has its own bounded queue of batches, so that the queue's lock is taken once
 * for 64 messages and what is measured is the allocator. The consumer starts when the queue has been
 * full: how many messages live at the peak must not depend on which thread the scheduler favours.
 */
#include "common.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define USAGE "[MESSAGES [PAIRS [LARGEST]]]   (2000000, 1, 1024)"

#define BATCH 64
#define QUEUE 128

struct pair {
    pthread_t producer;
    pthread_t consumer;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned first;
    unsigned count;
    struct object batches[QUEUE][BATCH];
    unsigned long messages;
    uint32_t largest;
    uint64_t seed;
    uint64_t sent;
    uint64_t received;
    bool filled;
};

static void *produce(void *arg)
{
    struct pair *pair = arg;
    struct rng rng = {pair->seed};
    struct object batch[BATCH];

    for (unsigned long done = 0; done < pair->messages; done += BATCH) {
        for (int i = 0; i < BATCH; i++) {
            object_make(&batch[i], rng_size_skewed(&rng, 16, pair->largest),
                        (uint32_t)rng_next(&rng));
            pair->sent += batch[i].key;
        }
        pthread_mutex_lock(&pair->lock);
        while (pair->count == QUEUE)
            pthread_cond_wait(&pair->changed, &pair->lock);
        for (int i = 0; i < BATCH; i++)
            pair->batches[(pair->first + pair->count) % QUEUE][i] = batch[i];
        bool wake = pair->count++ == 0;
        if (!pair->filled && (pair->count == QUEUE || done + BATCH >= pair->messages))
            pair->filled = wake = true;
        if (wake)
            pthread_cond_signal(&pair->changed);
        pthread_mutex_unlock(&pair->lock);
    }
    return NULL;
}

static void *consume(void *arg)
{
    struct pair *pair = arg;
    struct object batch[BATCH];

    for (unsigned long done = 0; done < pair->messages; done += BATCH) {
        pthread_mutex_lock(&pair->lock);
        while (pair->count == 0 || !pair->filled)
            pthread_cond_wait(&pair->changed, &pair->lock);
        for (int i = 0; i < BATCH; i++)
            batch[i] = pair->batches[pair->first][i];
        pair->first = (pair->first + 1) % QUEUE;
        if (pair->count-- == QUEUE)
            pthread_cond_signal(&pair->changed);
        pthread_mutex_unlock(&pair->lock);
        for (int i = 0; i < BATCH; i++) {
            pair->received += batch[i].key;
            object_drop(&batch[i]);
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long messages = argument(argc, argv, 1, 2000000, BATCH, 4000000000UL, USAGE);
    unsigned count = (unsigned)argument(argc, argv, 2, 1, 1, 128, USAGE);
    uint32_t largest = (uint32_t)argument(argc, argv, 3, 1024, 32, 1 << 20, USAGE);
    struct pair *pairs = calloc(count, sizeof(*pairs));
    uint64_t total = 0;

    if (!pairs)
        fail("no memory for %u pairs of threads", count);
    for (unsigned i = 0; i < count; i++) {
        struct pair *pair = &pairs[i];

        pthread_mutex_init(&pair->lock, NULL);
        pthread_cond_init(&pair->changed, NULL);
        pair->messages = messages / count;
        pair->largest = largest;
        pair->seed = 100 + i;
        if (pthread_create(&pair->producer, NULL, produce, pair) ||
            pthread_create(&pair->consumer, NULL, consume, pair))
            fail("cannot start pair %u", i);
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(pairs[i].producer, NULL);
        pthread_join(pairs[i].consumer, NULL);
        if (pairs[i].sent != pairs[i].received)
            fail("pair %u sent %llx and received %llx", i, (unsigned long long)pairs[i].sent,
                 (unsigned long long)pairs[i].received);
        total += pairs[i].received;
    }
    free(pairs);
    printf("ok prodcons sum=%llx\n", (unsigned long long)total);
    return 0;
}
