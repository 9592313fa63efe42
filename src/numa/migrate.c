/* migrate.c - where pages are, and moving them: see topology.h. */
#include "base/sys.h"
#include "numa/topology.h"

#define MPOL_MF_MOVE 2
#define BATCH 256u

int q_kernel_node_at(const void *addr)
{
    const void *page = (const void *)q_align_down((uintptr_t)addr, q_page_size());
    int status = -1;
    long ret = q_arch_syscall6(SYS_move_pages, 0, 1, (long)&page, 0, (long)&status, 0);

    return ret < 0 ? (int)ret : status;
}

int q_node_at(const void *addr)
{
    int id = q_kernel_node_at(addr);
    unsigned nid = id >= 0 ? q_find_node(id) : q_topology.nr_nodes;

    return nid < q_topology.nr_nodes ? (int)nid : -1;
}

/* How many of the pages are said to be on node nid. */
static long count(const int *status, unsigned nr, unsigned nid)
{
    long there = 0;

    for (unsigned i = 0; i < nr; i++)
        there += status[i] == q_topology.kernel_id[nid];
    return there;
}

/* One call's worth of pages. */
static long move_batch(void **page, unsigned nr, unsigned nid)
{
    int node[BATCH], status[BATCH];

    for (unsigned i = 0; i < nr; i++)
        node[i] = q_topology.kernel_id[nid];
    long ret =
        q_arch_syscall6(SYS_move_pages, 0, nr, (long)page, (long)node, (long)status, MPOL_MF_MOVE);
    if (ret < 0)
        return ret;
    /* Of a call that gave up half-way, and of parts of huge pages, only asking says the truth. */
    if (ret > 0 || count(status, nr, nid) < (long)nr)
        ret = q_arch_syscall6(SYS_move_pages, 0, nr, (long)page, 0, (long)status, 0);
    return ret < 0 ? ret : count(status, nr, nid);
}

long q_node_move(void *addr, size_t len, unsigned nid)
{
    void *page[BATCH];
    long there = 0;

    for (size_t at = 0; at < len;) {
        unsigned nr = 0;

        for (; nr < BATCH && at < len; at += q_page_size())
            page[nr++] = (char *)addr + at;
        long ret = move_batch(page, nr, nid);
        if (ret < 0)
            return ret;
        there += ret;
    }
    return there;
}
