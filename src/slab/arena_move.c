/* arena_move.c - see arena.h: all memory of a heap to another node. */
#include "numa/topology.h"
#include "slab/arena.h"
#include "zone/vmalloc.h"

struct move {
    unsigned nid;
    long there; /* pages that lie on the node now */
    long error; /* 0, or negative: nothing more is done */
};

/* Move what stands behind page, or a mapping. */
static void move(struct move *m, struct q_page *page, char *at, size_t bytes)
{
    /* Pages of the zones go home when they are freed. */
    if (page != NULL)
        page->flags |= Q_PAGE_MOVED;
    long ret = q_node_move(at, bytes, m->nid);

    m->there += ret > 0 ? ret : 0;
    m->error = ret < 0 ? ret : 0;
}

static void move_chunks(struct move *m, struct q_list *list)
{
    for (struct q_list *l = list->next; m->error == 0 && l != NULL && l != list; l = l->next) {
        struct q_chunk *c = q_container_of(l, struct q_chunk, list);
        move(m, c->page, c->start, Q_SLAB_SIZE);
    }
}

static void move_blocks(struct move *m, struct q_list *list)
{
    for (struct q_list *l = list->next; m->error == 0 && l != NULL && l != list; l = l->next) {
        struct q_arena_block *b = q_container_of(l, struct q_arena_block, list);
        if (b->page != NULL)
            move(m, b->page, q_arena_address_of(b->page), b->bytes);
        else
            move(m, NULL, b->base, q_vsize(b->base));
    }
}

long q_arena_move(struct q_arena *a, unsigned nid)
{
    struct move m = {.nid = nid};

    if (q_topology.bind) {
        move_chunks(&m, &a->chunks);
        move_chunks(&m, &a->kept_chunks);
        move_blocks(&m, &a->large);
        move_blocks(&m, &a->kept_large);
        move_blocks(&m, &a->huge);
        move_blocks(&m, &a->kept_huge);
    }
    if (m.error != 0)
        return m.error;
    bool bound = a->policy.mode == Q_MPOL_BIND;
    a->policy = q_mempolicy_of_nid(nid);
    a->policy.mode = bound ? Q_MPOL_BIND : Q_MPOL_PREFERRED;
    return m.there;
}
