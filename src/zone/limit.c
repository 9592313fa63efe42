/*
 * limit.c - see limit.h.
 */
#include "zone/limit.h"

#include "base/opt.h"
#include "numa/topology.h"
#include "zone/hold.h"
#include "zone/linear.h"
#include "zone/movable.h"
#include "zone/page_alloc.h"
#include "zone/reclaim.h"
#include "zone/special.h"
#include "zone/vmalloc.h"

#define DROP_BYTES ((size_t)1 << 20) /* of discardable runs, at a time */
#define OVER_SHARE 64                /* by this part of the limit free memory may go beyond it */

_Atomic size_t q_pages_in_use;
_Atomic size_t q_pages_carved;
_Atomic size_t q_pages_outside;

bool q_charge(size_t pages)
{
    /* Relaxed: a counter that publishes nothing; the sum alone must be exact. */
    if (q_likely(q_opt.limit == 0)) {
        atomic_fetch_add_explicit(&q_pages_in_use, pages, memory_order_relaxed);
        return true;
    }
    size_t limit = q_opt.limit >> q_page_shift;
    size_t now = atomic_load_explicit(&q_pages_in_use, memory_order_relaxed);
    /* Never above it, not for a moment: another's small request must not fail for this one. */
    do {
        if (pages > limit || now > limit - pages)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&q_pages_in_use, &now, now + pages,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void q_uncharge(size_t pages)
{
    atomic_fetch_sub_explicit(&q_pages_in_use, pages, memory_order_relaxed);
}

bool q_charge_outside(size_t pages)
{
    if (!q_charge(pages))
        return false;
    /* Relaxed: as above. */
    atomic_fetch_add_explicit(&q_pages_outside, pages, memory_order_relaxed);
    return true;
}

void q_uncharge_outside(size_t pages)
{
    atomic_fetch_sub_explicit(&q_pages_outside, pages, memory_order_relaxed);
    q_uncharge(pages);
}

/* Pages that are free and hold memory all the same. Relaxed: a hint, read without locks. */
static size_t resting(void)
{
    size_t nr = q_vcached() >> q_page_shift;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            nr += __atomic_load_n(&q_nodes[nid]->zones[type].nr_dirty, __ATOMIC_RELAXED);
    return nr;
}

void q_keep_below_limit(void)
{
    size_t used = atomic_load_explicit(&q_pages_in_use, memory_order_relaxed);
    size_t limit = q_opt.limit >> q_page_shift;
    size_t room = limit - q_min(used, limit), over = limit / OVER_SHARE;
    /* Relaxed: a hint. What the kernel did not take last time (mlockall) is not offered again. */
    static _Atomic size_t refused;
    size_t stays = atomic_load_explicit(&refused, memory_order_relaxed);

    /* Not where part of it may have to stay: each allocation would look at all of it again. */
    if (resting() <= q_max(room, stays) + over || q_any_held() || q_linear_is_pinned())
        return;
    q_vtrim(true);
    if (resting() <= room)
        return;
    /* A little more than need be, so that the next ones need not. */
    stays = q_reclaim_all(room - q_min(over, room)) > 0 ? 0 : resting();
    atomic_store_explicit(&refused, stays, memory_order_relaxed);
}

bool q_last_resort(size_t nr)
{
    bool found = (q_vtrim(true) > 0) | (q_special_trim() > 0);

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            found |= q_pcp_drain(&q_nodes[nid]->zones[type]);
    return (q_movable_shrink(q_max(nr, DROP_BYTES >> q_page_shift)) > 0) | found;
}
