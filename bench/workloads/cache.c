/*
 * cache: a cache of a fixed number of bytes under replacement, least recently used first, whose
 * value sizes shift between phases. Entries that survive a shift lie scattered among room of the
 * wrong size: what an allocator wastes there shows as peak resident memory.
 */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

#define USAGE "[MEGABYTES [OPERATIONS [PHASES]]]   (32, 2000000, 8)"

struct ring {
    struct ring *older;
    struct ring *newer;
};

struct entry {
    /* first, so that a place in the ring is the entry itself */
    struct ring age;
    struct entry *chain;
    uint64_t key;
    uint32_t size;
    unsigned char value[];
};

struct cache {
    struct entry **buckets;
    size_t mask;
    /* a ring through the entries by age; oldest is head.newer */
    struct ring head;
    size_t bytes;
    size_t limit;
    uint64_t hits;
    uint64_t misses;
};

/* the sizes of values in each phase; after the last it starts over */
static const struct {
    uint32_t low, high;
} phases[] = {
    {16, 120}, {200, 900}, {24, 400}, {1000, 4000}, {16, 64}, {32, 2000},
};

static struct entry **bucket_of(struct cache *cache, uint64_t key)
{
    return &cache->buckets[mix64(key) & cache->mask];
}

static void detach(struct ring *age)
{
    age->older->newer = age->newer;
    age->newer->older = age->older;
}

static void make_newest(struct cache *cache, struct ring *age)
{
    age->older = cache->head.older;
    age->newer = &cache->head;
    age->older->newer = age;
    age->newer->older = age;
}

static void evict_oldest(struct cache *cache)
{
    struct entry *entry = (struct entry *)cache->head.newer;
    struct entry **link = bucket_of(cache, entry->key);

    while (*link && *link != entry)
        link = &(*link)->chain;
    if (!*link)
        fail("the entry at %p has lost its key", (void *)entry);
    *link = entry->chain;
    detach(&entry->age);
    pattern_check(entry->value, entry->size, entry->key);
    cache->bytes -= sizeof(*entry) + entry->size;
    free(entry);
}

static void look_up(struct cache *cache, uint64_t key, size_t size)
{
    struct entry **bucket = bucket_of(cache, key);
    struct entry *entry = *bucket;

    while (entry && entry->key != key)
        entry = entry->chain;
    if (entry) {
        pattern_check(entry->value, entry->size, key);
        detach(&entry->age);
        make_newest(cache, &entry->age);
        cache->hits++;
        return;
    }

    cache->misses++;
    entry = must_alloc(sizeof(*entry) + size);
    entry->key = key;
    entry->size = (uint32_t)size;
    pattern_write(entry->value, size, key);
    entry->chain = *bucket;
    *bucket = entry;
    make_newest(cache, &entry->age);
    cache->bytes += sizeof(*entry) + size;
    while (cache->bytes > cache->limit)
        evict_oldest(cache);
}

int main(int argc, char **argv)
{
    unsigned long megabytes = argument(argc, argv, 1, 32, 1, 16384, USAGE);
    unsigned long operations = argument(argc, argv, 2, 2000000, 1, 4000000000UL, USAGE);
    unsigned long rounds = argument(argc, argv, 3, 8, 1, 1000, USAGE);
    struct cache cache = {.limit = megabytes << 20};
    struct rng rng = {7};
    uint32_t keys = (uint32_t)(megabytes * 6000);
    size_t buckets = 1;

    while (buckets < keys / 2)
        buckets *= 2;
    cache.buckets = calloc(buckets, sizeof(*cache.buckets));
    if (!cache.buckets)
        fail("no memory for %zu buckets", buckets);
    cache.mask = buckets - 1;
    cache.head.older = cache.head.newer = &cache.head;

    for (unsigned long phase = 0; phase < rounds; phase++) {
        size_t sort = phase % (sizeof(phases) / sizeof(phases[0]));

        for (unsigned long i = 0; i < operations / rounds; i++) {
            uint32_t a = rng_below(&rng, keys), b = rng_below(&rng, keys);

            /* the smaller of two draws: low keys are asked for more often */
            look_up(&cache, a < b ? a : b, rng_size(&rng, phases[sort].low, phases[sort].high));
        }
    }
    while (cache.head.newer != &cache.head)
        evict_oldest(&cache);
    if (cache.bytes)
        fail("%zu bytes are left in an empty cache", cache.bytes);
    free(cache.buckets);
    printf("ok cache hits=%llu misses=%llu\n", (unsigned long long)cache.hits,
           (unsigned long long)cache.misses);
    return 0;
}
