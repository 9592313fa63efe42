/*
 * blocks.h - where the blocks of malloc begin and how long they are, by address.
 *
 * Collected at the cut of a snapshot whose image shall be mapped back. One
 * entry stands for a single block (a run of pages, a mapping), or for
 * neighbouring slabs of one class:
 *
 *   start                                      bytes = 3 * 64 KiB, object = 48
 *     |48|48|48| ...    |48|48|48| ...    |48|48|48| ...
 *
 * It says what may be a block, not which are in use: that the program knows.
 */
#ifndef Q_COW_BLOCKS_H
#define Q_COW_BLOCKS_H

#include "cow/range.h"

struct q_block {
    uint64_t start, bytes;
    uint64_t object; /* size of each object of slabs; 0: one block of `bytes` */
};

struct q_blocks {
    struct q_block *at; /* a mapping of its own */
    size_t nr, room;
};

/* All that begin in these stretches. All locks of src/zone held. False: no memory. */
bool q_blocks_collect(struct q_blocks *b, const struct q_ranges *ranges);

/* Bytes of the block that begins at addr; 0 where none does. */
size_t q_blocks_size(const struct q_blocks *b, uintptr_t addr);

/* What was read from a file: ascending, apart, each in one of the stretches. */
bool q_blocks_make_sense(const struct q_blocks *b, const struct q_ranges *ranges);

void q_blocks_free(struct q_blocks *b);

#endif
