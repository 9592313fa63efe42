/*
 * micro: what single calls of malloc and its relatives cost, by size and by habit. Whatever
 * allocator is preloaded serves them; nothing but libc is linked beside Google Benchmark.
 *
 * Every object is written to: its first byte, and the last one, so that its memory is there.
 */
#include "shim.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* objects of a batch */
#define BATCH 128

static void broken(const char *what)
{
    fprintf(stderr, "micro: %s\n", what);
    _exit(1);
}

/* the compiler must neither drop a malloc whose result is unused nor pair it with its free */
static inline void *touched(void *object, size_t size)
{
    volatile unsigned char *bytes = object;

    if (!object)
        broken("out of memory");
    bytes[0] = 1;
    bytes[size - 1] = 2;
    return object;
}

static inline uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 33);
}

static void pair(struct shim *shim, size_t size)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--)
            free(touched(malloc(size), size));
}

static void zeroed(struct shim *shim, size_t size)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            unsigned char *bytes = calloc(1, size);

            if (!bytes || bytes[0] || bytes[size - 1])
                broken("calloc did not return zeros");
            free(touched(bytes, size));
        }
}

static void aligned(struct shim *shim, size_t alignment)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            void *object = aligned_alloc(alignment, alignment * 2);

            if ((uintptr_t)object % alignment)
                broken("aligned_alloc is not aligned");
            free(touched(object, alignment * 2));
        }
}

/* in what order a batch is freed: place[i] is freed as number i */
enum order { LIFO, FIFO, RANDOM };

static void fill_places(unsigned char *place, enum order order)
{
    uint64_t state = 1;

    for (int i = 0; i < BATCH; i++)
        place[i] = (unsigned char)(order == LIFO ? BATCH - 1 - i : i);
    for (int i = BATCH - 1; order == RANDOM && i > 0; i--) {
        uint32_t other = draw(&state) % (uint32_t)(i + 1);
        unsigned char swap = place[i];

        place[i] = place[other];
        place[other] = swap;
    }
}

static void batch_in(struct shim *shim, size_t size, enum order order)
{
    unsigned char place[BATCH];
    void *objects[BATCH];

    fill_places(place, order);
    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= BATCH) {
            for (int i = 0; i < BATCH; i++)
                objects[i] = touched(malloc(size), size);
            for (int i = 0; i < BATCH; i++)
                free(objects[place[i]]);
        }
}

static void batch_lifo(struct shim *shim, size_t size)
{
    batch_in(shim, size, LIFO);
}

static void batch_fifo(struct shim *shim, size_t size)
{
    batch_in(shim, size, FIFO);
}

static void batch_random(struct shim *shim, size_t size)
{
    batch_in(shim, size, RANDOM);
}

/* a thousand live objects of 16 bytes to `largest`; a random one is replaced each time */
static void mixed(struct shim *shim, size_t largest)
{
    enum { ALIVE = 1000 };
    uint64_t state = (uint64_t)shim_thread(shim) + 1;
    void *objects[ALIVE] = {NULL};

    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            void **object = &objects[draw(&state) % ALIVE];
            size_t size = 16 + draw(&state) % (largest - 15);

            free(*object);
            *object = touched(malloc(size), size);
        }
    for (int i = 0; i < ALIVE; i++)
        free(objects[i]);
}

/* from 64 bytes to `largest` by halves more, as vectors grow; an operation is one realloc */
static void grow(struct shim *shim, size_t largest)
{
    for (size_t n; (n = shim_next(shim));) {
        unsigned char *bytes = NULL;
        size_t size = 64, written = 0;

        while (n--) {
            bytes = realloc(bytes, size);
            if (!bytes || (written && bytes[written - 1] != 2))
                broken("realloc lost a byte");
            touched(bytes, size);
            written = size;
            size += size / 2;
            if (size > largest || n == 0) {
                free(bytes);
                bytes = NULL;
                size = 64;
                written = 0;
            }
        }
    }
}

/*
 * cross: even threads allocate, odd ones free. Both do the same number of operations, so what one
 * has put into the ring the other will take out.
 *
 *     producer --- head ---> | o o o o . . . . | --- tail ---> consumer
 */
#define RING 4096
#define MOST_THREADS 128

static struct ring {
    _Alignas(128) _Atomic size_t head;
    _Alignas(128) _Atomic size_t tail;
    void *slots[RING];
} rings[MOST_THREADS / 2];

static void produce(struct shim *shim, struct ring *ring, size_t size)
{
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

    for (size_t n; (n = shim_next(shim));) {
        for (size_t i = 0; i < n; i++) {
            /* acquire: the slot has been read before it is written again */
            while (head - atomic_load_explicit(&ring->tail, memory_order_acquire) == RING)
                sched_yield();
            ring->slots[head++ % RING] = touched(malloc(size), size);
            /* release: the consumer sees the slot, and the object's bytes */
            if (i % 64 == 63 || i + 1 == n)
                atomic_store_explicit(&ring->head, head, memory_order_release);
        }
    }
}

static void consume(struct shim *shim, struct ring *ring, size_t size)
{
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

    for (size_t n; (n = shim_next(shim));) {
        for (size_t i = 0; i < n; i++) {
            unsigned char *bytes;

            /* acquire: pairs with the release in produce() */
            while (atomic_load_explicit(&ring->head, memory_order_acquire) == tail)
                sched_yield();
            bytes = ring->slots[tail++ % RING];
            if (bytes[size - 1] != 2)
                broken("an object has changed on its way");
            free(bytes);
            /* release: the slot may be written again */
            if (i % 64 == 63 || i + 1 == n)
                atomic_store_explicit(&ring->tail, tail, memory_order_release);
        }
    }
}

static void cross(struct shim *shim, size_t size)
{
    int thread = shim_thread(shim);
    struct ring *ring = &rings[thread / 2];

    if (thread % 2 == 0)
        produce(shim, ring, size);
    else
        consume(shim, ring, size);
}

static void by_sizes(const char *habit, shim_function *function, const size_t *sizes, size_t unit)
{
    for (int i = 0; sizes[i]; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s-%zu", habit, sizes[i]);
        shim_register(name, function, sizes[i], unit, 0);
    }
}

static void by_threads(long most)
{
    for (long n = 1; n <= most; n *= 2) {
        shim_register("pair-threads-32", pair, 32, 1, (int)n);
        shim_register("mixed-threads-512", mixed, 512, 1, (int)n);
        if (n % 2 == 0)
            shim_register("cross-threads-64", cross, 64, 1, (int)n);
    }
}

int main(int argc, char **argv)
{
    static const size_t all[] = {8, 32, 128, 1024, 8192, 16384, 65536, 524288, 4194304, 0};
    static const size_t some[] = {48, 1024, 32768, 0};
    static const size_t zeros[] = {64, 4096, 131072, 4194304, 0};
    static const size_t ranges[] = {127, 527, 16384, 262144, 0};
    static const size_t ends[] = {4096, 262144, 67108864, 0};
    static const size_t alignments[] = {64, 4096, 0};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    by_sizes("pair", pair, all, 1);
    by_sizes("lifo", batch_lifo, some, BATCH);
    by_sizes("fifo", batch_fifo, some, BATCH);
    by_sizes("random", batch_random, some, BATCH);
    by_sizes("mixed", mixed, ranges, 1);
    by_sizes("calloc", zeroed, zeros, 1);
    by_sizes("grow", grow, ends, 1);
    by_sizes("aligned", aligned, alignments, 1);
    by_threads(cpus < 2 ? 2 : cpus > MOST_THREADS ? MOST_THREADS : cpus);
    return shim_main(argc, argv);
}
