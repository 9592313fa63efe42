/*
 * refill.h - the common refill, short enough to be part of malloc.
 *
 * The chain of a class is empty, but its current slab has been freed into:
 * the whole freelist becomes the chain, with the slab's count charged in
 * advance, so that malloc itself counts nothing. Everything else (no current
 * slab, nothing free in it, rare work due, a signal handler inside the
 * allocator) is for slub.c.
 */
#ifndef Q_SLAB_REFILL_H
#define Q_SLAB_REFILL_H

#include "base/msg.h"
#include "slab/heap.h"

#define Q_PATIENCE_KEEP 256u /* from here on an empty current slab is kept */

/*
 * Hand nr objects to the chain. They count as used from now on. The next
 * look at the slab comes when all that was live before is freed, or later
 * when such looks have been in vain; never, once the slab is known to empty
 * again and again because it is in use.
 */
Q_INLINE void q_hand_out(struct q_heap *heap, size_t cls, struct q_slab *s, struct q_object *list,
                         uint32_t nr, uint32_t live)
{
    struct q_bin *bin = &heap->bin[cls];
    uint32_t used = live + nr, countdown = used + 1;
    int16_t debt = -1;

    bin->handed += nr;
    if (q_unlikely(bin->patience < Q_PATIENCE_KEEP)) {
        countdown = (uint32_t)q_min(q_max(q_max(live, bin->patience), 1), used);
        debt = (int16_t)(used - countdown);
    }
    s->used = countdown;
    s->debt = debt;
    heap->chain[cls] = list;
}

/*
 * Hand out the whole freelist of an owned slab of class cls, nr objects; `chain` is
 * what of it goes there: all, or all but the first, which the caller keeps.
 */
Q_INLINE void q_hand_out_freelist(struct q_heap *heap, size_t cls, struct q_slab *s,
                                  struct q_object *chain, uint32_t nr)
{
    uint32_t used = q_slab_used(s);

    q_assert(q_chain_length(s->freelist) == nr && s->carved - used == nr);
    s->freelist = NULL;
    /* In this order: a fork in between finds the objects lost, never on two lists. */
    atomic_signal_fence(memory_order_seq_cst);
    q_slab_next_epoch(s, &q_classes[cls], heap->tp);
    q_hand_out(heap, cls, s, chain, nr, used);
}

/*
 * The common refill: the current slab has been freed into, and there is no
 * point in carving more of it: it is carved whole, or what is free makes a
 * chain that is long enough for a class this busy. What others freed into it
 * can wait. Returns an object, or NULL where this is not such a case.
 */
Q_INLINE void *q_refill_quickly(struct q_heap *heap, size_t cls)
{
    struct q_object *o = NULL;

    /* A heap that is none has no ticks. */
    if (q_unlikely(heap->busy || heap->ticks <= 1))
        return NULL;
    heap->busy = true;
    /* Compiler only: what a signal handler in this thread may see. */
    atomic_signal_fence(memory_order_seq_cst);
    struct q_slab *s = heap->bin[cls].current;
    if (q_likely(s != NULL && s->freelist != NULL && heap->chain[cls] == NULL)) {
        uint32_t nr = s->carved - q_slab_used(s);

        if (q_likely(s->carved == q_classes[cls].objs || nr >= q_classes[cls].hot ||
                     heap->bin[cls].patience < Q_PATIENCE_KEEP)) {
            /* Never on the chain: a signal handler would be given it, too. */
            o = s->freelist;
            q_hand_out_freelist(heap, cls, s, o->next, nr);
            heap->ticks--;
        }
    }
    atomic_signal_fence(memory_order_seq_cst);
    heap->busy = false;
    return o;
}

#endif
