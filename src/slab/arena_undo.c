/* arena_undo.c - see arena_undo.h. */
#include "slab/arena_undo.h"

#include <string.h>

#define STATE offsetof(struct q_arena, live)
#define STATE_BYTES (sizeof(struct q_arena) - STATE)

/* --- saving, before a change ----------------------------------------------------------------- */

/* No cut of the heap can be gone back to, since a record is missing. */
static void lose_all(struct q_arena *a)
{
    for (struct q_arena_cut *cut = a->cut; cut != NULL; cut = cut->older)
        cut->lost = true;
    a->saving = 0;
}

static void save(struct q_arena *a, void *at, uint32_t bytes, struct q_arena_mark *mark)
{
    struct q_arena_cut *cut = a->cut;

    if (mark->saved >= a->saving)
        return;
    struct q_arena_record *r = q_inner_alloc(sizeof(*r) + bytes);
    if (r == NULL) {
        lose_all(a);
        return;
    }
    r->at = at;
    r->bytes = bytes;
    r->mark = *mark;
    memcpy(r->was, at, bytes);
    mark->saved = cut->number;
    r->next = cut->saved;
    cut->saved = r;
}

void q_arena_save_chunk(struct q_arena *a, struct q_chunk *c)
{
    save(a, c, sizeof(*c), &c->mark);
}

static struct q_chunk *chunk_of_span(struct q_list *node)
{
    struct q_arena_span *s = q_container_of(node, struct q_arena_span, list);

    return q_container_of(s - s->first, struct q_chunk, span[0]);
}

static void save_node(struct q_arena *a, enum q_arena_list kind, struct q_list *node)
{
    if (node == NULL || (uintptr_t)node - (uintptr_t)a < sizeof(*a))
        return; /* the list's head */
    if (kind == Q_SPANS) {
        q_arena_save_chunk(a, chunk_of_span(node));
    } else if (kind == Q_CHUNKS) {
        q_arena_save_chunk(a, q_container_of(node, struct q_chunk, list));
    } else if (kind == Q_ROOMY) {
        q_arena_save_chunk(a, q_container_of(node, struct q_chunk, roomy));
    } else if (kind == Q_RUNS) {
        struct q_arena_block *b = q_container_of(node, struct q_arena_block, list);
        save(a, b, sizeof(*b), &b->mark);
    }
}

void q_arena_save_links(struct q_arena *a, enum q_arena_list kind, struct q_list *prev,
                        struct q_list *node, struct q_list *next)
{
    save_node(a, kind, prev);
    save_node(a, kind, node);
    save_node(a, kind, next);
}

static const struct q_arena_mark *mark_of(const struct q_list *node, bool chunk)
{
    return chunk ? &q_container_of(node, struct q_chunk, list)->mark
                 : &q_container_of(node, struct q_arena_block, list)->mark;
}

/* --- cuts ------------------------------------------------------------------------------------ */

struct q_arena_cut *q_arena_new_cut(void)
{
    return q_inner_alloc(sizeof(struct q_arena_cut) + STATE_BYTES);
}

bool q_arena_make_cut(struct q_arena *a, struct q_arena_cut *cut)
{
    if (a->lost)
        return false;
    cut->number = ++a->cuts;
    cut->older = a->cut;
    a->saving = cut->number;
    memcpy(cut->state, (char *)a + STATE, STATE_BYTES);
    a->cut = cut;
    return true;
}

/* The first node of a kept list, from `l` on, that came since the newest cut there is now. */
static struct q_list *unwanted(const struct q_arena *a, const struct q_list *head, struct q_list *l,
                               bool chunk)
{
    while (l != NULL && l != head && q_arena_keeps(a, mark_of(l, chunk)))
        l = l->next;
    return l != head ? l : NULL;
}

static void end_kept_chunks(struct q_arena *a)
{
    struct q_list *head = &a->kept_chunks, *next;

    for (struct q_list *l = unwanted(a, head, head->next, true); l != NULL; l = next) {
        next = unwanted(a, head, l->next, true);
        q_arena_unlink(a, Q_CHUNKS, l);
        q_arena_end_chunk(a, q_container_of(l, struct q_chunk, list));
    }
}

static void end_kept_blocks(struct q_arena *a, enum q_arena_list kind, struct q_list *head)
{
    struct q_list *next;

    for (struct q_list *l = unwanted(a, head, head->next, false); l != NULL; l = next) {
        next = unwanted(a, head, l->next, false);
        q_arena_unlink(a, kind, l);
        q_arena_end_block(a, q_container_of(l, struct q_arena_block, list));
    }
}

/* What the next older cut has no record of, though it was there then, is one of its now. */
static void pass_on(struct q_arena_cut *cut)
{
    struct q_arena_cut *older = cut->older;

    for (struct q_arena_record *r = cut->saved, *next; r != NULL; r = next) {
        next = r->next;
        if (older != NULL && r->mark.saved < older->number) {
            r->next = older->saved;
            older->saved = r;
        } else {
            q_inner_free(r);
        }
    }
}

void q_arena_end_cut(struct q_arena *a, struct q_arena_cut *cut)
{
    struct q_arena_cut **link = &a->cut;

    while (*link != cut)
        link = &(*link)->older;
    *link = cut->older;
    a->saving = a->cut != NULL && !a->cut->lost ? a->cut->number : 0;
    pass_on(cut);
    q_inner_free(cut);
    end_kept_chunks(a);
    end_kept_blocks(a, Q_RUNS, &a->kept_large);
    end_kept_blocks(a, Q_MAPPINGS, &a->kept_huge);
}

/* --- going back ------------------------------------------------------------------------------ */

static struct q_arena_head newer_of(const struct q_arena *a, const struct q_list *head, bool chunk)
{
    struct q_arena_head n = {head->next, 0};

    for (const struct q_list *l = head->next;
         l != NULL && l != head && !q_arena_keeps(a, mark_of(l, chunk)); l = l->next)
        n.nr++;
    return n;
}

struct q_arena_newer q_arena_find_newer(const struct q_arena *a)
{
    return (struct q_arena_newer){.chunks = newer_of(a, &a->chunks, true),
                                  .large = newer_of(a, &a->large, false),
                                  .huge = newer_of(a, &a->huge, false)};
}

static void put_records_back(struct q_arena_cut *cut)
{
    for (struct q_arena_record *r = cut->saved, *next; r != NULL; r = next) {
        next = r->next;
        memcpy(r->at, r->was, r->bytes);
        q_inner_free(r);
    }
    cut->saved = NULL;
}

/* Their links are as they were, although nobody leads to them any more. */
static void end_blocks(struct q_arena *a, struct q_arena_head newer)
{
    for (struct q_list *l = newer.first, *next; newer.nr-- > 0; l = next) {
        next = l->next;
        q_arena_end_block(a, q_container_of(l, struct q_arena_block, list));
    }
}

void q_arena_go_back(struct q_arena *a, const struct q_arena_newer *newer)
{
    struct q_list *l = newer->chunks.first, *next;

    put_records_back(a->cut);
    memcpy((char *)a + STATE, a->cut->state, STATE_BYTES);
    for (size_t i = 0; i < newer->chunks.nr; i++, l = next) {
        next = l->next;
        q_arena_end_chunk(a, q_container_of(l, struct q_chunk, list));
    }
    end_blocks(a, newer->large);
    end_blocks(a, newer->huge);
}
