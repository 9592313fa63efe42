/*
 * burst: many small objects are allocated and all of them freed again, in an order unlike that of
 * their allocation, and then only a little goes on. Reports what is resident at the peak, at once
 * after the last free, and after some seconds of light activity: does memory come back by itself?
 */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define USAGE "[MEGABYTES [SECONDS [BURSTS]]]   (300, 1, 1)"

/* the table of objects is not what is measured: it lies outside the allocator */
static struct object *table_make(size_t count)
{
    void *table = mmap(NULL, count * sizeof(struct object), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (table == MAP_FAILED)
        fail("no memory for a table of %zu objects", count);
    return table;
}

/* a few hundred short-lived objects, then a pause: the program is not busy, but it is not dead */
static void light_activity(double seconds, struct rng *rng)
{
    double end = seconds_now() + seconds;
    struct object some[16];

    while (seconds_now() < end) {
        for (int round = 0; round < 20; round++) {
            for (int i = 0; i < 16; i++)
                object_make(&some[i], rng_size_skewed(rng, 16, 1024), (uint32_t)rng_next(rng));
            for (int i = 0; i < 16; i++)
                object_drop(&some[i]);
        }
        pause_for(0.01);
    }
}

int main(int argc, char **argv)
{
    size_t bytes = argument(argc, argv, 1, 300, 1, 16384, USAGE) << 20;
    double seconds = (double)argument(argc, argv, 2, 1, 0, 3600, USAGE);
    unsigned bursts = (unsigned)argument(argc, argv, 3, 1, 1, 1000, USAGE);
    struct resident start, peak = {0}, at_once, later;
    struct rng rng = {11};
    size_t most = bytes / 64, table = most * sizeof(struct object);
    struct object *objects = table_make(most);

    resident_now(&start);
    for (unsigned burst = 0; burst < bursts; burst++) {
        size_t count = 0;

        for (size_t used = 0; used < bytes && count < most; count++) {
            object_make(&objects[count], rng_size_skewed(&rng, 16, 500), (uint32_t)rng_next(&rng));
            used += objects[count].size;
        }
        resident_now(&peak);
        for (size_t left = count; left; left--) {
            /* a random one of what is left within a window: neither stack nor queue */
            size_t window = left < 4096 ? left : 4096;
            size_t pick = left - 1 - rng_below(&rng, (uint32_t)window);

            object_drop(&objects[pick]);
            objects[pick] = objects[left - 1];
        }
    }
    /* what the table itself made resident is taken off: from here on it is gone */
    munmap(objects, table);
    resident_now(&at_once);
    light_activity(seconds, &rng);
    resident_now(&later);
    printf("ok burst start_kb=%ld peak_kb=%ld at_once_kb=%ld later_kb=%ld\n", start.rss_kb,
           peak.rss_kb, at_once.rss_kb, later.rss_kb);
    return 0;
}
