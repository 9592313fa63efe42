/*
 * instr: calls the allocator in fixed patterns, a given number of times, for bench/instructions.py
 * to count under callgrind.
 *
 *     instr --list          one line per case: name, operations per loop, low and high loop counts
 *     instr CASE LOOPS [MAPS]
 *
 * Every case runs its loop LOOPS times. The script runs each case twice, with the low and the high
 * count, and divides the difference: start-up, warm-up and whatever happens once cancel out. All
 * randomness is drawn before the first allocation. With MAPS the program leaves a copy of its
 * memory map there, as the script needs to know where the library lay.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quire/heap.h"
#include "quire/slab.h"

#define BATCH 100
#define LIVE 1000
#define DRAWS (1 << 16)

/* the compiler must not see through a malloc whose result only goes to free */
static void *volatile sink;

static struct {
    uint16_t size;
    uint16_t slot;
} draws[DRAWS];

static void draw_all(void)
{
    uint64_t state = 1;

    for (int i = 0; i < DRAWS; i++) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        draws[i].size = (uint16_t)(16 + (state >> 33) % 512);
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        draws[i].slot = (uint16_t)((state >> 33) % LIVE);
    }
}

static void *need(void *object)
{
    if (!object) {
        fputs("instr: the allocator returned NULL\n", stderr);
        exit(1);
    }
    return object;
}

static void pairs_of(size_t size, long loops)
{
    while (loops--) {
        sink = need(malloc(size));
        free(sink);
    }
}

static void pair_32(long loops)
{
    pairs_of(32, loops);
}

static void pair_1k(long loops)
{
    pairs_of(1024, loops);
}

static void pair_16k(long loops)
{
    pairs_of(16384, loops);
}

/* first out is first in, as a list is built and dropped */
static void batch_48(long loops)
{
    static void *objects[BATCH];

    while (loops--) {
        for (int i = 0; i < BATCH; i++)
            objects[i] = need(malloc(48));
        for (int i = 0; i < BATCH; i++)
            free(objects[i]);
    }
}

static void calloc_64(long loops)
{
    while (loops--) {
        sink = need(calloc(1, 64));
        free(sink);
    }
}

static void random_sizes(long loops)
{
    static void *objects[LIVE];

    for (int i = 0; i < LIVE; i++)
        objects[i] = need(malloc(draws[i].size));
    for (long i = 0; i < loops; i++) {
        void **object = &objects[draws[i % DRAWS].slot];

        free(*object);
        *object = need(malloc(draws[i % DRAWS].size));
    }
}

/* a string that grows by 16 bytes from 16 to 512: 32 calls of realloc, then one free */
static void realloc_small(long loops)
{
    while (loops--) {
        void *object = NULL;

        for (size_t size = 16; size <= 512; size += 16)
            object = need(realloc(object, size));
        free(object);
    }
}

static void aligned_64(long loops)
{
    while (loops--) {
        sink = need(aligned_alloc(64, 192));
        free(sink);
    }
}

static void *crossing[BATCH];
static sem_t filled, emptied;
static long crossings;

static void *free_all(void *unused)
{
    for (long i = 0; i < crossings; i++) {
        sem_wait(&filled);
        for (int k = 0; k < BATCH; k++)
            free(crossing[k]);
        sem_post(&emptied);
    }
    return NULL;
}

/* strictly by turns, so that the count does not depend on who runs when */
static void cross_thread(long loops)
{
    pthread_t thread;

    crossings = loops;
    sem_init(&filled, 0, 0);
    sem_init(&emptied, 0, 0);
    if (pthread_create(&thread, NULL, free_all, NULL)) {
        fputs("instr: cannot start a thread\n", stderr);
        exit(1);
    }
    while (loops--) {
        for (int i = 0; i < BATCH; i++)
            crossing[i] = need(malloc(64));
        sem_post(&filled);
        sem_wait(&emptied);
    }
    pthread_join(thread, NULL);
}

/* What only quire has; looked up, so that the program runs under any allocator. */
static struct {
    struct quire_cache *(*create)(const char *name, size_t size, size_t align, unsigned flags,
                                  void (*ctor)(void *object));
    void *(*alloc)(struct quire_cache *cache);
    void (*free)(struct quire_cache *cache, void *object);
} caches;

static struct quire_cache *cache_of_64(void)
{
    *(void **)&caches.create = need(dlsym(RTLD_DEFAULT, "quire_cache_create"));
    *(void **)&caches.alloc = need(dlsym(RTLD_DEFAULT, "quire_cache_alloc"));
    *(void **)&caches.free = need(dlsym(RTLD_DEFAULT, "quire_cache_free"));
    return need(caches.create("instr", 64, 0, 0, NULL));
}

static void cache_64(long loops)
{
    struct quire_cache *cache = cache_of_64();

    while (loops--) {
        sink = need(caches.alloc(cache));
        caches.free(cache, sink);
    }
}

static void cache_batch(long loops)
{
    static void *objects[BATCH];
    struct quire_cache *cache = cache_of_64();

    while (loops--) {
        for (int i = 0; i < BATCH; i++)
            objects[i] = need(caches.alloc(cache));
        for (int i = 0; i < BATCH; i++)
            caches.free(cache, objects[i]);
    }
}

static void heap_64(long loops)
{
    struct quire_heap *(*create)(const struct quire_heap_attr *attr);
    void *(*alloc)(struct quire_heap * heap, size_t size);
    void (*give)(struct quire_heap * heap, void *block);
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SINGLE};

    *(void **)&create = need(dlsym(RTLD_DEFAULT, "quire_heap_create"));
    *(void **)&alloc = need(dlsym(RTLD_DEFAULT, "quire_heap_alloc"));
    *(void **)&give = need(dlsym(RTLD_DEFAULT, "quire_heap_free"));
    struct quire_heap *heap = need(create(&attr));

    while (loops--) {
        sink = need(alloc(heap, 64));
        give(heap, sink);
    }
}

static const struct {
    const char *name;
    void (*run)(long loops);
    int operations;
    long low;
    long high;
    const char *about;
} cases[] = {
    {"pair-32", pair_32, 1, 10000, 60000, "malloc(32), free"},
    {"pair-1k", pair_1k, 1, 10000, 60000, "malloc(1024), free"},
    {"pair-16k", pair_16k, 1, 10000, 60000, "malloc(16384), free"},
    {"batch-48", batch_48, BATCH, 200, 1200, "100 malloc(48), then 100 free, per pair"},
    {"calloc-64", calloc_64, 1, 10000, 60000, "calloc(1, 64), free"},
    {"random", random_sizes, 1, DRAWS, 3 * DRAWS, "16 to 527 bytes, 1000 live, per pair"},
    {"realloc", realloc_small, 32, 500, 2500, "16 to 512 by 16 bytes, per realloc"},
    {"aligned-64", aligned_64, 1, 10000, 60000, "aligned_alloc(64, 192), free"},
    {"cross-64", cross_thread, BATCH, 200, 1200,
     "100 malloc(64), freed in another thread, per pair"},
    {"cache-64", cache_64, 1, 10000, 60000, "quire_cache_alloc of 64 bytes, quire_cache_free"},
    {"cache-batch", cache_batch, BATCH, 200, 1200, "100 of the same, then 100 frees, per pair"},
    {"heap-64", heap_64, 1, 10000, 60000, "quire_heap_alloc of 64 bytes, quire_heap_free"},
};

#define CASES (sizeof(cases) / sizeof(cases[0]))

/* a copy of /proc/self/maps; nothing is allocated */
static void write_maps(const char *path)
{
    static char buffer[65536];
    int from = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    int to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ssize_t got;

    while ((got = read(from, buffer, sizeof(buffer))) > 0) {
        if (write(to, buffer, (size_t)got) != got)
            got = -1;
    }
    if (from < 0 || to < 0 || got < 0) {
        fprintf(stderr, "instr: cannot copy the memory map to %s\n", path);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && !strcmp(argv[1], "--list")) {
        for (size_t i = 0; i < CASES; i++)
            printf("%s %d %ld %ld %s\n", cases[i].name, cases[i].operations, cases[i].low,
                   cases[i].high, cases[i].about);
        return 0;
    }
    for (size_t i = 0; (argc == 3 || argc == 4) && i < CASES; i++) {
        if (!strcmp(argv[1], cases[i].name)) {
            draw_all();
            cases[i].run(atol(argv[2]));
            if (argc == 4)
                write_maps(argv[3]);
            return 0;
        }
    }
    fputs("usage: instr --list | instr CASE LOOPS [MAPS]\n", stderr);
    return 2;
}
