/* heaps.h - what a pointer into a heap of the program's is, for messages. */
#ifndef Q_MALLOC_HEAPS_H
#define Q_MALLOC_HEAPS_H

#include "base/msg.h"
#include "slab/arena.h"

/* Append what p is, any address at all. */
void q_describe_heap(struct q_buf *b, const void *p);

#endif
