/*
 * reserve.h - objects for signal handlers that interrupted the allocator.
 *
 * A handler that calls malloc or free while its own thread is inside the
 * allocator's slow paths must not wait for a lock, since the thread it
 * interrupted may hold it. q_interrupted() tells, and such a handler is
 * served from here, without any lock:
 *
 *   malloc  an object from a small region of its own, with a header that
 *           holds its size; large ones, and where that is full, from mappings
 *           that a small table remembers
 *   free    of such an object: counted; the region starts anew when all are
 *           free. Of any other object: onto a list that the next slow path of
 *           any thread frees properly
 *
 * Rare by nature, so simple beats fast here.
 */
#ifndef Q_MALLOC_RESERVE_H
#define Q_MALLOC_RESERVE_H

#include "malloc/malloc.h"

/* An object of n bytes at a multiple of align; NULL: no memory. */
void *q_reserve_alloc(size_t n, size_t align);

/* Bytes of a reserve object; 0 where p is none. */
size_t q_reserve_size(const void *p);

/* Free a reserve object. */
void q_reserve_free(void *p);

/* Put an object that is not ours to free now onto the list; free what is on the list. */
extern struct q_object *_Atomic q_postponed __attribute__((visibility("hidden")));
void q_free_later(void *p);
void q_free_postponed(void);

Q_INLINE bool q_any_postponed(void)
{
    /* Relaxed: q_free_postponed() acquires what it takes. */
    return atomic_load_explicit(&q_postponed, memory_order_relaxed) != NULL;
}

#endif
