/*
 * compact.c - see compact.h.
 *
 * A pageblock is looked at under the zone's lock, which gives a list of heads;
 * then each run is moved by itself: under q_movable_lock, which keeps it from
 * being pinned, and for the free lists under the zone's. Between two moves
 * every lock is free, so what was seen may have changed, and the handle is
 * asked again.
 */
#include "zone/compact.h"

#include <string.h>

#include "numa/topology.h"
#include "zone/page_alloc.h"
#include "zone/page_ref.h"
#include "zone/pageblock.h"

#define LIST_MAX (1u << (Q_PAGEBLOCK_SHIFT - 12)) /* runs in a pageblock, of pages of 4 KiB */

struct scan {
    struct q_zone *zone;
    size_t target[Q_NR_ORDERS]; /* pageblocks before have nothing free of the order */
    struct q_compacted done;
};

static size_t per_block(void)
{
    return (size_t)1 << q_pageblock_order();
}

/* Where the zone begins and ends; in the sparse model it shares the range with others. */
static void bounds(const struct q_zone *zone, size_t *start, size_t *end)
{
    *start = q_mem.sparse ? q_mem.first_section << Q_SECTION_ORDER : zone->start_pfn;
    *end = q_mem.sparse ? q_mem.end_section << Q_SECTION_ORDER : zone->frontier;
}

/* Some, but not all, of the pageblock is free. */
static bool in_part(const struct q_zone *zone, size_t pfn)
{
    const struct q_pageblock *block = q_pageblock_of(pfn);

    return q_pfn_zone(pfn) == zone && block->nr_free > 0 && block->nr_free < per_block();
}

/* The head at a page, or 1 where it is none: how many pages to the next. */
static size_t length(const struct q_page *page)
{
    /* Slabs and blocks of per-CPU lists may turn into each other; both are passed over. */
    switch (q_page_type_of(page)) {
    case Q_PAGE_BUDDY:
        return (size_t)1 << page->order;
    case Q_PAGE_RUN:
        return page->nr;
    default:
        return 1;
    }
}

/*
 * Whether a run may move. One that was moved to another node stays: where it went would be of the
 * zone's node, and what it left behind would not be.
 */
static bool may_move(const struct q_page *page)
{
    /* Relaxed: set by who has it pinned, and asked again after it was grabbed. */
    return q_page_is_movable(page) &&
           (__atomic_load_n(&page->flags, __ATOMIC_RELAXED) & Q_PAGE_MOVED) == 0;
}

/* The movable runs of a pageblock, in list[]; 0 where something else is in use there. */
static unsigned movable_runs(size_t pfn, struct q_page *list[LIST_MAX])
{
    size_t end = pfn + per_block();
    unsigned n = 0;

    while (pfn < end) {
        struct q_page *page = q_pfn_to_page(pfn);

        if (q_page_type_of(page) == Q_PAGE_RUN && may_move(page) && n < LIST_MAX)
            list[n++] = page;
        else if (!q_page_is_free(page))
            return 0;
        pfn += length(page);
    }
    return pfn == end ? n : 0;
}

/* A free block for nr pages in a pageblock in part use, below `limit`. The zone's lock is held. */
static struct q_page *find_target(struct scan *s, unsigned order, size_t limit)
{
    for (; s->target[order] < limit; s->target[order] += per_block()) {
        size_t pfn = s->target[order], end = pfn + per_block();

        if (!in_part(s->zone, pfn))
            continue;
        while (pfn < end) {
            struct q_page *page = q_pfn_to_page(pfn);

            if (q_page_is_free(page) && page->order >= order)
                return page;
            pfn += length(page);
        }
    }
    return NULL;
}

/* Take nr pages of this free block, as a run. The zone's lock is held. */
static void take_target(struct q_zone *zone, struct q_page *page, size_t nr)
{
    size_t pfn = q_page_to_pfn(page), block = (size_t)1 << page->order;
    struct q_free_how how = {.mobility = q_pageblock_of(pfn)->mobility,
                             .fresh = (page->list & 1) != 0};

    q_buddy_remove(&zone->buddy, page);
    q_pageblock_taken(zone, pfn, nr);
    q_buddy_free_range(&zone->buddy, page + nr, pfn + nr, block - nr, how);
    page->nr = (uint32_t)nr;
    page->refcount = Q_PAGE_HANDLED;
    q_page_set_type(page, Q_PAGE_RUN);
    zone->nr_run_pages += nr;
}

static void give_source(struct q_zone *zone, struct q_page *page, size_t nr)
{
    q_page_set_type(page, Q_PAGE_NONE);
    page->refcount = 1;
    zone->nr_run_pages -= nr;
    q_zone_give(zone, page, nr, nr);
}

/* Move the run at page below `limit`, unless it is pinned or gone. False where there is no room. */
static bool move(struct scan *s, struct q_page *page, size_t limit)
{
    struct q_movable *h = q_movable_grab(page);
    struct q_page *to = NULL;
    bool room = true;

    if (h == NULL)
        return true;
    size_t nr = h->nr;
    if (may_move(page) && q_movable_open(h, page, true)) {
        q_lock(&s->zone->lock);
        to = find_target(s, q_ceil_log2(nr), limit);
        if (to != NULL)
            take_target(s->zone, to, nr);
        q_unlock(&s->zone->lock);
        room = to != NULL;
    }
    if (to != NULL) {
        memcpy(q_page_address(to), q_page_address(page), nr << q_page_shift);
        q_movable_open(h, to, false);
        /* In this order: a child of fork without this thread has the run in one place, or both. */
        q_movable_moved(h, to);
        s->done.moved += nr;
        q_lock(&s->zone->lock);
        give_source(s->zone, page, nr);
        q_unlock(&s->zone->lock);
    } else {
        q_movable_open(h, page, false);
    }
    q_movable_ungrab();
    return room;
}

/* Empty the pageblock at pfn, if all that is in use there may move. */
static void empty_block(struct scan *s, size_t pfn)
{
    struct q_page *list[LIST_MAX];

    q_lock(&s->zone->lock);
    unsigned n = in_part(s->zone, pfn) ? movable_runs(pfn, list) : 0;
    q_unlock(&s->zone->lock);
    for (unsigned i = 0; i < n; i++)
        if (!move(s, list[i], pfn))
            return;
    q_lock(&s->zone->lock);
    s->done.pageblocks += n > 0 && q_pageblock_of(pfn)->nr_free == per_block();
    q_unlock(&s->zone->lock);
}

static struct q_compacted compact_zone(struct q_zone *zone)
{
    struct scan s = {.zone = zone};
    size_t start, end;

    q_lock(&zone->lock);
    bounds(zone, &start, &end);
    q_unlock(&zone->lock);
    for (unsigned order = 0; order < Q_NR_ORDERS; order++)
        s.target[order] = start;
    for (size_t pfn = end; pfn > start && pfn - per_block() > s.target[0];) {
        pfn -= per_block();
        empty_block(&s, pfn);
    }
    return s.done;
}

struct q_compacted q_compact(void)
{
    struct q_compacted all = {0, 0};

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            struct q_zone *zone = &q_nodes[nid]->zones[type];

            q_pcp_drain(zone);
            struct q_compacted done = compact_zone(zone);
            all.moved += done.moved;
            all.pageblocks += done.pageblocks;
        }
    }
    return all;
}

struct sums {
    size_t pages, blocks, suitable;
};

static struct sums sum_up(const size_t nr_free[Q_NR_ORDERS], unsigned order)
{
    struct sums s = {0, 0, 0};

    for (unsigned k = 0; k < Q_NR_ORDERS; k++) {
        s.pages += nr_free[k] << k;
        s.blocks += nr_free[k];
        if (k >= order)
            s.suitable += nr_free[k] << (k - order);
    }
    return s;
}

int q_fragmentation_index(const size_t nr_free[Q_NR_ORDERS], unsigned order)
{
    struct sums s = sum_up(nr_free, order);

    if (s.blocks == 0)
        return 0;
    if (s.suitable > 0)
        return -1000;
    /* The ratio of what would do to what is there: as the kernel's __fragmentation_index(). */
    return 1000 - (int)((1000 + s.pages * 1000 / ((size_t)1 << order)) / s.blocks);
}

int q_unusable_index(const size_t nr_free[Q_NR_ORDERS], unsigned order)
{
    struct sums s = sum_up(nr_free, order);

    if (s.pages == 0)
        return 1000;
    return (int)((s.pages - (s.suitable << order)) * 1000 / s.pages);
}
