/*
 * salvage.c - free lists that a fork copied in the middle of a change.
 *
 * Two threads are interrupted inside the allocator by handlers that fork, and
 * each holds a lock that the other fork wants. One goes first, without that
 * lock (base/lock.h), and its child finds lists half changed, by a thread that
 * does not exist there. So the child makes them anew from what is certain:
 * a page whose type is BUDDY is the head of a free block of its order, since
 * both are written before the block is listed and the type is cleared after
 * it is unlisted (buddy.c). What was on its way from one place to another is
 * lost: a few blocks of address space.
 *
 * Of the free pages nobody knows any more which were written; all count so.
 */
#include "zone/salvage.h"

#include <string.h>

#include "zone/page_alloc.h"
#include "zone/pageblock.h"

/* A block of the largest order, all of it in this zone and cut off the frontier. */
static void salvage_block(struct q_zone *zone, size_t pfn)
{
    size_t end = pfn + ((size_t)1 << Q_MAX_ORDER);

    for (size_t at = pfn; at < end; at += (size_t)1 << q_pageblock_order()) {
        struct q_pageblock *block = q_pageblock_of(at);

        block->nr_free = block->nr_dirty = 0;
        block->dirty = (struct q_list){NULL, NULL};
    }
    while (pfn < end) {
        struct q_page *page = q_pfn_to_page(pfn);
        size_t nr = 1;

        if (q_page_is_free(page)) {
            nr = (size_t)1 << page->order;
            q_pageblock_freed(zone, pfn, nr, nr);
            q_buddy_relist(&zone->buddy, page, (enum q_mobility)q_pageblock_of(pfn)->mobility);
        }
        pfn += nr;
    }
}

/* The zone was growing: let what is online and where the next block is cut off agree. */
static void settle_frontier(struct q_zone *zone)
{
    if (!q_mem.sparse)
        zone->present_pages = zone->frontier_end - zone->start_pfn;
    else if (zone->frontier_end - zone->frontier != (size_t)1 << Q_SECTION_ORDER)
        zone->frontier = zone->frontier_end; /* of two sections: the new one is lost */
    /* The next block to be cut off may have been freed, but not passed over, already. */
    if (zone->frontier < zone->frontier_end)
        q_page_set_type(q_pfn_to_page(zone->frontier), Q_PAGE_NONE);
}

/* Whether the largest block at pfn is one of this zone's, cut off the frontier. */
static bool was_cut(const struct q_zone *zone, size_t pfn)
{
    if (!q_pfn_online(pfn) || q_pfn_zone(pfn) != zone)
        return false;
    return q_mem.sparse ? pfn != zone->frontier || pfn == zone->frontier_end : pfn < zone->frontier;
}

void q_zone_salvage(struct q_zone *zone)
{
    size_t step = (size_t)1 << Q_MAX_ORDER;

    settle_frontier(zone);
    memset(&zone->buddy, 0, sizeof(zone->buddy));
    zone->dirty = (struct q_list){NULL, NULL};
    zone->nr_dirty = 0;
    zone->resting = NULL; /* lost */
    for (size_t pfn = 0; pfn < q_mem.max_pages; pfn += step)
        if (was_cut(zone, pfn))
            salvage_block(zone, pfn);
}

/* What waited on the list stays lost, and looks like memory in use. */
void q_pcp_salvage(struct q_pcp *pcp)
{
    memset(pcp->list, 0, sizeof(pcp->list));
    pcp->weight = pcp->count = pcp->high = pcp->misses = 0;
}
