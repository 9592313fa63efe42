/* collapse.h - small pages of a large heap become huge ones again. See collapse.c. */
#ifndef Q_ZONE_COLLAPSE_H
#define Q_ZONE_COLLAPSE_H

#include "base/types.h"

/*
 * Look at a few pieces of the heap, and make what is small and full huge. No
 * lock is held by the caller. Mostly returns at once; seldom takes about as
 * long as copying 2 MiB.
 */
void q_collapse_tick(void);

/* In a forked child: whoever was at it is not here. */
void q_collapse_fork_child(void);

#endif
