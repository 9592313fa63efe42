/* place.c - see place.h: mappings of their own. */
#include "zone/place.h"

#include "base/opt.h"
#include "zone/linear.h"

/* A mapping of exactly bytes at a multiple of align. */
static void *map_aligned(size_t bytes, size_t align)
{
    size_t extra = align > q_page_size() ? align - q_page_size() : 0;
    char *p;

    if (bytes + extra < bytes)
        return NULL;
    p = q_mmap(NULL, bytes + extra, PROT_READ | PROT_WRITE, 0);
    if (p == NULL || extra == 0)
        return p;
    char *start = (char *)q_align_up((uintptr_t)p, align);
    if (start > p)
        q_munmap(p, (size_t)(start - p));
    if (start + bytes < p + bytes + extra)
        q_munmap(start + bytes, (size_t)(p + extra - start));
    return start;
}

void *q_place_map(const struct q_place *place, size_t bytes, size_t align)
{
    void *p = map_aligned(bytes, align);

    if (p == NULL)
        return NULL;
    /* Where forks are to be cheap: a page table of huge pages is copied 500 times as fast. */
    if (q_linear != NULL && q_opt.huge != Q_HUGE_OFF && !q_mem.thp_never &&
        bytes >= q_max_block_size())
        q_madvise(p, bytes, MADV_HUGEPAGE);
    q_policy_bind(p, bytes, place->nid);
    return p;
}

int q_place_home(const void *p)
{
    if (q_policy_bound(p))
        return -1;
    int nid = q_topology.bind ? q_node_at(p) : -1;
    /* Untouched, or the kernel does not say. */
    return nid >= 0 ? nid : (int)q_this_nid();
}
