/*
 * enter.h - into the allocator and out of it, for functions that take memory
 * by other ways than malloc's.
 */
#ifndef Q_MALLOC_ENTER_H
#define Q_MALLOC_ENTER_H

#include <errno.h>

#include "malloc/malloc.h"
#include "malloc/reserve.h"
#include "slab/slub.h"

/* 0, or EAGAIN in a handler that interrupted it, or ENOMEM where it cannot be set up. */
Q_INLINE int q_call_begin(void)
{
    if (q_interrupted())
        return EAGAIN;
    q_enter();
    if (q_unlikely(q_heap == &q_heap_none))
        q_malloc_first();
    if (q_slub_init())
        return 0;
    q_leave();
    return ENOMEM;
}

Q_INLINE void q_call_end(void)
{
    if (q_unlikely(q_any_postponed()))
        q_free_postponed();
    q_leave();
}

#endif
