/*
 * churn: threads are started and end, a few alive at any time. Each allocates, frees most of it,
 * and leaves some objects to a thread started after it has ended. What an allocator sets up per
 * thread must be cheap to make, and what a finished thread owned must be found again.
 */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define USAGE "[THREADS [OBJECTS [AT_ONCE]]]   (4000, 400, 4)"

/* objects a thread leaves to its successor */
#define LEGACY 40

struct slot {
    pthread_t thread;
    struct object left[LEGACY];
    unsigned count;
    uint64_t seed;
    uint64_t freed;
};

static void *run(void *arg)
{
    struct slot *slot = arg;
    struct rng rng = {slot->seed};
    struct object *objects = must_alloc(slot->count * sizeof(*objects));

    for (unsigned i = 0; i < slot->count; i++)
        object_make(&objects[i], rng_size_skewed(&rng, 16, 2000), (uint32_t)rng_next(&rng));
    for (int i = 0; i < LEGACY; i++) {
        if (!slot->left[i].at)
            continue;
        object_drop(&slot->left[i]);
        slot->freed++;
    }
    /* every (count/LEGACY)th survives, so the legacy lies spread over all that was allocated */
    for (unsigned i = 0, kept = 0; i < slot->count; i++) {
        if (i % (slot->count / LEGACY) == 0 && kept < LEGACY) {
            slot->left[kept++] = objects[i];
            continue;
        }
        object_drop(&objects[i]);
        slot->freed++;
    }
    free(objects);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned long threads = argument(argc, argv, 1, 4000, 1, 10000000, USAGE);
    unsigned count = (unsigned)argument(argc, argv, 2, 400, LEGACY, 1000000, USAGE);
    unsigned at_once = (unsigned)argument(argc, argv, 3, 4, 1, 256, USAGE);
    struct slot *slots = calloc(at_once, sizeof(*slots));
    uint64_t freed = 0;

    if (!slots)
        fail("no memory for %u threads", at_once);
    for (unsigned long i = 0; i < threads; i++) {
        struct slot *slot = &slots[i % at_once];

        if (i >= at_once)
            pthread_join(slot->thread, NULL);
        slot->count = count;
        slot->seed = i + 1;
        if (pthread_create(&slot->thread, NULL, run, slot))
            fail("cannot start thread %lu", i);
    }
    for (unsigned i = 0; i < at_once && i < threads; i++) {
        pthread_join(slots[i].thread, NULL);
        for (int k = 0; k < LEGACY; k++) {
            object_drop(&slots[i].left[k]);
            slots[i].freed++;
        }
        freed += slots[i].freed;
    }
    if (freed != threads * count)
        fail("%llu objects were freed, not %lu", (unsigned long long)freed, threads * count);
    free(slots);
    printf("ok churn objects=%llu\n", (unsigned long long)freed);
    return 0;
}
