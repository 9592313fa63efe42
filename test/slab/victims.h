/*
 * victims.h - what is used wrongly: object caches and heaps with live objects and blocks in them,
 * and whether these are unharmed.
 */
#ifndef QUIRE_TEST_SLAB_VICTIMS_H
#define QUIRE_TEST_SLAB_VICTIMS_H

#include "../conform/conform.h"
#include "quire/heap.h"
#include "quire/slab.h"

/* `gone` and `ended` are destroyed. */
extern struct quire_cache *cache, *other, *checked, *large, *gone;
extern char *one, *two, *neighbour; /* live objects of cache, of other */
extern struct quire_heap *heap, *heap2, *lone, *ended;
extern char *mine, *theirs, *big, *huge; /* live blocks of heap, of heap2, of heap */

void prepare(void);

/* Nothing but what was done wrong has changed. */
bool unharmed(void);

#endif
