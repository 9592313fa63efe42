/*
 * cache_fork.c - the locks of object caches across fork(), and what a child
 * makes of what other threads left.
 *
 * A child may find a lock held by a thread that does not exist there (see
 * base/lock.h), and what it guards in the middle of a change. The states of
 * objects are certain, and the slabs are found by their pages; lists, bits and
 * counters are made anew from these. A slab that was on its way is lost.
 */
#include <string.h>

#include "numa/topology.h"
#include "slab/cache.h"

/* Whether every lock was to be had, so that what they guard is whole. */
static bool whole;

/* Whether the list of caches can be walked. */
static bool listed;

static void take(struct q_lock *l)
{
    q_lock_for_fork(l, true);
}

static void take_or_leave(struct q_lock *l)
{
    q_lock_for_fork(l, false);
}

void q_cache_fork_prepare(bool patient)
{
    q_lock_for_fork(&q_caches.lock, patient);
    whole = patient;
    listed = q_lock_is_mine(&q_caches.lock);
    if (listed)
        q_caches_each_lock(patient ? take : take_or_leave);
}

void q_cache_fork_parent(void)
{
    if (listed)
        q_caches_each_lock(q_unlock_for_fork);
    q_unlock_for_fork(&q_caches.lock);
}

/* From the states: how far it is carved, what is free. */
static void recount(struct q_cache_slab *s)
{
    const struct q_cache *c = s->cache;

    s->carved = s->nr_free = s->hint = 0;
    memset(s->free, 0, (c->objs + 63) / 64 * sizeof(uint64_t));
    for (uint32_t k = 0; k < c->objs; k++) {
        if (s->state[k] == Q_OBJ_NONE)
            continue;
        s->carved = k + 1;
        if (s->state[k] == Q_OBJ_IN_SLAB) {
            s->free[k / 64] |= 1ull << (k % 64);
            s->nr_free++;
        }
    }
}

/* Make the lists of a node anew: every slab of the cache there, found by its pages. */
static void salvage(struct q_cache *c, unsigned nid)
{
    struct q_cache_node *node = &c->node[nid];
    size_t step = (size_t)1 << q_slab_order();

    memset(&node->partial, 0, sizeof(*node) - offsetof(struct q_cache_node, partial));
    for (size_t pfn = 0; pfn < q_mem.max_pages; pfn += step) {
        struct q_page *page = q_pfn_online(pfn) ? q_pfn_to_page(pfn) : NULL;

        if (page == NULL || q_unit_page(q_pfn_to_virt(pfn)) != page ||
            page->private != Q_OWNER_CACHE)
            continue;
        struct q_cache_slab *s = q_unit_info(q_unit_of(q_pfn_to_virt(pfn)));
        if (s->cache != c || s->nid != nid)
            continue;
        recount(s);
        q_cache_relist(node, s);
    }
}

/* A list that may be half changed is whole in one direction. */
static void mend_list(void)
{
    struct q_list *last = &q_caches.list, *l = last->next;

    q_caches.nr = 0;
    for (; l != NULL && l != &q_caches.list; l = l->next) {
        l->prev = last;
        last = l;
        q_caches.nr++;
    }
    q_caches.list.prev = last;
}

void q_cache_fork_child(void)
{
    if (q_lock_after_fork(&q_caches.lock))
        mend_list();
    for (struct q_list *l = q_caches.list.next; l != NULL && l != &q_caches.list; l = l->next) {
        struct q_cache *c = q_container_of(l, struct q_cache, list);

        for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
            if (q_lock_after_fork(&c->node[nid].lock))
                salvage(c, nid);
    }
}

void q_cache_after_fork(void)
{
    if (whole && q_caches.nr > 0)
        q_cache_adopt_magazines();
}
