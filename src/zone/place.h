/*
 * place.h - where a block may come from, and counting where it came from.
 *
 * A place is made once for an allocation, so that trying again does not take
 * another turn of an interleaving policy.
 */
#ifndef Q_ZONE_PLACE_H
#define Q_ZONE_PLACE_H

#include "numa/mempolicy.h"
#include "zone/memmap.h"

/* Node nid; if need be others, by distance, that are allowed. */
struct q_place {
    unsigned nid;
    bool interleaved;
    uint64_t allowed; /* bit nid */
};

Q_INLINE struct q_place q_place_on(unsigned nid)
{
    return (struct q_place){.nid = nid, .allowed = ~0ull};
}

/* What the calling thread's policy says. */
Q_INLINE struct q_place q_place_by_policy(void)
{
    if (q_likely(q_topology.cpu_nid == NULL))
        return q_place_on(0);
    return (struct q_place){.nid = q_policy_nid(),
                            .interleaved = q_policy_mode() >= Q_MPOL_INTERLEAVE,
                            .allowed = q_policy_allowed()};
}

Q_INLINE bool q_place_allows(const struct q_place *place, const struct q_zone *zone)
{
    return (place->allowed >> zone->nid & 1) != 0;
}

/* A block that was wanted at `want` came from node `got`. Relaxed: numbers for people. */
Q_INLINE void q_place_count(const struct q_place *want, unsigned got)
{
    bool local = got == q_this_nid();
    unsigned item = got == want->nid ? (local ? Q_STAT_HIT_LOCAL : Q_STAT_HIT_OTHER)
                                     : (local ? Q_STAT_MISS_LOCAL : Q_STAT_MISS_OTHER);

    atomic_fetch_add_explicit(&q_nodes[got]->numa[item], 1, memory_order_relaxed);
    if (got != want->nid)
        atomic_fetch_add_explicit(&q_nodes[want->nid]->numa[Q_STAT_FOREIGN], 1,
                                  memory_order_relaxed);
    else if (want->interleaved)
        atomic_fetch_add_explicit(&q_nodes[got]->numa[Q_STAT_INTERLEAVE], 1, memory_order_relaxed);
}

/* A mapping of exactly `bytes` at a multiple of align, where the place says; NULL: none to be had. */
void *q_place_map(const struct q_place *place, size_t bytes, size_t align);

/*
 * The node that a block which is about to be freed may serve again: that of
 * its first page, whoever wrote it. -1: none, its policy is its own.
 */
int q_place_home(const void *p);

#endif
