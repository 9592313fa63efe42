/*
 * map.h - images that are mapped back as memory of this process. See map.c.
 *
 * The list only grows, under api_lock; whoever walks it needs no lock.
 */
#ifndef Q_COW_MAP_H
#define Q_COW_MAP_H

#include <stdatomic.h>

#include "cow/blocks.h"

struct q_mapped {
    struct q_mapped *next;
    struct q_ranges ranges;
    struct q_blocks blocks;
};

extern struct q_mapped *_Atomic q_mapped_list;

Q_INLINE const struct q_mapped *q_mapped_first(void)
{
    /* Acquire: pairs with the release that put it on the list, filled in. */
    return atomic_load_explicit(&q_mapped_list, memory_order_acquire);
}

/* For src/malloc: bytes of the block of a mapped image that begins at p; 0 where none does. */
size_t q_mapped_size(const void *p);

/*
 * The block at p is free: its whole pages are given back where nothing else
 * needs them. Its addresses are not used again. False: there is none.
 */
bool q_mapped_free(void *p);

/* Whether p lies in a mapped image at all. */
bool q_mapped_holds(const void *p);

#endif
