/*
 * young.h - a thread's first objects of a class come from slabs that all share.
 *
 * A class in use costs a thread a page at least, of which half, as a rule, is
 * not used yet; with 30 classes that is 60 KB for a thread that needs 100. So
 * while a heap is young in a class it takes some 256 bytes of objects at a time
 * from a common slab of the node (remote.h):
 *
 *   page   |a a a a a a a a|b b b b b b b b|a a a a a a a a|c c c c c c c c|
 *
 * and puts them on the class's chain. Once it has drawn Q_YOUNG_DRAWN of the
 * class, ever, it is young no more: a thread that allocates and frees all the
 * time soon has a slab of its own, with the fast paths that go with it. Frees
 * of common objects go to the slab's remote word, whoever makes them. With few
 * threads there is little to gain: the first heaps of a process are never young.
 *
 * Invariants: a chain that is not empty belongs to the class's current slab,
 * or, where there is none, to one common slab: a heap draws only when the
 * chain is empty.
 *
 * `out` is what the heap has drawn and not freed, a guess where threads free
 * each other's objects. Once it is no more than the chain has, nothing seems to
 * be in use, and the chain goes back: an idle thread that has freed everything
 * holds nothing. Wrong, it costs a draw more, or leaves a chain that keeps its
 * slab in being.
 *
 * Who: the owner, heap->busy set.
 */
#ifndef Q_SLAB_YOUNG_H
#define Q_SLAB_YOUNG_H

#include "slab/heap.h"

#define Q_YOUNG_FROM 8         /* heaps up to this number are never young */
#define Q_YOUNG_SIZE_MAX 2048u /* larger objects leave little of a page unused */

/* A heap is young in a class until it has drawn so much of it: 16 KiB, in units of 16 bytes. */
#define Q_YOUNG_DRAWN 1024u

/* A heap begins: young in all classes, or in none. */
void q_young_init(struct q_heap *heap, bool young);

Q_INLINE bool q_is_young(const struct q_heap *heap, unsigned cls)
{
    return heap->young[cls].drawn < Q_YOUNG_DRAWN;
}

/* A heap that is young in the class: fill the chain. False: it is to have a slab of its own. */
bool q_young_draw(struct q_heap *heap, unsigned cls);

/* The heap has freed an object of a slab that nobody owns. */
void q_young_freed(struct q_heap *heap, unsigned cls);

/* Give back the chain, if it is of a common slab. */
void q_young_drop(struct q_heap *heap, unsigned cls);

#endif
