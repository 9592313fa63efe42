/*
 * layers_zone.c - blocks of pages: the buddy lists, zones, windows and areas, movable pages, what
 * makes room, mappings.
 */
#include "layers.h"

#include "base/opt.h"
#include "malloc/shrink.h"
#include "quire/shrinker.h"
#include "zone/area.h"
#include "zone/compact.h"
#include "zone/highmem.h"
#include "zone/movable.h"
#include "zone/page_alloc.h"
#include "zone/reclaim.h"
#include "zone/special.h"
#include "zone/vmalloc.h"

/* blocks at once: more than a per-CPU list keeps */
#define DEEP 256
/* more pages than there are windows */
#define FAR 2000

static void slab_pages(struct shim *shim, size_t kept)
{
    struct q_page *pages[DEEP];
    unsigned written;

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= kept) {
            for (size_t i = 0; i < kept; i++) {
                pages[i] = q_alloc_slab_pages(1, &written);
                check(pages[i] != NULL, "no pages");
            }
            for (size_t i = 0; i < kept; i++)
                q_free_slab_pages(pages[i], 0);
        }
}

static void pages_pair(struct shim *shim, size_t order)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            struct q_page *page = q_alloc_pages(Q_GFP_KERNEL, (unsigned)order);

            check(page != NULL, "no pages");
            q_free_run(page);
        }
}

static void pages_zero(struct shim *shim, size_t order)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            struct q_page *page = q_alloc_pages(Q_GFP_KERNEL | Q_GFP_ZERO, (unsigned)order);
            char *bytes;

            check(page != NULL, "no pages");
            bytes = q_page_address(page);
            check(bytes[0] == 0, "a page is not zero");
            bytes[0] = 1;
            q_free_run(page);
        }
}

static void pages_deep(struct shim *shim, size_t order)
{
    struct q_page *pages[DEEP];

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= DEEP) {
            for (int i = 0; i < DEEP; i++) {
                pages[i] = q_alloc_pages(Q_GFP_KERNEL, (unsigned)order);
                check(pages[i] != NULL, "no pages");
            }
            for (int i = 0; i < DEEP; i++)
                q_free_run(pages[i]);
        }
}

static void run(struct shim *shim, size_t nr)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            struct q_page *page = q_alloc_run(Q_GFP_MOVABLE, nr);

            check(page != NULL, "no pages");
            q_free_run(page);
        }
}

static void special(struct shim *shim, enum q_special kind, size_t order)
{
    int error;

    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            struct q_page *page =
                q_special_alloc(kind, (unsigned)order, (size_t)1 << order, false, &error);

            check(page != NULL, "no pages of this zone");
            *(volatile char *)q_special_address(page) = 1;
            q_special_free(page);
        }
}

static void low(struct shim *shim, size_t order)
{
    special(shim, Q_SPECIAL_DMA32, order);
}

static void locked(struct shim *shim, size_t order)
{
    special(shim, Q_SPECIAL_DMA, order);
}

/* Pages of zone HIGHMEM, for as long as the program lives. */
static struct q_page *high_page(size_t i)
{
    static struct q_page *all[FAR];
    int error;

    if (all[i] == NULL)
        all[i] = q_special_alloc(Q_SPECIAL_HIGHMEM, 0, 1, false, &error);
    check(all[i] != NULL, "no pages of zone HIGHMEM");
    return all[i];
}

static void kmap(struct shim *shim, size_t pages)
{
    size_t i = 0;
    int error;

    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            struct q_page *page = high_page(i++ % pages);
            char *bytes = q_kmap(page, &error);

            check(bytes != NULL, "no window");
            *(volatile char *)bytes = 1;
            q_kunmap(page);
        }
}

static void vmap(struct shim *shim, size_t pages)
{
    struct quire_page *some[64];
    int error;

    for (size_t i = 0; i < pages; i++)
        some[i] = (struct quire_page *)high_page(i * 7 % FAR);
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            char *bytes = q_area_map(some, pages, &error);

            check(bytes != NULL, "no area");
            *(volatile char *)bytes = 1;
            q_area_done(q_area_remove(bytes, true));
        }
}

static void area(struct shim *shim, size_t pages)
{
    int error;

    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            char *bytes = q_area_alloc(pages << q_page_shift, &error);

            check(bytes != NULL, "no area");
            *(volatile char *)bytes = 1;
            q_area_done(q_area_remove(bytes, false));
        }
}

static void pin(struct shim *shim, size_t pages)
{
    struct q_movable *h = q_movable_alloc(pages, 0);
    bool lost;
    void *at;

    check(h != NULL, "no movable run");
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            check(q_movable_pin(h, &at, &lost) == Q_PIN_OK, "cannot pin");
            q_movable_unpin(h);
        }
    q_movable_free(h);
}

/* Every second page is freed, what is left is moved together, all is freed. */
static void compact(struct shim *shim, size_t pages)
{
    static struct q_movable *all[1 << 14];

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= pages) {
            for (size_t i = 0; i < pages; i++)
                check((all[i] = q_movable_alloc(1, 0)) != NULL, "no movable run");
            for (size_t i = 0; i < pages; i += 2)
                q_movable_free(all[i]);
            q_compact();
            for (size_t i = 1; i < pages; i += 2)
                q_movable_free(all[i]);
        }
}

/* In runs of 16 pages. */
static void reclaim(struct shim *shim, size_t pages)
{
    static struct q_page *all[1 << 10];

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= pages) {
            for (size_t i = 0; i < pages / 16; i++) {
                check((all[i] = q_alloc_run(Q_GFP_MOVABLE, 16)) != NULL, "no pages");
                char *bytes = q_page_address(all[i]);
                for (size_t at = 0; at < 16; at++)
                    *(volatile char *)(bytes + (at << q_page_shift)) = 1;
            }
            for (size_t i = 0; i < pages / 16; i++)
                q_free_run(all[i]);
            q_reclaim_all(0);
        }
}

static void drop(struct shim *shim, size_t pages)
{
    static struct q_movable *all[1 << 14];
    bool lost;
    void *at;

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= pages) {
            for (size_t i = 0; i < pages; i++) {
                all[i] = q_movable_alloc(1, Q_MOVABLE_DISCARDABLE);
                check(all[i] != NULL && q_movable_pin(all[i], &at, &lost) == Q_PIN_OK, "no run");
                *(volatile char *)at = 1;
                q_movable_unpin(all[i]);
            }
            /* Those pinned since the last time stay once. */
            while (q_movable_shrink(pages) > 0)
                continue;
            check(q_movable_droppable() == 0, "some are left");
            for (size_t i = 0; i < pages; i++)
                q_movable_free(all[i]);
        }
}

/* A cache of runs, oldest first, that fills what the limit leaves. */
static struct {
    struct q_page *run[DEEP];
    size_t first, nr, bytes;
} cache;

static size_t count_cache(void *arg)
{
    return cache.nr * cache.bytes;
}

static size_t scan_cache(void *arg, size_t bytes)
{
    size_t freed = 0;

    for (; freed < bytes && cache.nr > 0; cache.nr--, freed += cache.bytes)
        q_free_run(cache.run[cache.first++ % DEEP]);
    return freed;
}

static void shrinker(struct shim *shim, size_t pages)
{
    quire_shrinker_t *s = quire_shrinker_register("layers", count_cache, scan_cache, NULL);

    check(s != NULL, "no shrinker");
    cache.bytes = pages << q_page_shift;
    q_opt.limit = (q_pages_in_use << q_page_shift) + (DEEP - 1) * cache.bytes;
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            struct q_page *page;
            unsigned tries = 0;

            while ((page = q_alloc_run(Q_GFP_MOVABLE, pages)) == NULL)
                check(q_memory_is_short(cache.bytes, &tries), "no room is made");
            *(volatile char *)q_page_address(page) = 1;
            cache.run[(cache.first + cache.nr++) % DEEP] = page;
        }
    q_opt.limit = 0;
    scan_cache(NULL, SIZE_MAX);
    quire_shrinker_unregister(s);
}

static void mapping(struct shim *shim, size_t mib)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            size_t dirty;
            void *block = q_vmalloc(mib << 20, q_page_size(), &dirty);

            check(block != NULL, "no mapping");
            *(volatile char *)block = 1;
            check(q_vfree(block), "a mapping is not where it was");
        }
}

void register_zone(void)
{
    static const size_t orders[] = {0, 1, 2, 3, 4, 6, 9, 0};
    static const size_t few[] = {0, 2, 4, 0};
    static const size_t held[] = {16, 256, 0};
    static const size_t windows[] = {1, 300, FAR, 0};
    static const size_t rows[] = {1, 16, 64, 0};
    static const size_t pages[] = {9, 33, 300, 0};
    static const size_t mib[] = {8, 64, 0};

    shim_register("slab-pages-1", slab_pages, 1, 1, 0);
    shim_register("slab-pages-256", slab_pages, DEEP, DEEP, 0);
    each("pages", pages_pair, orders, 1);
    each("pages-deep", pages_deep, few, DEEP);
    each("pages-zero", pages_zero, few, 1);
    each("low", low, few, 1);
    each("locked", locked, few, 1);
    each("pin", pin, few + 1, 1);
    shim_register("compact-16384", compact, 1 << 14, 1 << 14, 0);
    shim_register("reclaim-4096", reclaim, 1 << 12, 1 << 12, 0);
    shim_register("drop-4096", drop, 1 << 12, 1 << 12, 0);
    each("shrinker", shrinker, held, 1);
    each("kmap", kmap, windows, 1);
    each("vmap", vmap, rows, 1);
    each("area", area, rows, 1);
    each("run", run, pages, 1);
    each("mapping", mapping, mib, 1);
}
