/*
 * arena_undo.h - going back to what a heap was (src/cow/undo_heap.c).
 *
 * A cut stands for one moment of a heap. Its memory is put back by src/cow,
 * page by page. What is said of that memory lies among other objects of
 * malloc's, so it is put back here, piece by piece:
 *
 *   arena->cut --> newest cut --> older cut
 *                   number 7       number 4
 *                   state          state         all that struct q_arena says
 *                   saved          saved         chunks and blocks as they were
 *                     |              |           before their first change since
 *                     v              v
 *                   record         record
 *
 *   born < number   it was there at the cut. Freed, it is kept: emptied, on a list of
 *                   its own, and the heap's until no cut needs it
 *   born >= number  it came since, and goes when one goes back. Freed, it goes at once
 *
 * Invariants: a chunk or run with saved < number has not changed since the
 * cut, its links included. With saved >= number > born, this cut has a record,
 * or a newer one has that passes its records on when it goes.
 * What came since a cut stands on chunks, large and huge before all that was
 * there. What is kept was there at the newest cut. Nothing that has a record
 * is ever given back.
 *
 * What stands before a mapping, a kept one, too, is in guarded pages itself
 * and needs none.
 *
 * Locks: all of this between q_arena_enter() and q_arena_leave().
 */
#ifndef Q_SLAB_ARENA_UNDO_H
#define Q_SLAB_ARENA_UNDO_H

#include "slab/arena.h"

/* What a chunk or a run was, before it changed. */
struct q_arena_record {
    struct q_arena_record *next;
    void *at;
    uint32_t bytes;
    struct q_arena_mark mark;
    uint64_t was[];
};

struct q_arena_cut {
    struct q_arena_cut *older;
    uint32_t number;
    bool lost; /* there was no memory for a record */
    struct q_arena_record *saved;
    uint64_t state[]; /* of struct q_arena, from `live` on */
};

/* What of a list came since a cut: the first nodes. */
struct q_arena_head {
    struct q_list *first;
    size_t nr;
};

struct q_arena_newer {
    struct q_arena_head chunks, large, huge;
};

/* Room for a cut. No lock is held. NULL: no memory. */
struct q_arena_cut *q_arena_new_cut(void);

/* The newest cut from now on. False: nothing is done with the heap any more. */
bool q_arena_make_cut(struct q_arena *a, struct q_arena_cut *cut);

/* Nobody goes back to it any more; it is freed. */
void q_arena_end_cut(struct q_arena *a, struct q_arena_cut *cut);

/*
 * Go back to the newest cut, which is not lost: look what came since, have
 * memory put back, then this. Looking changes nothing.
 */
struct q_arena_newer q_arena_find_newer(const struct q_arena *a);
void q_arena_go_back(struct q_arena *a, const struct q_arena_newer *newer);

/* Where something freed has to stay. */
Q_INLINE bool q_arena_keeps(const struct q_arena *a, const struct q_arena_mark *mark)
{
    return q_unlikely(a->cut != NULL) && mark->born < a->cut->number;
}

/* Whether a chunk must be saved before it changes: never twice in a row. */
Q_INLINE bool q_arena_wants(const struct q_arena *a, const struct q_chunk *c)
{
    return q_unlikely(c->mark.saved < a->saving);
}

Q_COLD void q_arena_save_chunk(struct q_arena *a, struct q_chunk *c);

/* What the nodes of a heap's list are part of. */
enum q_arena_list { Q_SPANS, Q_CHUNKS, Q_ROOMY, Q_RUNS, Q_MAPPINGS };

Q_COLD void q_arena_save_links(struct q_arena *a, enum q_arena_list kind, struct q_list *prev,
                               struct q_list *node, struct q_list *next);

/* q_list_add() and q_list_del() for these, so that neighbours are saved as well. */
Q_INLINE void q_arena_link(struct q_arena *a, enum q_arena_list kind, struct q_list *head,
                           struct q_list *node)
{
    if (q_unlikely(a->saving != 0))
        q_arena_save_links(a, kind, head, node, head->next);
    q_list_add(head, node);
}

Q_INLINE void q_arena_unlink(struct q_arena *a, enum q_arena_list kind, struct q_list *node)
{
    if (q_unlikely(a->saving != 0))
        q_arena_save_links(a, kind, node->prev, node, node->next);
    q_list_del(node);
}

#endif
