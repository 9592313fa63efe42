/*
 * spare.c - setting the allocator up, heaps that belong to no thread, and this
 * layer's locks across fork().
 *
 * One such heap serves threads that have none. With several nodes there is one
 * for each, for whoever wants an object on a node not its own.
 */
#include <string.h>

#include "base/msg.h"
#include "base/opt.h"
#include "numa/mempolicy.h"
#include "slab/arena.h"
#include "slab/cache.h"
#include "slab/slub.h"
#include "slab/young.h"

static struct q_lock init_lock, spare_lock;
static struct q_heap *spare; /* serves whoever has no heap */
static struct q_heap *on_node[Q_MAX_NODES];

/* Until everything is set up. Not zero at first, so that looking at it touches none of what is: see q_base_small_data(). */
static _Atomic bool unready = true;

bool q_slub_init(void)
{
    /* Acquire: pairs with the release below. */
    if (q_likely(!atomic_load_explicit(&unready, memory_order_acquire)))
        return true;
    q_base_small_data();
    q_lock(&init_lock);
    if (atomic_load_explicit(&unready, memory_order_relaxed)) {
        static bool options_read;

        q_base_init();
        if (!options_read)
            q_opt_init();
        options_read = true;
        q_sizeclass_init();
        /* What failed for want of memory is tried again by the next allocation. */
        bool done = q_mem_init() && q_shared_init();
        atomic_store_explicit(&unready, !done, memory_order_release);
    }
    bool ready = !atomic_load_explicit(&unready, memory_order_relaxed);
    q_unlock(&init_lock);
    return ready;
}

/* The heap that *heap points to, made if need be; spare_lock held. */
static struct q_heap *made(struct q_heap **at, unsigned nid)
{
    if (*at == NULL) {
        struct q_heap *heap = q_meta_alloc_node(sizeof(*heap), nid);

        if (heap == NULL)
            return NULL;
        q_lock(&q_heap_lock);
        uint32_t id = q_nr_heaps + 1;
        if (id <= Q_MAX_HEAPS) {
            heap->id = (uint16_t)id;
            heap->live = heap->hooked = true; /* lives for ever, and belongs to no thread */
            heap->tp = 0;
            heap->home = heap->nid = (uint8_t)nid;
            q_young_init(heap, false);
            q_heaps[id] = heap;
            atomic_store_explicit(&q_nr_heaps, id, memory_order_release);
            *at = heap;
        }
        q_unlock(&q_heap_lock);
    }
    return *at;
}

static void *alloc_from(struct q_heap **at, unsigned nid, unsigned cls)
{
    void *p = NULL;

    if (!q_slub_init())
        return NULL;
    q_lock(&spare_lock);
    struct q_heap *heap = made(at, nid);
    if (heap != NULL)
        p = q_heap_take(heap, cls);
    q_unlock(&spare_lock);
    return p;
}

void *q_spare_alloc(unsigned cls)
{
    return alloc_from(&spare, 0, cls);
}

void *q_node_alloc(unsigned nid, unsigned cls)
{
    struct q_mempolicy old = q_mempolicy_swap(q_mempolicy_of_nid(nid));
    void *p = alloc_from(&on_node[nid], nid, cls);

    q_mempolicy_swap(old);
    return p;
}

void q_slub_fork_prepare(bool patient)
{
    q_arena_fork_prepare(patient);
    q_cache_fork_prepare(patient);
    q_lock_for_fork(&init_lock, patient);
    q_lock_for_fork(&spare_lock, patient);
    q_lock_for_fork(&q_heap_lock, patient);
    if (!atomic_load_explicit(&unready, memory_order_relaxed))
        q_shared_lock_all(patient);
}

void q_slub_fork_parent(void)
{
    if (!atomic_load_explicit(&unready, memory_order_relaxed))
        q_shared_unlock_all();
    q_unlock_for_fork(&q_heap_lock);
    q_unlock_for_fork(&spare_lock);
    q_unlock_for_fork(&init_lock);
    q_cache_fork_parent();
    q_arena_fork_parent();
}

void q_slub_fork_child(void)
{
    if (!atomic_load_explicit(&unready, memory_order_relaxed))
        q_shared_fork_child();
    q_heap_lock_after_fork();
    if (q_lock_after_fork(&spare_lock)) {
        /* Lost, with what is free in them. */
        spare = NULL;
        memset(on_node, 0, sizeof(on_node));
    }
    q_lock_after_fork(&init_lock);
    q_cache_fork_child();
    q_arena_fork_child();
}
