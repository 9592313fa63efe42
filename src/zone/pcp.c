/*
 * pcp.c - per-CPU lists of free blocks in front of the buddy lists.
 *
 *   hot end                                   cold end
 *   [just freed] <-> [freed before] <-> ... <-> [fresh or long idle]
 *        ^ alloc and free work here     drain works here ^
 *
 * Blocks on a list look allocated to the buddy lists. `high` starts as this
 * CPU's share of the spare budget; a list that runs empty soon after it
 * drained doubles it, a quiet one shrinks back. The CPU is a hint: the lock
 * makes it right wherever the thread has moved to.
 */
#include "zone/page_alloc.h"

#include "base/msg.h"
#include "base/opt.h"
#include "numa/topology.h"
#include "zone/pageblock.h"
#include "zone/reclaim.h"

#define BATCH_MAX 8

/* Pages of the spare budget that one CPU may hold: its share among the CPUs that could want some. */
static uint32_t base_high(void)
{
    size_t share = (q_opt.spare >> q_page_shift) / q_topology.nr_cpus;

    return (uint32_t)q_max(share, (size_t)2 << q_slab_order());
}

/* What all lists together may hold is small against what is in use. */
static uint32_t max_high(void)
{
    size_t carved = atomic_load_explicit(&q_pages_carved, memory_order_relaxed);

    return (uint32_t)q_max(base_high(), carved / 64 / q_topology.nr_cpus);
}

static struct q_pcp *this_pcp(struct q_zone *zone)
{
    return &zone->pcp[q_this_cpu()];
}

static struct q_page *pop_hot(struct q_pcp *pcp, unsigned order)
{
    struct q_list *list = &pcp->list[order];

    if (q_list_empty(list))
        return NULL;
    struct q_page *page = q_container_of(list->next, struct q_page, lru);
    q_list_del(&page->lru);
    pcp->count -= 1u << order;
    return page;
}

static void push(struct q_pcp *pcp, struct q_page *page, unsigned order, unsigned written, bool hot)
{
    page->order = (uint8_t)order;
    /* Relaxed: see q_pageblock_next_dirty(), which looks without this lock. */
    __atomic_store_n(&page->type, Q_PAGE_PCP, __ATOMIC_RELAXED);
    page->nr = written;
    if (hot)
        q_list_add(&pcp->list[order], &page->lru);
    else
        q_list_add_tail(&pcp->list[order], &page->lru);
    pcp->count += 1u << order;
}

/* Fetch a batch from the buddy lists, more when the list keeps running empty. */
static void refill(struct q_zone *zone, struct q_pcp *pcp, unsigned order)
{
    unsigned batch = pcp->misses < BATCH_MAX ? pcp->misses + 1 : BATCH_MAX;
    bool zero;

    pcp->misses++;
    q_lock(&zone->lock);
    for (unsigned i = 0; i < batch; i++) {
        struct q_page *page = q_zone_take(zone, order, (size_t)1 << order, Q_UNMOVABLE, &zero);

        if (page == NULL)
            break;
        push(pcp, page, order, zero ? 0 : 1u << order, false);
    }
    q_zone_tick(zone);
    q_unlock(&zone->lock);
}

/* Give blocks from the cold end back until no more than `keep` pages are left. */
static void drain_to(struct q_zone *zone, struct q_pcp *pcp, uint32_t keep)
{
    q_lock(&zone->lock);
    for (int order = Q_PCP_ORDERS - 1; order >= 0; order--) {
        struct q_list *list = &pcp->list[order];

        while (pcp->count > keep && !q_list_empty(list)) {
            struct q_page *page = q_container_of(list->prev, struct q_page, lru);

            q_list_del(&page->lru);
            pcp->count -= 1u << order;
            page->type = Q_PAGE_NONE;
            q_zone_give(zone, page, (size_t)1 << order, page->nr);
        }
    }
    q_zone_tick(zone);
    q_unlock(&zone->lock);
}

struct q_page *q_pcp_alloc(struct q_zone *zone, unsigned order, unsigned *written)
{
    struct q_pcp *pcp = this_pcp(zone);
    struct q_page *page;

    q_assert(order < Q_PCP_ORDERS);
    q_lock(&pcp->lock);
    page = pop_hot(pcp, order);
    if (page == NULL) {
        refill(zone, pcp, order);
        page = pop_hot(pcp, order);
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
    if (pcp->count > pcp->high) {
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
