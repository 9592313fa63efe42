/* heap.h - what the tests of heaps share: blocks of random sizes, and what is in them. */
#ifndef QUIRE_TEST_SLAB_HEAP_H
#define QUIRE_TEST_SLAB_HEAP_H

#include "../conform/conform.h"
#include "quire/heap.h"

struct block {
    unsigned char *p;
    size_t size;
    unsigned seed;
};

struct quire_heap_stat stat_of(struct quire_heap *h);

/* Mostly small, and below `most`. */
size_t random_size(uint64_t *state, size_t most);

/* Fills a block with a pattern of its own; makes one first, in one of the ways that there are. */
void fill(struct block *b, uint64_t *state);
void make(struct quire_heap *h, struct block *b, uint64_t *state, size_t most);

#endif
