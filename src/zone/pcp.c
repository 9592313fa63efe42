/*
 * pcp.c - per-CPU lists of free blocks in front of the buddy lists.
 *
 *   hot end                                   cold end
 *   [just freed] <-> [freed before] <-> ... <-> [fresh or long idle]
 *        ^ alloc and free work here     drain works here ^
 *
 * Blocks on a list look allocated to the buddy lists. `high` starts as this
 * CPU's share of the spare budget; a list that runs empty soon after it
 * drained doubles it, a quiet one shrinks back. It bounds the memory that the
 * list keeps resident, not its length. The CPU is a hint: the lock
 * makes it right wherever the thread has moved to.
 */
#include "zone/page_alloc.h"

#include "base/msg.h"
#include "base/opt.h"
#include "numa/topology.h"
#include "zone/pageblock.h"
#include "zone/reclaim.h"

#define BATCH_MAX 8
#define SPARSE_BYTES ((size_t)16 << 10) /* what a sparse block is expected to fill at most */
#define SCAN 16                         /* blocks to look at for one that fits */

/* Pages of slabs in use. */
static size_t carved(void)
{
    return atomic_load_explicit(&q_pages_carved, memory_order_relaxed);
}

/*
 * Pages of the spare budget that one CPU may hold: its share among the CPUs
 * that could want some. The whole budget is for programs that are not tiny.
 */
static uint32_t base_high(void)
{
    size_t share = q_min(q_opt.spare >> q_page_shift, carved() / 16) / q_topology.nr_cpus;

    return (uint32_t)q_max(share, (size_t)2 << q_slab_order());
}

/* What all lists together may hold is small against what is in use. */
static uint32_t max_high(void)
{
    return (uint32_t)q_max(base_high(), carved() / 64 / q_topology.nr_cpus);
}

static struct q_pcp *this_pcp(struct q_zone *zone)
{
    return &zone->pcp[q_this_cpu()];
}

/* What a block counts for against `high`: its resident pages, and a little for itself. */
static uint32_t weight(const struct q_page *page)
{
    return page->nr + 1;
}

static void unlink_block(struct q_pcp *pcp, struct q_page *page, unsigned order)
{
    q_list_del(&page->lru);
    pcp->count -= 1u << order;
    pcp->weight -= weight(page);
}

/* Is a block with `nr` resident pages better than one with `best`, where `want` are wanted? */
static bool fits_better(unsigned nr, unsigned best, unsigned want)
{
    if (nr >= want)
        return best < want || nr < best;
    return best < want && nr > best;
}

/* So many pages; none where a page is larger than that. */
static unsigned sparse_max(void)
{
    return (unsigned)(SPARSE_BYTES >> q_page_shift);
}

/* A block that will stay nearly empty is taken from sparse pageblocks. */
static bool is_sparse(unsigned want)
{
    return want <= sparse_max();
}

/*
 * The hottest of the blocks that fit best. A slab that will hold little takes
 * one of which little is resident: otherwise, in time, all pages of all
 * slabs would be, used or not.
 */
static struct q_page *pop_fit(struct q_pcp *pcp, unsigned order, unsigned want)
{
    struct q_list *list = &pcp->list[is_sparse(want)][order];
    struct q_page *best = NULL;
    unsigned seen = 0;

    for (struct q_list *l = list->next; l != NULL && l != list && seen < SCAN;
         l = l->next, seen++) {
        struct q_page *page = q_container_of(l, struct q_page, lru);

        if (best == NULL || fits_better(page->nr, best->nr, want))
            best = page;
        if (best->nr == want)
            break;
    }
    if (best != NULL)
        unlink_block(pcp, best, order);
    return best;
}

static void push(struct q_pcp *pcp, struct q_page *page, unsigned order, unsigned written, bool hot)
{
    /* Relaxed: see q_pageblock_next_dirty(), which looks without this lock. */
    __atomic_store_n(&page->order, (uint8_t)order, __ATOMIC_RELAXED);
    q_page_set_type(page, Q_PAGE_PCP);
    page->nr = written;
    /* Relaxed: a hint. A pageblock changes its kind under the zone's lock. */
    uint8_t mobility =
        __atomic_load_n(&q_pageblock_of(q_page_to_pfn(page))->mobility, __ATOMIC_RELAXED);
    struct q_list *list = &pcp->list[mobility == Q_SPARSE][order];
    if (hot)
        q_list_add(list, &page->lru);
    else
        q_list_add_tail(list, &page->lru);
    pcp->count += 1u << order;
    pcp->weight += weight(page);
}

/* Fetch a batch from the buddy lists, more when the list keeps running empty. */
static void refill(struct q_zone *zone, struct q_pcp *pcp, unsigned order, enum q_mobility mobility)
{
    unsigned batch = pcp->misses < BATCH_MAX ? pcp->misses + 1 : BATCH_MAX;
    size_t written;

    pcp->misses++;
    q_lock(&zone->lock);
    for (unsigned i = 0; i < batch; i++) {
        struct q_page *page = q_zone_take(zone, order, (size_t)1 << order, mobility, &written);

        if (page == NULL)
            break;
        push(pcp, page, order, (unsigned)written, false);
    }
    q_zone_tick(zone);
    q_unlock(&zone->lock);
}

/* Give blocks from the cold end back until what is left weighs no more than `keep`. */
static void drain_to(struct q_zone *zone, struct q_pcp *pcp, uint32_t keep)
{
    q_lock(&zone->lock);
    for (unsigned i = 0; i < Q_NR_PCP_KINDS * Q_PCP_ORDERS; i++) {
        unsigned order = Q_PCP_ORDERS - 1 - i / Q_NR_PCP_KINDS;
        struct q_list *list = &pcp->list[i % Q_NR_PCP_KINDS][order];

        while (pcp->weight > keep && !q_list_empty(list)) {
            struct q_page *page = q_container_of(list->prev, struct q_page, lru);

            unlink_block(pcp, page, order);
            q_page_set_type(page, Q_PAGE_NONE);
            q_zone_give(zone, page, (size_t)1 << order, page->nr);
        }
    }
    q_zone_tick(zone);
    q_unlock(&zone->lock);
}

struct q_page *q_pcp_alloc(struct q_zone *zone, unsigned order, unsigned want, unsigned *written)
{
    struct q_pcp *pcp = this_pcp(zone);
    struct q_page *page;

    q_assert(order < Q_PCP_ORDERS);
    q_lock(&pcp->lock);
    page = pop_fit(pcp, order, want);
    if (page == NULL) {
        refill(zone, pcp, order, is_sparse(want) ? Q_SPARSE : Q_UNMOVABLE);
        page = pop_fit(pcp, order, want);
        if (page == NULL) /* another kind had to help out */
            page = pop_fit(pcp, order, is_sparse(want) ? sparse_max() + 1 : 0);
    }
    if (page != NULL)
        *written = page->nr;
    q_unlock(&pcp->lock);
    return page;
}

void q_pcp_free(struct q_zone *zone, struct q_page *page, unsigned order, unsigned written)
{
    struct q_pcp *pcp = this_pcp(zone);

    q_lock(&pcp->lock);
    if (pcp->high == 0)
        pcp->high = base_high();
    push(pcp, page, order, written, true);
    if (pcp->weight > pcp->high) {
        /* Run empty since the last drain: the list is too short for this load. */
        if (pcp->misses > 0)
            pcp->high = (uint32_t)q_min(2 * pcp->high, max_high());
        else if (pcp->misses == 0 && pcp->high > base_high())
            pcp->high /= 2;
        pcp->misses = 0;
        drain_to(zone, pcp, pcp->high / 2);
    }
    q_unlock(&pcp->lock);
}

bool q_pcp_drain(struct q_zone *zone)
{
    bool found = false;

    for (unsigned cpu = 0; cpu < q_topology.nr_cpus; cpu++) {
        struct q_pcp *pcp = &zone->pcp[cpu];

        q_lock(&pcp->lock);
        found |= pcp->count > 0;
        if (pcp->count > 0)
            drain_to(zone, pcp, 0);
        pcp->high = 0;
        q_unlock(&pcp->lock);
    }
    return found;
}
