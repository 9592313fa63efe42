/*
 * caches.c - threads that share object caches: objects change hands through slots, so most are freed
 * by another thread than allocated them; readers without any lock follow pointers to objects of a
 * typesafe cache that are freed meanwhile; each thread makes and destroys caches of its own, and
 * threads end and start.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "quire/mempool.h"
#include "quire/slab.h"
#include "stress.h"

#define SLOTS 512
#define TYPE 0x7479706573616665ull

/* What the constructor set stays for ever; the rest is the holder's. */
struct item {
    uint64_t type;
    _Atomic uint32_t held; /* 1 while somebody has it: nobody else may get it then */
    _Atomic uint32_t uses;
    _Atomic uint64_t key, twice; /* twice is 2 * key, except for a moment */
};

static struct quire_cache *items, *lumps;
static struct item *_Atomic slot[SLOTS];
static void *_Atomic lump_slot[SLOTS];

static void construct(void *object)
{
    struct item *it = object;

    it->type = TYPE;
    atomic_store_explicit(&it->held, 0, memory_order_relaxed);
    atomic_store_explicit(&it->uses, 0, memory_order_relaxed);
    atomic_store_explicit(&it->key, 0, memory_order_relaxed);
    atomic_store_explicit(&it->twice, 0, memory_order_relaxed);
}

static struct item *item_new(struct rng *r)
{
    struct item *it = quire_cache_alloc(items);

    if (it == NULL)
        stress_fail("no memory for an item");
    if (it->type != TYPE)
        stress_fail("item at %p: its type is %#llx", (void *)it, (unsigned long long)it->type);
    if (atomic_exchange_explicit(&it->held, 1, memory_order_relaxed) != 0)
        stress_fail("item at %p: somebody has it", (void *)it);
    uint64_t key = rng_next(r);
    atomic_store_explicit(&it->key, key, memory_order_relaxed);
    atomic_store_explicit(&it->twice, 2 * key, memory_order_relaxed);
    atomic_fetch_add_explicit(&it->uses, 1, memory_order_relaxed);
    return it;
}

static void item_free(struct item *it)
{
    uint64_t key = atomic_load_explicit(&it->key, memory_order_relaxed);

    if (atomic_load_explicit(&it->twice, memory_order_relaxed) != 2 * key)
        stress_fail("item at %p: it was overwritten", (void *)it);
    if (atomic_exchange_explicit(&it->held, 0, memory_order_relaxed) != 1)
        stress_fail("item at %p: nobody had it", (void *)it);
    quire_cache_free(items, it);
}

/* Put a new item where another is, and free that one. */
static void replace(struct rng *r)
{
    struct item *_Atomic *at = &slot[rng_below(r, SLOTS)];
    struct item *it = rng_below(r, 4) != 0 ? item_new(r) : NULL;

    it = atomic_exchange_explicit(at, it, memory_order_acq_rel);
    if (it != NULL)
        item_free(it);
}

/* No lock: the item may be freed, and used anew, while it is looked at. It is an item all the same. */
static void look(struct rng *r)
{
    for (int i = 0; i < 20; i++) {
        struct item *it = atomic_load_explicit(&slot[rng_below(r, SLOTS)], memory_order_acquire);

        if (it != NULL && it->type != TYPE)
            stress_fail("item at %p: a reader finds type %#llx", (void *)it,
                        (unsigned long long)it->type);
    }
}

/* Objects of a plain cache, whose slabs come and go. */
static void toss(struct rng *r)
{
    size_t n = 1 + rng_below(r, 100);
    uint64_t *p[100];

    if (quire_cache_alloc_bulk(lumps, n, (void **)p) != 1)
        stress_fail("no memory for %zu lumps", n);
    for (size_t i = 0; i < n; i++) {
        for (size_t w = 0; w < 40; w++)
            p[i][w] = (uintptr_t)p[i];
        uint64_t *old =
            atomic_exchange_explicit(&lump_slot[rng_below(r, SLOTS)], p[i], memory_order_acq_rel);
        for (size_t w = 0; old != NULL && w < 40; w++)
            if (old[w] != (uintptr_t)old)
                stress_fail("lump at %p: word %zu was overwritten", (void *)old, w);
        if (old != NULL)
            quire_cache_free(lumps, old);
    }
}

/* A cache that lives only a moment. */
static void own(struct rng *r)
{
    size_t size = 1 + rng_below(r, rng_below(r, 8) == 0 ? 100000 : 500), n = 1 + rng_below(r, 200);
    unsigned flags = rng_below(r, 4) == 0 ? QUIRE_CACHE_RED_ZONE : 0;
    struct quire_cache *c = quire_cache_create("own", size, 0, flags, NULL);
    void *p[200];

    if (c == NULL || quire_cache_alloc_bulk(c, n, p) != 1)
        stress_fail("no memory for a cache of %zu bytes", size);
    for (size_t i = 0; i < n; i++)
        memset(p[i], (int)i, size);
    for (size_t i = 0; i < n; i++) {
        if (*(unsigned char *)p[i] != (unsigned char)i)
            stress_fail("object of %zu bytes at %p was overwritten", size, p[i]);
        quire_cache_free(c, p[i]);
    }
    if (quire_cache_destroy(c) != 0)
        stress_fail("a cache without live objects could not be destroyed");
}

/* A pool whose allocator fails as often as not: one element at a time is always to be had. */
static struct quire_mempool *pool;

static void *alloc_at_times(void *unused)
{
    static _Atomic unsigned turn;

    (void)unused;
    return atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed) % 8 < 5
               ? NULL
               : quire_cache_alloc(lumps);
}

static void free_lump(void *element, void *unused)
{
    (void)unused;
    quire_cache_free(lumps, element);
}

static void dip(struct rng *r)
{
    unsigned flags = rng_below(r, 2) == 0 ? QUIRE_MEMPOOL_NOWAIT : 0;
    uint64_t *p = quire_mempool_alloc(pool, flags), mark = rng_next(r);

    if (p == NULL) {
        if (flags == 0)
            stress_fail("a pool that may wait gave nothing");
        return;
    }
    for (size_t w = 0; w < 40; w++)
        p[w] = mark;
    for (size_t w = 0; w < 40; w++)
        if (p[w] != mark)
            stress_fail("element at %p: word %zu was overwritten", (void *)p, w);
    quire_mempool_free(pool, p);
}

static void *work(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);

    for (int i = 0; i < 3000 && !stress_over(); i++) {
        size_t what = rng_below(&r, 100);

        if (what < 50)
            replace(&r);
        else if (what < 80)
            look(&r);
        else if (what < 90)
            dip(&r);
        else if (what < 98)
            toss(&r);
        else if (what < 99)
            own(&r);
        else
            quire_cache_shrink(lumps);
        atomic_fetch_add_explicit(&stress_ops, 1, memory_order_relaxed);
    }
    return NULL;
}

static void round_of_threads(uint64_t *salt)
{
    pthread_t thread[256];

    for (unsigned i = 0; i < stress.threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(*salt)++) != 0)
            stress_fail("no thread");
    for (unsigned i = 0; i < stress.threads; i++)
        pthread_join(thread[i], NULL);
}

static void check_counts(size_t items_live, size_t lumps_live)
{
    struct quire_cache_stat a, b;

    quire_cache_stat(items, &a);
    quire_cache_stat(lumps, &b);
    if (a.live != items_live || b.live != lumps_live)
        stress_fail("%zu items and %zu lumps are live, not %zu and %zu", a.live, b.live, items_live,
                    lumps_live);
}

int main(int argc, char **argv)
{
    uint64_t salt = 1;

    stress_start(argc, argv, 10, 4);
    items = quire_cache_create("item", sizeof(struct item), 0,
                               QUIRE_CACHE_TYPESAFE | QUIRE_CACHE_HWALIGN, construct);
    lumps = quire_cache_create("lump", 320, 0, 0, NULL);
    if (items == NULL || lumps == NULL)
        stress_fail("no memory for a cache");
    pool = quire_mempool_create_cache(2, lumps); /* its allocator never fails */
    if (pool == NULL || quire_mempool_destroy(pool) != 0)
        stress_fail("no pool");
    while ((pool = quire_mempool_create(2, alloc_at_times, free_lump, NULL)) == NULL)
        ;
    while (!stress_over()) {
        size_t nr_items = 0, nr_lumps = 0;

        round_of_threads(&salt);
        for (size_t i = 0; i < SLOTS; i++) {
            nr_items += atomic_load(&slot[i]) != NULL;
            nr_lumps += atomic_load(&lump_slot[i]) != NULL;
        }
        check_counts(nr_items, nr_lumps + 2);
    }
    if (quire_mempool_destroy(pool) != 0)
        stress_fail("elements of the pool are in use");
    for (size_t i = 0; i < SLOTS; i++) {
        if (slot[i] != NULL)
            item_free(slot[i]);
        if (lump_slot[i] != NULL)
            quire_cache_free(lumps, lump_slot[i]);
    }
    check_counts(0, 0);
    if (quire_cache_destroy(items) != 0 || quire_cache_destroy(lumps) != 0)
        stress_fail("something is left");
    return stress_end();
}
