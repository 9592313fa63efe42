/*
 * server: threads that serve for a while, end, and hand all their live objects to the thread that
 * comes after them, as connections are handed on in a server. Within a turn random objects are
 * replaced by others of other sizes; most of what a thread frees was therefore allocated by one
 * that is no more. (The pattern is Larson and Krishnan's, 1998.)
 *
 *     lane 0:   thread ----> thread ----> thread      each arrow: all objects, still live
 *     lane 1:   thread ----> thread ----> thread
 */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define USAGE "[LANES [TURNS [REPLACED [OBJECTS [LARGEST]]]]]   (2, 20, 50000, 2000, 512)"

struct lane {
    pthread_t thread;
    struct object *objects;
    struct rng rng;
    unsigned count;
    unsigned replaced;
    uint32_t largest;
    uint64_t sum;
};

static void *serve(void *arg)
{
    struct lane *lane = arg;

    for (unsigned i = 0; i < lane->replaced; i++) {
        struct object *object = &lane->objects[rng_below(&lane->rng, lane->count)];

        lane->sum += object->key;
        object_drop(object);
        object_make(object, rng_size_skewed(&lane->rng, 16, lane->largest),
                    (uint32_t)rng_next(&lane->rng));
    }
    return NULL;
}

static void open_lane(struct lane *lane, unsigned number)
{
    lane->rng.state = 1000 + number;
    lane->objects = must_alloc(lane->count * sizeof(*lane->objects));
    for (unsigned i = 0; i < lane->count; i++)
        object_make(&lane->objects[i], rng_size_skewed(&lane->rng, 16, lane->largest),
                    (uint32_t)rng_next(&lane->rng));
}

static void close_lane(struct lane *lane)
{
    for (unsigned i = 0; i < lane->count; i++)
        object_drop(&lane->objects[i]);
    free(lane->objects);
}

int main(int argc, char **argv)
{
    unsigned count = (unsigned)argument(argc, argv, 1, 2, 1, 256, USAGE);
    unsigned turns = (unsigned)argument(argc, argv, 2, 20, 1, 100000, USAGE);
    unsigned replaced = (unsigned)argument(argc, argv, 3, 50000, 1, 1000000000, USAGE);
    unsigned objects = (unsigned)argument(argc, argv, 4, 2000, 1, 10000000, USAGE);
    uint32_t largest = (uint32_t)argument(argc, argv, 5, 512, 32, 1 << 20, USAGE);
    struct lane *lanes = calloc(count, sizeof(*lanes));
    uint64_t sum = 0;

    if (!lanes)
        fail("no memory for %u lanes", count);
    for (unsigned i = 0; i < count; i++) {
        lanes[i].count = objects;
        lanes[i].replaced = replaced;
        lanes[i].largest = largest;
        open_lane(&lanes[i], i);
    }
    for (unsigned turn = 0; turn < turns; turn++) {
        for (unsigned i = 0; i < count; i++) {
            if (turn)
                pthread_join(lanes[i].thread, NULL);
            if (pthread_create(&lanes[i].thread, NULL, serve, &lanes[i]))
                fail("cannot start a thread in lane %u", i);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(lanes[i].thread, NULL);
        close_lane(&lanes[i]);
        sum += lanes[i].sum;
    }
    free(lanes);
    printf("ok server sum=%llx\n", (unsigned long long)sum);
    return 0;
}
