/*
 * burst: many small objects are allocated and all of them freed again, in an order unlike that of
 * their allocation, and then only a little goes on. Reports what is resident at the peak, at once
 * after the last free, after a second and after SECONDS of light activity: does memory come back by
 * itself? With KEPT, one object in so many stays alive, scattered over all of the heap. Sizes are
 * from 16 bytes to LARGEST, small ones most.
 */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define USAGE "[MEGABYTES [SECONDS [BURSTS [KEPT [LARGEST]]]]]   (300, 1, 1, 0: none, 500)"

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

struct heap {
    struct object *objects;
    size_t most;
    size_t count;
    /* what is kept, at the front of objects, and its bytes */
    size_t kept;
    size_t live;
};

static void grow(struct heap *heap, size_t bytes, uint32_t largest, struct rng *rng)
{
    size_t used = 0;

    for (; used < bytes && heap->count < heap->most; heap->count++) {
        struct object *object = &heap->objects[heap->count];

        object_make(object, rng_size_skewed(rng, 16, largest), (uint32_t)rng_next(rng));
        used += object->size;
    }
}

static void keep_some(struct heap *heap, unsigned one_in)
{
    for (size_t i = heap->kept; one_in && i < heap->count; i += one_in) {
        struct object swap = heap->objects[heap->kept];

        heap->objects[heap->kept++] = heap->objects[i];
        heap->live += heap->objects[heap->kept - 1].size;
        heap->objects[i] = swap;
    }
}

static void shrink(struct heap *heap, struct rng *rng)
{
    for (; heap->count > heap->kept; heap->count--) {
        /* a random one of what is left within a window: neither stack nor queue */
        size_t left = heap->count - heap->kept, window = left < 4096 ? left : 4096;
        size_t pick = heap->count - 1 - rng_below(rng, (uint32_t)window);

        object_drop(&heap->objects[pick]);
        heap->objects[pick] = heap->objects[heap->count - 1];
    }
}

/* what the table itself made resident is not the allocator's: its pages beyond what is kept go */
static void table_cut(struct heap *heap)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = heap->most * sizeof(struct object);
    size_t used = (heap->kept * sizeof(struct object) + page - 1) & ~(page - 1);

    if (used < bytes && madvise((char *)heap->objects + used, bytes - used, MADV_DONTNEED))
        fail("madvise: the table cannot be cut");
}

int main(int argc, char **argv)
{
    size_t bytes = argument(argc, argv, 1, 300, 1, 16384, USAGE) << 20;
    double seconds = (double)argument(argc, argv, 2, 1, 0, 3600, USAGE);
    unsigned bursts = (unsigned)argument(argc, argv, 3, 1, 1, 1000, USAGE);
    unsigned one_in = (unsigned)argument(argc, argv, 4, 0, 0, 1000000, USAGE);
    uint32_t largest = (uint32_t)argument(argc, argv, 5, 500, 16, 1 << 20, USAGE);
    struct resident start, peak = {0}, at_once, after_1, later;
    struct rng rng = {11};
    struct heap heap = {.most = bytes / 64};

    heap.objects = table_make(heap.most);
    resident_now(&start);
    for (unsigned burst = 0; burst < bursts; burst++) {
        grow(&heap, bytes, largest, &rng);
        resident_now(&peak);
        keep_some(&heap, one_in);
        shrink(&heap, &rng);
    }
    table_cut(&heap);
    resident_now(&at_once);
    light_activity(seconds < 1 ? seconds : 1, &rng);
    resident_now(&after_1);
    light_activity(seconds - 1, &rng);
    resident_now(&later);
    heap.kept = 0;
    shrink(&heap, &rng);
    munmap(heap.objects, heap.most * sizeof(struct object));
    printf("ok burst live=%zu start_kb=%ld peak_kb=%ld at_once_kb=%ld after_1_kb=%ld "
           "later_kb=%ld\n",
           heap.live, start.rss_kb, peak.rss_kb, at_once.rss_kb, after_1.rss_kb, later.rss_kb);
    return 0;
}
