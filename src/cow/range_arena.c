/* range_arena.c - see range.h: the memory of one heap of the program's. */
#include "cow/range.h"
#include "slab/arena.h"

static void add_chunks(struct q_ranges *r, const struct q_arena *a)
{
    for (struct q_list *l = a->chunks.next; l != NULL && l != &a->chunks; l = l->next) {
        const struct q_chunk *c = q_container_of(l, struct q_chunk, list);

        q_ranges_add(r, (uintptr_t)c->start, (uintptr_t)c->start + Q_SLAB_SIZE);
    }
}

static void add_blocks(struct q_ranges *r, const struct q_list *list)
{
    for (struct q_list *l = list->next; l != NULL && l != list; l = l->next) {
        const struct q_arena_block *b = q_container_of(l, struct q_arena_block, list);
        if (b->arena->sigbus && b->page != NULL && b->page->nr << q_page_shift < Q_PAGEBLOCK_SIZE)
            continue; /* in an estate */
        uintptr_t from = b->page != NULL ? (uintptr_t)q_arena_address_of(b->page) : (uintptr_t)b;

        q_ranges_add(r, from, from + b->bytes + (b->page != NULL ? 0 : q_page_size()));
    }
}

/* Whole, as they are mapped by huge pages. */
static void add_estates(struct q_ranges *r, const struct q_list *list)
{
    for (struct q_list *l = list->next; l != NULL && l != list; l = l->next) {
        const struct q_arena_estate *e = q_container_of(l, struct q_arena_estate, list);
        uintptr_t at = (uintptr_t)q_arena_address_of(e->page);

        q_ranges_add(r, at, at + Q_PAGEBLOCK_SIZE);
    }
}

bool q_ranges_collect_arena(struct q_ranges *r, const struct q_arena *a)
{
    r->nr = r->bytes = 0;
    r->failed = false;
    if (a->sigbus) {
        add_estates(r, &a->estates);
        add_estates(r, &a->full);
    } else {
        add_chunks(r, a);
    }
    add_blocks(r, &a->large);
    add_blocks(r, &a->huge);
    q_ranges_sort(r);
    return !r->failed;
}
