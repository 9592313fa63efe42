/*
 * idle: hundreds of threads that have each allocated, freed everything, and then wait, as the
 * workers of a server do at night. What the process still holds then is what its allocator keeps
 * per thread. The program reports it itself.
 *
 * By default all threads hold their objects at the same moment, so that none can reuse what another
 * has freed; with TOGETHER 0 each allocates and frees as it comes.
 */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define USAGE "[THREADS [OBJECTS [TOGETHER]]]   (400, 400, 1)"

/* enough for the work below; what a thread's stack costs is the same under every allocator */
#define STACK (256 << 10)

static pthread_barrier_t filled;
static pthread_barrier_t emptied;
static pthread_barrier_t leave;
static unsigned objects_each;
static int together;

static void *run(void *arg)
{
    struct rng rng = {(uintptr_t)arg};
    struct object *objects = must_alloc(objects_each * sizeof(*objects));

    for (unsigned i = 0; i < objects_each; i++)
        object_make(&objects[i], rng_size_skewed(&rng, 16, 2000), (uint32_t)rng_next(&rng));
    if (together)
        pthread_barrier_wait(&filled);
    for (unsigned i = 0; i < objects_each; i++)
        object_drop(&objects[i]);
    free(objects);
    pthread_barrier_wait(&emptied);
    pthread_barrier_wait(&leave);
    return NULL;
}

int main(int argc, char **argv)
{
    unsigned threads = (unsigned)argument(argc, argv, 1, 400, 1, 20000, USAGE);
    pthread_t *ids = must_alloc(threads * sizeof(*ids));
    struct resident before, after;
    pthread_attr_t attr;

    objects_each = (unsigned)argument(argc, argv, 2, 400, 1, 1000000, USAGE);
    together = (int)argument(argc, argv, 3, 1, 0, 1, USAGE);
    resident_now(&before);
    pthread_barrier_init(&filled, NULL, threads);
    pthread_barrier_init(&emptied, NULL, threads + 1);
    pthread_barrier_init(&leave, NULL, threads + 1);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&ids[i], &attr, run, (void *)(uintptr_t)(i + 1)))
            fail("cannot start thread %u", i);
    }
    pthread_barrier_wait(&emptied);
    /* the last one out may still be on its way into the next wait */
    pause_for(0.1);
    resident_now(&after);
    pthread_barrier_wait(&leave);
    for (unsigned i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    free(ids);
    printf("ok idle before_kb=%ld held_kb=%ld held_pss_kb=%ld\n", before.rss_kb, after.rss_kb,
           after.pss_kb);
    return 0;
}
