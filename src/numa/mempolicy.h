/*
 * mempolicy.h - from which node the next block comes.
 *
 * Each thread has a policy. Whatever takes memory asks it: slabs, runs,
 * mappings. To give one allocation another policy, exchange the thread's
 * around it, inside q_enter():
 *
 *     struct q_mempolicy old = q_mempolicy_swap(wanted);
 *     ... allocate ...
 *     wanted = q_mempolicy_swap(old);        keeps whose turn it is
 *
 *   mode           next block from                        falls to
 *   -------------  -------------------------------------  ----------------
 *   DEFAULT        as LOCAL; INTERLEAVE over all nodes
 *                  with the option numa:interleave
 *   LOCAL          the node of this CPU                   any, by distance
 *   PREFERRED      the one node in nids                   any, by distance
 *   BIND           this CPU's node where it is in nids,   nodes in nids
 *                  else the nearest one in nids
 *   INTERLEAVE     the nodes in nids in turn              any, by distance
 *   WEIGHTED       the same, as often as their weights    any, by distance
 *
 * Blocks take turns; mappings of their own are interleaved page by page, by the
 * kernel.
 *
 * What falls where is quire's choice of zones. Where a node is full the
 * kernel takes a page of another one rather than kill the process, under
 * BIND, too.
 *
 * A policy is its thread's own: no lock. With one node nothing here is looked at.
 */
#ifndef Q_NUMA_MEMPOLICY_H
#define Q_NUMA_MEMPOLICY_H

#include "numa/topology.h"

enum q_mpol_mode {
    Q_MPOL_DEFAULT,
    Q_MPOL_LOCAL,
    Q_MPOL_PREFERRED,
    Q_MPOL_BIND,
    Q_MPOL_INTERLEAVE,
    Q_MPOL_WEIGHTED,
    Q_NR_MPOL_MODES,
};

struct q_mempolicy {
    uint64_t nids; /* bit nid; not empty, but for DEFAULT and LOCAL */
    uint8_t mode;  /* enum q_mpol_mode */
    uint8_t turn;  /* INTERLEAVE, WEIGHTED: the node that served last */
    uint8_t left;  /* WEIGHTED: blocks until its turn is over */
};
_Static_assert(Q_MAX_NODES <= 64, "a bit for each node");

extern __thread struct q_mempolicy q_mempolicy
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

Q_INLINE struct q_mempolicy q_mempolicy_swap(struct q_mempolicy with)
{
    struct q_mempolicy old = q_mempolicy;

    q_mempolicy = with;
    return old;
}

/* Node nid for one allocation. */
Q_INLINE struct q_mempolicy q_mempolicy_of_nid(unsigned nid)
{
    return (struct q_mempolicy){.nids = 1ull << nid, .mode = Q_MPOL_PREFERRED};
}

/* The mode in force: DEFAULT is what the options say. */
unsigned q_policy_mode(void);

/* The node for the next block of the calling thread; counts as its turn. */
unsigned q_policy_nid(void);

/* The same, without counting it. */
unsigned q_policy_peek(void);

/* The nodes that may serve it at all. */
uint64_t q_policy_allowed(void);

/* Whether memory of node nid is what the thread would be given. */
bool q_policy_wants(unsigned nid);

/*
 * Give a fresh mapping the thread's policy, if the kernel would not do so by
 * itself; nid is the node whose turn it is, for kernels that know no better.
 */
void q_policy_bind(void *addr, size_t len, unsigned nid);

/* Whether the mapping at addr was given one. */
bool q_policy_bound(const void *addr);

/* Read the kernel's weights for WEIGHTED; false where it has none (before Linux 6.9). */
bool q_policy_read_weights(void);

#endif
