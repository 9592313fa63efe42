/*
 * holes.h - free pages of slabs in part use go back to the kernel.
 *
 * Objects that live long keep a slab in being, and all its pages with it,
 * even if they lie in two of sixteen. So pages of partial slabs that hold
 * nothing but free objects are given back after a while. They are holes:
 *
 *   page      0       1       2       3       4       5
 *          |l f   f|f   f  |f   f  |f   f  |f   l  |f   f ...
 *                 ^^^       hole    hole    ^^^
 *            f across a border: free, but it keeps no page from going
 *
 * An object that reaches into a hole is absent: it is free, but on no list. The
 * current slab, when it needs more than its freelist has, fills its holes
 * again, page by page, before it carves more or another slab is made.
 *
 * When: a hand goes round a heap's partial slabs, as that of a clock, at most
 * once in decay_ms, driven by the heap's refills. A slab much of which is free
 * is marked, and looked through if the mark is still there a lap later: it is
 * gone once half of what was live is freed, others' frees are collected, or
 * the slab is used again. To do it as soon as the heap has to grow was tried
 * and costs more than it gives (doc/decisions.md). While a snapshot lives, or
 * children share the heap, and in such children, nothing is given back.
 *
 * Invariants: a page that is a hole was carved to its end, and no object that
 * reaches into it is live, on a list or a chain. Absent objects count as
 * used: `used + debt == carved - length(freelist)` holds as ever, and what may
 * be live is q_slab_live(). (A current slab may be handed out with a countdown
 * in which they are, and so stay current with nothing live, as one does that
 * is busy.) A full slab that nobody owns has no holes.
 *
 * Absent objects would pass the test of slab.h, and in zeroes no key shows
 * that they are free. So a slab with holes has no span: free() takes the way
 * of q_slub_free_quickly(), which looks at the holes, 11 ns instead of 6.
 *
 * Who writes: the owner. Others read when they free an object of the slab,
 * none of whose pages becomes a hole meanwhile; of a slab that nobody owns,
 * whose holes stay as they are; and as a hint. Locks: the zone's is taken to
 * give pages back, since cuts of snapshots are made with it held.
 */
#ifndef Q_SLAB_HOLES_H
#define Q_SLAB_HOLES_H

#include "slab/heap.h"

/* Objects that reach into holes. */
uint32_t q_holes_absent(uint32_t holes, const struct q_class *k);

Q_INLINE uint32_t q_slab_absent(const struct q_slab *s)
{
    uint32_t holes = __atomic_load_n(&s->holes, __ATOMIC_RELAXED);

    return q_likely(holes == 0) ? 0 : q_holes_absent(holes, q_slab_class(s));
}

/* Owner, or the shared list's lock: objects live, on the chain, or freed by others and not collected. */
Q_INLINE uint32_t q_slab_live(const struct q_slab *s)
{
    return q_slab_used(s) - q_slab_absent(s);
}

/* A bit for each page that [off, off + size) of a slab lies in. */
Q_INLINE uint32_t q_slab_pages(size_t off, size_t size)
{
    return (2u << ((off + size - 1) >> q_page_shift)) - (1u << (off >> q_page_shift));
}

/* Whether the object at this offset is absent. */
Q_INLINE bool q_slab_in_hole(const struct q_slab *s, size_t off)
{
    /* Relaxed: of a live object no page becomes a hole, and if one was, its bit was cleared before. */
    uint32_t holes = __atomic_load_n(&s->holes, __ATOMIC_RELAXED);

    return q_unlikely(holes != 0) && (holes & q_slab_pages(off, q_slab_class(s)->size)) != 0;
}

/*
 * Owner: make free objects of one hole or a part of it, at least one: a list,
 * *nr of them, which still count as used. NULL: the slab has none.
 */
struct q_object *q_holes_fill(struct q_slab *s, uint32_t *nr);

/*
 * Owner, heap->busy set, the slab not current: give back the pages that hold
 * only free objects. Returns how many.
 */
unsigned q_holes_punch(struct q_heap *heap, struct q_slab *s);

/* Owner, heap->busy set: now and then; now: q_now_ms(); the last call was since_ms ago. */
void q_holes_tick(struct q_heap *heap, uint32_t now, uint32_t since_ms);

/* Owner, heap->busy set: all there is, at once. Returns pages. */
size_t q_holes_trim(struct q_heap *heap);

#endif
