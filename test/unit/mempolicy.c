/* mempolicy.c - policies choose the node of slabs, runs and mappings, with pretended nodes. */
#include <sched.h>

#include "core.h"
#include "numa/mempolicy.h"
#include "slab/slub.h"

#define NODES 4

static void start(void)
{
    cpu_set_t set;

    /* On one CPU, so that the local node stays the same. */
    CPU_ZERO(&set);
    CPU_SET(sched_getcpu(), &set);
    must(sched_setaffinity(0, sizeof(set), &set) == 0);
    q_opt.numa_fake = NODES;
    core_start_slabs(CORE_FLAT);
    must_eq(q_topology.nr_nodes, NODES);
}

static unsigned nid_of(const struct q_page *page)
{
    return q_pfn_zone(q_page_to_pfn(page))->nid;
}

/* The node of a run, and of a slab, as the policy gives them. */
static unsigned run_nid(void)
{
    struct q_page *page = q_alloc_run(Q_GFP_MOVABLE, 3);

    must(page != NULL);
    unsigned nid = nid_of(page);
    q_free_run(page);
    return nid;
}

static unsigned slab_nid(void)
{
    unsigned written;
    struct q_page *page = q_alloc_slab_pages(1, &written);

    must(page != NULL);
    unsigned nid = nid_of(page);
    q_free_slab_pages(page, 0);
    return nid;
}

static size_t count(unsigned nid, enum q_numa_stat item)
{
    return atomic_load(&q_nodes[nid]->numa[item]);
}

Test(mempolicy, local_is_the_default)
{
    start();
    for (int i = 0; i < 10; i++) {
        must_eq(run_nid(), q_this_nid());
        must_eq(slab_nid(), q_this_nid());
    }
    must_eq(count(q_this_nid(), Q_STAT_HIT_LOCAL), 20);
    must(q_policy_wants(q_this_nid()));
    must(!q_policy_wants((q_this_nid() + 1) % NODES));
}

Test(mempolicy, preferred)
{
    start();
    unsigned other = (q_this_nid() + 1) % NODES;
    struct q_mempolicy old = q_mempolicy_swap(q_mempolicy_of_nid(other));

    must_eq(run_nid(), other);
    must_eq(slab_nid(), other);
    q_mempolicy_swap(old);
    must_eq(run_nid(), q_this_nid());
    must_eq(count(other, Q_STAT_HIT_OTHER), 2);
}

Test(mempolicy, bind_takes_the_local_one_of_its_nodes_else_the_nearest)
{
    start();
    unsigned me = q_this_nid(), a = (me + 1) % NODES, b = (me + 2) % NODES;
    struct q_mempolicy bind = {.mode = Q_MPOL_BIND, .nids = 1ull << a | 1ull << b};

    q_topology.distance[me][b] = 11;
    q_mempolicy_swap(bind);
    must_eq(run_nid(), b);
    must_eq(slab_nid(), b);
    bind.nids |= 1ull << me;
    q_mempolicy_swap(bind);
    must_eq(run_nid(), me);
    must_eq(q_policy_allowed(), bind.nids);
}

Test(mempolicy, interleave_takes_turns)
{
    start();
    uint64_t nids = 1ull << 0 | 1ull << 2 | 1ull << 3;
    unsigned expect[] = {2, 3, 0, 2, 3, 0};

    q_mempolicy_swap((struct q_mempolicy){.mode = Q_MPOL_INTERLEAVE, .nids = nids});
    for (unsigned i = 0; i < 6; i++) {
        must_eq(q_policy_peek(), expect[i]);
        must_eq(i % 2 ? slab_nid() : run_nid(), expect[i]);
    }
    must_eq(count(2, Q_STAT_INTERLEAVE), 2);
    must_eq(count(1, Q_STAT_INTERLEAVE), 0);
}

Test(mempolicy, the_option_interleaves_over_all)
{
    unsigned seen[NODES] = {0};

    q_opt.numa = Q_NUMA_INTERLEAVE;
    start();
    for (int i = 0; i < 4 * NODES; i++)
        seen[run_nid()]++;
    for (unsigned nid = 0; nid < NODES; nid++)
        must_eq(seen[nid], 4);
    q_mempolicy_swap((struct q_mempolicy){.mode = Q_MPOL_LOCAL});
    must_eq(run_nid(), q_this_nid());
}

/* Objects of a node from any thread; the slab is that node's. */
Test(mempolicy, objects_of_a_node)
{
    start();
    for (unsigned nid = 0; nid < NODES; nid++) {
        unsigned cls = q_class_of(100);
        void *p = q_node_alloc(nid, cls);

        must(p != NULL);
        must_eq(q_slab_nid(q_slab_of(p)), nid);
        must_eq(q_slub_free(q_slab_of(p), p), Q_FREED);
        must_eq(q_mempolicy.mode, Q_MPOL_DEFAULT);
    }
}

/* A heap whose thread's policy changed gives up what lies elsewhere. */
Test(mempolicy, a_heap_follows)
{
    start();
    unsigned cls = q_class_of(64), other = (q_this_nid() + 1) % NODES;
    void *a = q_slub_pop(cls);

    must_eq(q_slab_nid(q_slab_of(a)), q_this_nid());
    q_mempolicy_swap(q_mempolicy_of_nid(other));
    q_heap_follow_now(q_heap);
    void *b = q_slub_pop(cls);
    must_eq(q_slab_nid(q_slab_of(b)), other);
    must_eq(q_slub_free(q_slab_of(a), a), Q_FREED);
    must_eq(q_slub_free(q_slab_of(b), b), Q_FREED);
}
