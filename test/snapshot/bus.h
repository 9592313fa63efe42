/*
 * bus.h - what the tests of heaps whose writers save pages themselves (QUIRE_HEAP_SIGBUS) share.
 */
#ifndef QUIRE_TEST_SNAPSHOT_BUS_H
#define QUIRE_TEST_SNAPSHOT_BUS_H

#include "quire/heap.h"
#include "steps.h"

enum { PAGE = 4096, SIZE = 1 << 20 };

/* Both of setup(). */
extern struct quire_heap *heap;
extern char *block; /* SIZE bytes of it, 1 */

/* Whether its writers save pages themselves. */
bool in_force(struct quire_heap *h);

/* Such a heap; where there is none, the case is skipped. */
struct quire_heap *make_heap(void);
void setup(void);

quire_snapshot_t *take_heap(struct quire_heap *h);

/* Whether a snapshot shows that all of this was c. */
bool shows(const quire_snapshot_t *s, const char *p, size_t size, char c);

/* All of the block is written while a snapshot lives, which does not show it. */
void writes_are_saved(void);

#endif
