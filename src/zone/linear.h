/*
 * linear.h - what is behind the linear map, where that is not plain anonymous memory.
 *
 * A layer above (src/cow) may put a file behind the window, so that children
 * can share it. Then it, and not this layer, brings memory online and gives
 * it back. In nearly every process there is no such layer, and asking costs
 * one load in paths that make system calls anyhow.
 */
#ifndef Q_ZONE_LINEAR_H
#define Q_ZONE_LINEAR_H

#include <stdatomic.h>

#include "base/sys.h"

struct q_linear_ops {
    /* Make [at, at + len) of the window accessible; zone->lock held. False: anonymous memory shall be. */
    bool (*online)(void *at, size_t len);
    /* Give its memory back; reads as zeroes from then on. 0, or a negative errno: it stays as it is. */
    long (*discard)(void *at, size_t len);
    /* Whether it does so with single pages: not where each piece costs a mapping. */
    bool (*takes_pages)(void);
};

/* Set once, while there is one thread; NULL: anonymous memory. */
extern const struct q_linear_ops *q_linear;

/* Children share what is there now: nothing can be given back. A hint, changed by any thread. */
extern _Atomic bool q_linear_pinned;

Q_INLINE long q_linear_online(void *at, size_t len)
{
    if (q_unlikely(q_linear != NULL) && q_linear->online(at, len))
        return 0;
    return q_mprotect(at, len, PROT_READ | PROT_WRITE);
}

Q_INLINE long q_linear_discard(void *at, size_t len)
{
    return q_unlikely(q_linear != NULL) ? q_linear->discard(at, len)
                                        : q_madvise(at, len, MADV_DONTNEED);
}

/* Relaxed: whoever acts on it asks again, by q_linear_discard(). */
Q_INLINE bool q_linear_is_pinned(void)
{
    return atomic_load_explicit(&q_linear_pinned, memory_order_relaxed);
}

/* Whether it is worth trying to give back single pages. */
Q_INLINE bool q_linear_takes_pages(void)
{
    return !q_linear_is_pinned() && (q_linear == NULL || q_linear->takes_pages());
}

#endif
