/*
 * numa.c - the functions of quire/numa.h: memory of a node that one names.
 *
 * An allocation on a node exchanges the thread's policy for its own time; so
 * slabs, runs and mappings all come from where it says. Small objects come
 * from the node's own heap, since the thread's chains hold what its policy
 * gave, or where it ran a moment ago.
 */
#include "quire/numa.h"

#include <errno.h>
#include <string.h>

#include "malloc/malloc.h"
#include "malloc/reserve.h"
#include "malloc/shrink.h"
#include "numa/mempolicy.h"
#include "stat/stat.h"
#include "zone/page_alloc.h"
#include "zone/page_ref.h"

#define WORD_BITS (8 * sizeof(unsigned long))

_Static_assert((int)QUIRE_MPOL_LOCAL == Q_MPOL_LOCAL &&
                   (int)QUIRE_MPOL_WEIGHTED_INTERLEAVE == Q_MPOL_WEIGHTED,
               "the same order");
_Static_assert(QUIRE_NODE_LOCAL + 1 == 0, "as q_find_node() has it");

static int fail(int error)
{
    errno = error;
    return -1;
}

/* Set up, and enter; false with errno set. */
static bool enter(void)
{
    if (q_interrupted())
        return fail(EAGAIN) == 0;
    q_enter();
    if (q_unlikely(q_heap == &q_heap_none))
        q_malloc_first();
    if (q_slub_init())
        return true;
    q_leave();
    return fail(ENOMEM) == 0;
}

static int leave(int error)
{
    if (q_unlikely(q_any_postponed()))
        q_free_postponed();
    q_leave();
    return error == 0 ? 0 : fail(error);
}

/* An object from the node's own heap. The allocator was entered, and is left. */
static void *object_on(unsigned nid, size_t bytes)
{
    unsigned tries = 0;
    int saved = errno;
    void *p = q_node_alloc(nid, q_class_of(bytes));

    leave(p != NULL ? 0 : ENOMEM);
    while (p == NULL && q_memory_is_short(bytes, &tries)) {
        if (!enter())
            return NULL;
        p = q_node_alloc(nid, q_class_of(bytes));
        leave(p != NULL ? 0 : ENOMEM);
    }
    if (p != NULL)
        errno = saved;
    return p;
}

Q_PUBLIC void *quire_node_alloc(size_t bytes, int node)
{
    void *p;

    if (bytes == 0) {
        errno = EINVAL;
        return NULL;
    }
    if (!enter())
        return NULL;
    unsigned nid = q_find_node(node);
    if (nid == q_topology.nr_nodes) {
        leave(ENXIO);
        return NULL;
    }
    bool anything_will_do =
        node == QUIRE_NODE_LOCAL ? q_policy_mode() == Q_MPOL_LOCAL : q_topology.nr_nodes == 1;
    if (bytes <= Q_SMALL_MAX && !anything_will_do)
        return object_on(nid, bytes);
    struct q_mempolicy old = q_mempolicy_swap(q_mempolicy_of_nid(nid));
    leave(0);
    p = q_alloc(bytes, 16, false);
    q_mempolicy_swap(old);
    return p;
}

static bool bit(const unsigned long *nodes, unsigned long maxnode, unsigned long n)
{
    return n < maxnode && (nodes[n / WORD_BITS] >> n % WORD_BITS & 1) != 0;
}

/* The mask as bits of nids. 0 or an errno. */
static int read_mask(const unsigned long *nodes, unsigned long maxnode, uint64_t *nids)
{
    *nids = 0;
    if (nodes == NULL) {
        *nids = ~0ull >> (64 - q_topology.nr_nodes);
        return 0;
    }
    for (unsigned long n = 0; n < maxnode; n++) {
        if (!bit(nodes, maxnode, n))
            continue;
        unsigned nid = n <= 0xffff ? q_find_node((int)n) : q_topology.nr_nodes;
        if (nid == q_topology.nr_nodes)
            return ENXIO;
        *nids |= 1ull << nid;
    }
    return *nids == 0 ? EINVAL : 0;
}

static void write_mask(unsigned long *nodes, unsigned long maxnode, uint64_t nids)
{
    memset(nodes, 0, (maxnode + WORD_BITS - 1) / WORD_BITS * sizeof(*nodes));
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        if ((nids >> nid & 1) != 0)
            nodes[q_topology.kernel_id[nid] / WORD_BITS] |=
                1ul << q_topology.kernel_id[nid] % WORD_BITS;
}

/* The policy that the arguments describe. 0 or an errno. */
static int describe(enum quire_mempolicy mode, const unsigned long *nodes, unsigned long maxnode,
                    struct q_mempolicy *policy)
{
    int error = 0;

    *policy = (struct q_mempolicy){.mode = (uint8_t)mode, .turn = (uint8_t)q_this_nid()};
    if ((unsigned)mode >= Q_NR_MPOL_MODES || (mode == QUIRE_MPOL_PREFERRED && nodes == NULL))
        return EINVAL;
    if (mode >= QUIRE_MPOL_PREFERRED)
        error = read_mask(nodes, maxnode, &policy->nids);
    if (error == 0 && mode == QUIRE_MPOL_PREFERRED)
        policy->nids &= -policy->nids;
    if (error == 0 && mode == QUIRE_MPOL_WEIGHTED_INTERLEAVE && !q_policy_read_weights())
        error = ENOTSUP;
    return error;
}

Q_PUBLIC int quire_mempolicy_set(enum quire_mempolicy mode, const unsigned long *nodes,
                                 unsigned long maxnode)
{
    struct q_mempolicy policy;

    if (!enter())
        return -1;
    int error = describe(mode, nodes, maxnode, &policy);
    struct q_heap *heap = error == 0 ? q_heap_get() : NULL;
    if (error == 0)
        q_mempolicy_swap(policy);
    if (heap != NULL) {
        heap->busy = true;
        /* Compiler only: what a signal handler in this thread may see. */
        atomic_signal_fence(memory_order_seq_cst);
        q_heap_follow_now(heap);
        atomic_signal_fence(memory_order_seq_cst);
        heap->busy = false;
    }
    return leave(error);
}

Q_PUBLIC int quire_mempolicy_get(enum quire_mempolicy *mode, unsigned long *nodes,
                                 unsigned long maxnode)
{
    if (!enter())
        return -1;
    if (nodes != NULL && maxnode <= q_topology.kernel_id[q_topology.nr_nodes - 1])
        return leave(EINVAL);
    if (mode != NULL)
        *mode = q_mempolicy.mode;
    if (nodes != NULL)
        write_mask(nodes, maxnode, q_mempolicy.nids);
    return leave(0);
}

/* Blocks whose pages move have to be brought home one day. */
static void mark_moved(const char *at, size_t len)
{
    for (size_t off = 0, nr; off < len; off += nr << q_page_shift) {
        struct q_page *page = q_virt_to_page(at + off);

        nr = page != NULL ? q_page_set_moved(page) : 1;
    }
}

Q_PUBLIC ssize_t quire_migrate(void *addr, size_t bytes, int node)
{
    if (!enter())
        return -1;
    unsigned nid = q_find_node(node);
    uintptr_t from = q_align_down((uintptr_t)addr, q_page_size());
    size_t len = q_align_up((uintptr_t)addr - from + bytes, q_page_size());
    if (nid == q_topology.nr_nodes)
        return leave(ENXIO);
    if (bytes == 0 || bytes > Q_REQUEST_MAX)
        return leave(EINVAL);
    long moved = 0;
    if (q_topology.bind) {
        mark_moved((const char *)from, len);
        moved = q_node_move((void *)from, len, nid);
    }
    return moved >= 0 ? leave(0) + moved : leave((int)-moved);
}

Q_PUBLIC int quire_node_of(const void *addr)
{
    int node = q_kernel_node_at(addr);

    return node >= 0 ? node : fail(-node);
}

Q_PUBLIC int quire_nodes(unsigned long *nodes, unsigned long maxnode)
{
    if (!enter())
        return -1;
    if (nodes != NULL && maxnode <= q_topology.kernel_id[q_topology.nr_nodes - 1])
        return leave(EINVAL);
    if (nodes != NULL)
        write_mask(nodes, maxnode, ~0ull);
    int nr = (int)q_topology.nr_nodes;
    leave(0);
    return nr;
}

static void add_zone(struct quire_node_stat *stat, struct q_zone *zone)
{
    q_lock(&zone->lock);
    q_zone_settle(zone);
    size_t free_pages = zone->buddy.nr_free_pages, dirty = zone->nr_dirty;
    size_t carved = zone->present_pages - (zone->frontier_end - zone->frontier);
    q_unlock(&zone->lock);
    stat->used_bytes += (carved - free_pages) << q_page_shift;
    stat->free_bytes += free_pages << q_page_shift;
    stat->resident_bytes += dirty << q_page_shift;
}

Q_PUBLIC int quire_node_stat(int node, struct quire_node_stat *stat, size_t size)
{
    struct quire_node_stat s = {0};
    size_t n[Q_NR_NUMASTAT];

    if (!enter())
        return -1;
    unsigned nid = q_find_node(node);
    if (nid == q_topology.nr_nodes)
        return leave(ENXIO);
    if (size < sizeof(s))
        return leave(EINVAL);
    q_stat_numa(nid, n);
    s.numa_hit = n[0];
    s.numa_miss = n[1];
    s.numa_foreign = n[2];
    s.interleave_hit = n[3];
    s.local_node = n[4];
    s.other_node = n[5];
    for (unsigned type = 0; type < Q_NR_ZONES; type++)
        add_zone(&s, &q_nodes[nid]->zones[type]);
    memset(stat, 0, size);
    memcpy(stat, &s, sizeof(s));
    return leave(0);
}
