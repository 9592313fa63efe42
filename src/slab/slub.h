/*
 * slub.h - allocating and freeing objects, off the fast path.
 *
 * The fast paths themselves are in malloc/malloc.c, inlined there; they end
 * here when a chain is empty or a pointer is anything but an object of a
 * slab that the thread owns.
 */
#ifndef Q_SLAB_SLUB_H
#define Q_SLAB_SLUB_H

#include "slab/heap.h"

/* Set up everything below malloc, once. False: there is no memory at all. */
bool q_slub_init(void);

/*
 * An object of class cls, when the chain was empty (or the thread has no
 * heap yet). NULL: out of memory.
 */
void *q_slub_alloc(unsigned cls);

/* The same when it is known that the common refill (refill.h) does not apply. */
void *q_slub_alloc_slowly(unsigned cls);

/* The same with the chain tried first. */
Q_INLINE void *q_slub_pop(unsigned cls)
{
    struct q_heap *heap = q_heap;
    struct q_object *o = heap->chain[cls];

    if (q_unlikely(o == NULL))
        return q_slub_alloc(cls);
    heap->chain[cls] = o->next;
    return o;
}

enum q_free_result {
    Q_FREED,
    Q_FREE_INTERIOR, /* inside an object, or where none was carved yet */
    Q_FREE_TWICE,    /* already free */
    Q_FREE_NOT_OURS, /* no such slab */
};

/* Free an object of a slab, whoever owns it. Anything but Q_FREED means that nothing was changed. */
enum q_free_result q_slub_free(struct q_slab *s, void *p);

/* The owner's countdown of slab s has come to 0. */
void q_slub_countdown(struct q_slab *s);

/* Inside the layer: an object for a thread without a heap, under the spare heap's lock. */
void *q_spare_alloc(unsigned cls);

/* An object of class cls on node nid, by way of a lock. Not inside the layer. */
void *q_node_alloc(unsigned nid, unsigned cls);

/* Inside the layer, heap->busy set: pop an object, refilling the chain if need be; NULL: no memory. */
void *q_heap_take(struct q_heap *heap, unsigned cls);

/* Inside the layer, heap->busy set: take what others freed; the countdown of an owned slab is over. */
uint32_t q_slub_collect(struct q_slab *s);
void q_slub_count_down(struct q_heap *heap, struct q_slab *s);

/*
 * Set the countdown of a partial slab to half of what is in use: then either
 * the owner's frees reach it, or those of others amount to as much and the
 * owner is told; so the last free is noticed whoever makes it.
 */
void q_slub_rearm(struct q_slab *s);

/* The same for an address o whose descriptor s says that heap number `owner` owns a slab there. */
bool q_slub_free_owned(struct q_heap *heap, struct q_slab *s, struct q_object *o, unsigned owner);

/*
 * Free p, any address at all, if it is an object of a slab that some heap
 * owns: what the test of slab.h does not serve, but most of all the objects of
 * other threads. heap is the caller's own. False, and nothing done, where it
 * is not, or the object may be free already.
 */
Q_INLINE bool q_slub_free_quickly(struct q_heap *heap, void *p)
{
    struct q_slab *s = q_slab_guess(p);
    /* Acquire: the slab's fields as its owner left them; if that is the caller he stored them himself. */
    unsigned owner = q_remote_owner(atomic_load_explicit(&s->remote, memory_order_acquire));

    return owner != 0 && q_slub_free_owned(heap, s, p, owner);
}

/*
 * Free a list of nr objects of one slab, from head to tail, on behalf of a
 * thread that does not own it, or does not want to.
 */
void q_slub_push(struct q_slab *s, struct q_object *head, struct q_object *tail, uint32_t nr);

/* Send a batch to its slab. */
void q_batch_flush(struct q_heap *heap, struct q_batch *b);

/* Send all batches, give back empty slabs and free pages of others: for trim. Returns pages of the latter. */
size_t q_slub_trim(void);

/* True where p is an object of s that is free: exact for the owner, and for others as a rule. */
bool q_slub_is_free(struct q_slab *s, const void *p);

/* fork: before (patient: see q_lock_for_fork()), in the parent after, in the child after. */
void q_slub_fork_prepare(bool patient);
void q_slub_fork_parent(void);
void q_slub_fork_child(void);

#endif
