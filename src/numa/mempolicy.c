/* mempolicy.c - see mempolicy.h. */
#include "numa/mempolicy.h"

#include "base/msg.h"
#include "base/opt.h"
#include "base/sys.h"

__thread struct q_mempolicy q_mempolicy __attribute__((tls_model("initial-exec")));

/* Written by whoever asks for WEIGHTED, always with what the kernel says; read at any time. */
static uint8_t weights[Q_MAX_NODES];

static uint64_t all_nodes(void)
{
    return ~0ull >> (64 - q_topology.nr_nodes);
}

unsigned q_policy_mode(void)
{
    if (q_mempolicy.mode != Q_MPOL_DEFAULT)
        return q_mempolicy.mode;
    return q_opt.numa == Q_NUMA_INTERLEAVE ? Q_MPOL_INTERLEAVE : Q_MPOL_LOCAL;
}

static uint64_t nids_of(unsigned mode)
{
    return q_mempolicy.mode == Q_MPOL_DEFAULT || mode == Q_MPOL_LOCAL ? all_nodes()
                                                                      : q_mempolicy.nids;
}

/* The node in nids that is nearest to nid; the lower number of equals. */
static unsigned nearest(unsigned nid, uint64_t nids)
{
    unsigned best = (unsigned)__builtin_ctzll(nids);

    for (unsigned n = best + 1; n < q_topology.nr_nodes; n++)
        if ((nids >> n & 1) != 0 && q_topology.distance[nid][n] < q_topology.distance[nid][best])
            best = n;
    return best;
}

/* The next node in nids after the one that served last, or that one while its turn goes on. */
static unsigned whose_turn(unsigned mode, uint64_t nids)
{
    unsigned turn = q_mempolicy.turn;

    if (mode == Q_MPOL_WEIGHTED && q_mempolicy.left > 0)
        return turn;
    uint64_t later = nids & ~(~0ull >> (63 - turn));
    return (unsigned)__builtin_ctzll(later != 0 ? later : nids);
}

static void count_turn(unsigned mode, unsigned nid)
{
    if (mode != Q_MPOL_WEIGHTED || q_mempolicy.left == 0) {
        q_mempolicy.turn = (uint8_t)nid;
        q_mempolicy.left = __atomic_load_n(&weights[nid], __ATOMIC_RELAXED);
    }
    q_mempolicy.left -= q_mempolicy.left > 0;
}

static unsigned next_nid(unsigned mode, uint64_t nids)
{
    switch (mode) {
    case Q_MPOL_PREFERRED:
        return (unsigned)__builtin_ctzll(nids);
    case Q_MPOL_BIND:
        return nearest(q_this_nid(), nids);
    case Q_MPOL_INTERLEAVE:
    case Q_MPOL_WEIGHTED:
        return whose_turn(mode, nids);
    default:
        return q_this_nid();
    }
}

unsigned q_policy_peek(void)
{
    if (q_likely(q_topology.cpu_nid == NULL))
        return 0;
    unsigned mode = q_policy_mode();

    return next_nid(mode, nids_of(mode));
}

unsigned q_policy_nid(void)
{
    if (q_likely(q_topology.cpu_nid == NULL))
        return 0;
    unsigned mode = q_policy_mode(), nid = next_nid(mode, nids_of(mode));

    if (mode >= Q_MPOL_INTERLEAVE)
        count_turn(mode, nid);
    return nid;
}

uint64_t q_policy_allowed(void)
{
    return q_mempolicy.mode == Q_MPOL_BIND ? q_mempolicy.nids : ~0ull;
}

bool q_policy_wants(unsigned nid)
{
    if (q_likely(q_topology.cpu_nid == NULL))
        return true;
    unsigned mode = q_policy_mode();

    if (mode == Q_MPOL_LOCAL)
        return nid == q_this_nid();
    return (nids_of(mode) >> nid & 1) != 0;
}

void q_policy_bind(void *addr, size_t len, unsigned nid)
{
    /* What the kernel calls them. BIND would have it kill the process when the nodes are full. */
    static const uint8_t kernel_mode[Q_NR_MPOL_MODES] = {
        [Q_MPOL_BIND] = 5, /* PREFERRED_MANY, from 5.15 on */
        [Q_MPOL_INTERLEAVE] = 3,
        [Q_MPOL_WEIGHTED] = 6,
    };
    unsigned mode;

    if (q_likely(!q_topology.bind) || (mode = q_policy_mode()) == Q_MPOL_LOCAL)
        return;
    uint64_t nids = nids_of(mode);
    if (mode == Q_MPOL_PREFERRED ||
        q_nodes_bind(addr, len, kernel_mode[mode], nids) != 0) /* a kernel that lacks it */
        q_node_bind(addr, len, nid);
}

bool q_policy_bound(const void *addr)
{
    int mode = 0;

    return q_topology.bind &&
           q_arch_syscall6(SYS_get_mempolicy, (long)&mode, 0, 0, (long)addr, 2 /* MPOL_F_ADDR */,
                           0) == 0 &&
           mode != 0;
}

bool q_policy_read_weights(void)
{
    char path[96], text[32];

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        struct q_buf b = {.at = path, .size = sizeof(path)};
        unsigned weight = 0;

        q_buf_printf(&b, "/sys/kernel/mm/mempolicy/weighted_interleave/node%u",
                     q_topology.bind ? q_topology.kernel_id[nid] : 0);
        if (q_read_file(path, text, sizeof(text)) <= 0)
            return false;
        for (const char *s = text; *s >= '0' && *s <= '9'; s++)
            weight = weight * 10 + (unsigned)(*s - '0');
        __atomic_store_n(&weights[nid], (uint8_t)q_min(weight, 255), __ATOMIC_RELAXED);
    }
    return true;
}
