/* arena_move.c - see arena.h: all memory of a heap to another node. */
#include "numa/topology.h"
#include "slab/arena.h"
#include "zone/vmalloc.h"

/* Move what stands behind page, or a mapping; *there: how many pages lie on the node now. */
static long move(struct q_page *page, char *at, size_t bytes, unsigned nid, long *there)
{
    /* Pages of the zones go home when they are freed. */
    if (page != NULL)
        page->flags |= Q_PAGE_MOVED;
    long ret = q_node_move(at, bytes, nid);

    *there += ret > 0 ? ret : 0;
    return ret < 0 ? ret : 0;
}

long q_arena_move(struct q_arena *a, unsigned nid)
{
    long there = 0, error = 0;

    for (struct q_list *l = a->chunks.next;
         q_topology.bind && error == 0 && l != NULL && l != &a->chunks; l = l->next) {
        struct q_chunk *c = q_container_of(l, struct q_chunk, list);
        error = move(c->page, c->start, Q_SLAB_SIZE, nid, &there);
    }
    for (struct q_list *l = a->large.next;
         q_topology.bind && error == 0 && l != NULL && l != &a->large; l = l->next) {
        struct q_arena_block *b = q_container_of(l, struct q_arena_block, list);
        error = move(b->page, q_arena_address_of(b->page), b->bytes, nid, &there);
    }
    for (struct q_list *l = a->huge.next;
         q_topology.bind && error == 0 && l != NULL && l != &a->huge; l = l->next) {
        struct q_arena_block *b = q_container_of(l, struct q_arena_block, list);
        error = move(NULL, b->base, q_vsize(b->base), nid, &there);
    }
    if (error != 0)
        return error;
    bool bound = a->policy.mode == Q_MPOL_BIND;
    a->policy = q_mempolicy_of_nid(nid);
    a->policy.mode = bound ? Q_MPOL_BIND : Q_MPOL_PREFERRED;
    return there;
}
