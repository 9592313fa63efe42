/*
 * compact.h - making free pages lie together, by moving what may be moved.
 *
 * Two scanners, as in the kernel's mm/compaction.c:
 *
 *   start                                                     frontier
 *    | full | part | part | free | part | mine | part | free |
 *             ^---- free pages from here up    ^---- movable runs from here down
 *
 * A pageblock is emptied only where all that is in use there are runs of
 * handles, so that it becomes free as a whole; a wholly free one is never
 * broken into. They stop where they meet. See movable.h for what moves.
 */
#ifndef Q_ZONE_COMPACT_H
#define Q_ZONE_COMPACT_H

#include "zone/movable.h"

struct q_compacted {
    size_t moved;      /* pages */
    size_t pageblocks; /* that became wholly free */
};

/* All zones of all nodes, once. No lock is held. */
struct q_compacted q_compact(void);

/*
 * Why a block of this order could not be had from the free lists: in
 * thousandths, towards 0 for lack of memory, towards 1000 for fragmentation;
 * -1000 where it can be had. And which part of the free pages is of no use
 * for the order, in thousandths. The zone's lock is held, or a copy is given.
 */
int q_fragmentation_index(const size_t nr_free[Q_NR_ORDERS], unsigned order);
int q_unusable_index(const size_t nr_free[Q_NR_ORDERS], unsigned order);

#endif
