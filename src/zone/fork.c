/*
 * fork.c - the locks of this layer across fork().
 *
 * Taken in the order of doc/locking.md before, released in the parent, and
 * cleared in the child, where no other thread exists. What a thread that is
 * gone was changing under one that could not be had is made anew there.
 */
#include "zone/fork.h"

#include "numa/topology.h"
#include "zone/area.h"
#include "zone/collapse.h"
#include "zone/highmem.h"
#include "zone/movable.h"
#include "zone/salvage.h"
#include "zone/vmalloc.h"

typedef void (*lock_fn)(struct q_lock *l);

static void take(struct q_lock *l)
{
    q_lock_for_fork(l, true);
}

static void take_or_leave(struct q_lock *l)
{
    q_lock_for_fork(l, false);
}

static void each_lock(lock_fn fn)
{
    fn(&q_movable_lock);
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; q_nodes[nid] != NULL && type < Q_NR_ZONES; type++)
            for (unsigned cpu = 0; cpu < q_topology.nr_cpus; cpu++)
                fn(&q_nodes[nid]->zones[type].pcp[cpu].lock);
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; q_nodes[nid] != NULL && type < Q_NR_ZONES; type++)
            fn(&q_nodes[nid]->zones[type].lock);
    q_special_each_lock(fn);
    fn(&q_kmap_lock);
    fn(&q_area_lock);
    fn(&q_vm_lock);
    fn(&q_mem_lock);
}

static void zone_after_fork(struct q_zone *zone)
{
    for (unsigned cpu = 0; cpu < q_topology.nr_cpus; cpu++)
        if (q_lock_after_fork(&zone->pcp[cpu].lock))
            q_pcp_salvage(&zone->pcp[cpu]);
    if (q_lock_after_fork(&zone->lock))
        q_zone_salvage(zone);
}

void q_zone_fork_prepare(bool patient)
{
    each_lock(patient ? take : take_or_leave);
}

void q_zone_fork_parent(void)
{
    each_lock(q_unlock_for_fork);
}

void q_zone_fork_child(void)
{
    q_lock_after_fork(&q_movable_lock); /* a run is on its way with one store, or lost */
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; q_nodes[nid] != NULL && type < Q_NR_ZONES; type++)
            zone_after_fork(&q_nodes[nid]->zones[type]);
    q_special_fork_child();
    q_kmap_fork_child();
    q_lock_after_fork(&q_area_lock); /* a list is changed by one store */
    q_vmalloc_fork_child(q_lock_after_fork(&q_vm_lock));
    q_lock_after_fork(&q_mem_lock); /* of a pool, too little is left rather than too much */
    q_collapse_fork_child();
}
