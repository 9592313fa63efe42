/*
 * page_alloc.c - see page_alloc.h.
 *
 * Where a block comes from, in this order: the free lists of the wanted
 * mobility; a whole free pageblock of another mobility, which changes hands;
 * the frontier; last, any free block of another mobility, taking the
 * pageblock with it when most of it is free. After Gorman, "Supporting
 * memory fragmentation avoidance", 2007.
 */
#include "zone/page_alloc.h"

#include <string.h>

#include "base/msg.h"
#include "numa/topology.h"
#include "zone/fit.h"
#include "zone/pageblock.h"
#include "zone/reclaim.h"

#define SMALL_HEAP_BYTES ((size_t)128 << 20)

/* Hand every free block of the pageblock at pfn to another mobility. */
static void steal_pageblock(struct q_zone *zone, size_t pfn, enum q_mobility mobility)
{
    size_t per_block = (size_t)1 << q_pageblock_order();
    size_t at = q_align_down(pfn, per_block), end = at + per_block;

    q_pageblock_of(pfn)->mobility = (uint8_t)mobility;
    zone->nr_steal++;
    while (at < end) {
        struct q_page *page = q_pfn_to_page(at);

        if (q_page_is_free(page)) {
            q_buddy_retype(&zone->buddy, page, mobility);
            at += (size_t)1 << page->order;
        } else {
            at++;
        }
    }
}

static bool steal_whole(struct q_zone *zone, enum q_mobility mobility)
{
    for (unsigned other = 0; other < Q_NR_MOBILITIES; other++) {
        if (other == mobility)
            continue;
        struct q_page *page = q_buddy_largest(&zone->buddy, q_pageblock_order(), other);
        if (page == NULL)
            continue;
        size_t pfn = q_page_to_pfn(page), end = pfn + ((size_t)1 << page->order);
        if (mobility == Q_SPARSE && q_pageblock_of(pfn)->huge)
            continue; /* would become resident as a whole */
        q_buddy_retype(&zone->buddy, page, mobility);
        for (; pfn < end; pfn += (size_t)1 << q_pageblock_order())
            q_pageblock_of(pfn)->mobility = (uint8_t)mobility;
        zone->nr_steal++;
        return true;
    }
    return false;
}

static bool steal_part(struct q_zone *zone, unsigned order, enum q_mobility mobility)
{
    for (unsigned other = 0; other < Q_NR_MOBILITIES; other++) {
        struct q_page *page =
            other == mobility ? NULL : q_buddy_largest(&zone->buddy, order, other);

        if (page == NULL)
            continue;
        if (q_pageblock_mostly_free(q_page_to_pfn(page)))
            steal_pageblock(zone, q_page_to_pfn(page), mobility);
        else
            q_buddy_retype(&zone->buddy, page, mobility);
        return true;
    }
    return false;
}

/* Give the next largest block of the frontier to the free lists. */
static bool cut_frontier(struct q_zone *zone, enum q_mobility mobility)
{
    if (zone->frontier == zone->frontier_end && !q_zone_grow(zone))
        return false;
    size_t pfn = zone->frontier, end = pfn + ((size_t)1 << Q_MAX_ORDER);

    for (size_t p = pfn; p < end; p += (size_t)1 << q_pageblock_order()) {
        struct q_pageblock *block = q_pageblock_of(p);
        block->mobility = (uint8_t)mobility;
        block->nr_free = 0;
    }
    if (mobility != Q_SPARSE)
        q_zone_want_huge(zone, pfn);
    q_pageblock_freed(zone, pfn, end - pfn, 0);
    bool fresh = q_pageblock_of(pfn)->nr_dirty == 0;
    struct q_free_how how = {.mobility = (uint8_t)mobility, .fresh = fresh};
    q_buddy_free(&zone->buddy, q_pfn_to_page(pfn), pfn, Q_MAX_ORDER, how);
    zone->frontier = end;
    return true;
}

static void set_resting(struct q_zone *zone, struct q_page *page)
{
    /* Relaxed: q_reclaim_tick() looks without the lock whether there is one. */
    __atomic_store_n(&zone->resting, page, __ATOMIC_RELAXED);
}

void q_zone_settle(struct q_zone *zone)
{
    struct q_page *page = zone->resting;

    if (page == NULL)
        return;
    set_resting(zone, NULL);
    q_page_set_type(page, Q_PAGE_NONE);
    q_zone_give(zone, page, page->nr, page->nr);
}

/* The resting run, if it is what is wanted; else it is merged. */
static struct q_page *take_resting(struct q_zone *zone, size_t nr, q_gfp_t gfp, size_t *written)
{
    struct q_page *page = zone->resting;

    if (page == NULL || page->nr != nr || (gfp & Q_GFP_ANYWHERE) == 0) {
        q_zone_settle(zone);
        return NULL;
    }
    set_resting(zone, NULL);
    *written = nr;
    return page;
}

/* Under a limit all that is free is looked at again and again. */
static void rest(struct q_zone *zone, struct q_page *page)
{
    q_zone_settle(zone);
    set_resting(zone, page);
    q_page_set_type(page, Q_PAGE_REST);
    if (q_opt.limit != 0)
        q_zone_settle(zone);
}

struct q_page *q_zone_take(struct q_zone *zone, unsigned order, size_t nr, enum q_mobility mobility,
                           size_t *written)
{
    struct q_page *page;

    q_zone_settle(zone);
    while ((page = q_buddy_alloc(&zone->buddy, order, mobility,
                                 q_pageblock_is_fresh)) == NULL) {
        if (!steal_whole(zone, mobility) && !cut_frontier(zone, mobility) &&
            !steal_part(zone, order, mobility))
            return NULL;
    }
    size_t pfn = q_page_to_pfn(page), block = (size_t)1 << order;
    *written = q_pageblock_taken(zone, pfn, nr);
    if (nr < block)
        q_free_tail(zone, page + nr, block - nr, (page->list & 1) != 0);
    zone->nr_alloc++;
    return page;
}

void q_zone_give(struct q_zone *zone, struct q_page *page, size_t nr, size_t written)
{
    size_t pfn = q_page_to_pfn(page);

    q_pageblock_freed(zone, pfn, nr, written);
    struct q_free_how how = {.mobility = q_pageblock_of(pfn)->mobility,
                             .fresh = written == 0,
                             .to_tail = q_pageblock_to_tail(pfn)};
    q_buddy_free_range(&zone->buddy, page, pfn, nr, how);
    zone->nr_free_calls++;
}

static enum q_mobility mobility_of(q_gfp_t gfp)
{
    if (gfp & Q_GFP_RECLAIMABLE)
        return Q_RECLAIMABLE;
    return gfp & Q_GFP_MOVABLE ? Q_MOVABLE : Q_UNMOVABLE;
}

/*
 * In a small heap keeping kinds apart costs more memory than it can ever
 * save: what slabs gave back serves runs, and the other way round.
 */
bool q_heap_is_small(unsigned nid)
{
    const struct q_zone *normal = &q_nodes[nid]->zones[Q_ZONE_NORMAL];
    size_t small = SMALL_HEAP_BYTES >> q_page_shift;

    if (!q_mem.sparse)
        small = q_min(small, normal->spanned_pages / 4);

    /* Relaxed: a hint, read without the zone's lock. */
    return __atomic_load_n(&normal->present_pages, __ATOMIC_RELAXED) <= small;
}

/* Walk the zonelist of a node once; on success the run's head is filled in. */
static struct q_page *try_on(const struct q_place *want, q_gfp_t gfp, unsigned order, size_t nr)
{
    unsigned nid = want->nid;
    size_t written = 0;

    if (q_heap_is_small(nid))
        gfp &= ~(Q_GFP_MOVABLE | Q_GFP_RECLAIMABLE);
    struct q_zone **list =
        q_nodes[nid]->zonelist[gfp & Q_GFP_MOVABLE ? Q_ZONE_MOVABLE : Q_ZONE_NORMAL];

    if (!q_charge(nr))
        return NULL;
    for (; *list != NULL; list++) {
        struct q_zone *zone = *list;

        if ((gfp & Q_GFP_THISNODE) != 0 && zone->nid != nid)
            break;
        if (!q_place_allows(want, zone))
            continue;
        q_lock(&zone->lock);
        struct q_page *page = take_resting(zone, nr, gfp, &written);
        if (page == NULL && (gfp & Q_GFP_ANYWHERE) != 0)
            page = q_take_fitting(zone, nr, mobility_of(gfp), &written);
        if (page == NULL)
            page = q_zone_take(zone, order, nr, mobility_of(gfp), &written);
        if (page != NULL) {
            q_page_set_type(page, Q_PAGE_RUN);
            page->nr = (uint32_t)nr;
            page->refcount = 1;
            zone->nr_run_pages += nr;
        }
        q_zone_tick(zone);
        q_unlock(&zone->lock);
        if (page != NULL) {
            q_place_count(want, zone->nid);
            if ((gfp & Q_GFP_ZERO) != 0)
                memset(q_page_address(page), 0, written << q_page_shift);
            return page;
        }
    }
    q_uncharge(nr);
    return NULL;
}

struct q_page *q_alloc_on(struct q_place want, q_gfp_t gfp, unsigned order, size_t nr)
{
    struct q_page *page = try_on(&want, gfp, order, nr);

    if (page == NULL && q_last_resort(nr))
        page = try_on(&want, gfp, order, nr);
    q_keep_to_limit();
    return page;
}

struct q_page *q_alloc_pages_node(unsigned nid, q_gfp_t gfp, unsigned order)
{
    if (order > Q_MAX_ORDER || nid >= q_topology.nr_nodes)
        return NULL;
    return q_alloc_on(q_place_on(nid), gfp, order, (size_t)1 << order);
}

struct q_page *q_alloc_pages(q_gfp_t gfp, unsigned order)
{
    return order <= Q_MAX_ORDER ? q_alloc_on(q_place_by_policy(), gfp, order, (size_t)1 << order)
                                : NULL;
}

struct q_page *q_alloc_run_aligned(q_gfp_t gfp, size_t nr, unsigned order)
{
    if (nr == 0 || nr > (size_t)1 << Q_MAX_ORDER || order > Q_MAX_ORDER)
        return NULL;
    return q_alloc_on(q_place_by_policy(), gfp, (unsigned)q_max(q_ceil_log2(nr), order), nr);
}

struct q_page *q_alloc_run(q_gfp_t gfp, size_t nr)
{
    return q_alloc_run_aligned(gfp, nr, 0);
}

/* Whoever gets these pages next wants memory of the zone's node. */
static void bring_home(const struct q_page *page, size_t nr)
{
    unsigned nid = q_pfn_zone(q_page_to_pfn(page))->nid;

    /* Where that fails they are as good as they were. */
    q_node_move(q_page_address(page), nr << q_page_shift, nid);
}

void q_free_run(struct q_page *page)
{
    struct q_zone *zone = q_pfn_zone(q_page_to_pfn(page));

    if (q_unlikely(page->flags != 0)) {
        bring_home(page, page->nr);
        page->flags = 0;
    }
    q_lock(&zone->lock);
    q_assert(q_page_type_of(page) == Q_PAGE_RUN);
    size_t nr = page->nr;
    zone->nr_run_pages -= nr;
    rest(zone, page);
    q_zone_tick(zone);
    q_unlock(&zone->lock);
    q_uncharge(nr);
}

void q_shrink_run(struct q_page *page, size_t nr)
{
    struct q_zone *zone = q_pfn_zone(q_page_to_pfn(page));
    size_t cut = page->nr - nr;

    if (cut == 0)
        return;
    if (q_unlikely(page->flags != 0))
        bring_home(page + nr, cut);
    q_lock(&zone->lock);
    page->nr = (uint32_t)nr;
    zone->nr_run_pages -= cut;
    q_zone_give(zone, page + nr, cut, cut);
    q_unlock(&zone->lock);
    q_uncharge(cut);
}

bool q_grow_run(struct q_page *page, size_t nr)
{
    size_t pfn = q_page_to_pfn(page), have = page->nr;
    struct q_zone *zone = q_pfn_zone(pfn);
    bool ok = false;

    if (nr > (size_t)1 << Q_MAX_ORDER || !q_charge(nr - have))
        return false;
    q_lock(&zone->lock);
    q_zone_settle(zone);
    if (nr - have <= q_free_behind(page, have, nr)) {
        q_take_behind(zone, page, have, nr);
        q_pageblock_taken(zone, pfn + have, nr - have);
        page->nr = (uint32_t)nr;
        zone->nr_run_pages += nr - have;
        ok = true;
    }
    q_unlock(&zone->lock);
    if (!ok)
        q_uncharge(nr - have);
    q_keep_to_limit();
    return ok;
}

static struct q_page *try_slab(const struct q_place *from, unsigned want, unsigned *written)
{
    unsigned order = q_slab_order();

    if (!q_charge((size_t)1 << order))
        return NULL;
    for (struct q_zone **list = q_nodes[from->nid]->zonelist[Q_ZONE_NORMAL]; *list != NULL;
         list++) {
        struct q_page *page = NULL;

        if (q_place_allows(from, *list))
            page = q_pcp_alloc(*list, order, want, written);
        if (page != NULL) {
            q_place_count(from, (*list)->nid);
            page->nr = 1u << order;
            /* Release: the type is what makes other threads look at the slab's descriptor. */
            __atomic_store_n(&page->type, Q_PAGE_SLAB, __ATOMIC_RELEASE);
            return page;
        }
    }
    q_uncharge((size_t)1 << order);
    return NULL;
}

struct q_page *q_alloc_slab_pages(unsigned want, unsigned *written)
{
    struct q_place from = q_place_by_policy();
    struct q_page *page = try_slab(&from, want, written);

    if (page == NULL && q_last_resort((size_t)1 << q_slab_order()))
        page = try_slab(&from, want, written);
    q_keep_to_limit();
    return page;
}

void q_free_slab_pages(struct q_page *page, unsigned written)
{
    if (q_unlikely(page->flags != 0)) {
        bring_home(page, (size_t)1 << q_slab_order());
        page->flags = 0;
    }
    q_pcp_free(q_pfn_zone(q_page_to_pfn(page)), page, q_slab_order(), written);
    q_uncharge((size_t)1 << q_slab_order());
}
