/*
 * range.h - which memory is in use: a sorted array of stretches of pages.
 *
 * Collected at the cut, with all locks of src/zone held: whole pageblocks
 * where no page is free, the parts in use of the others, and the blocks with
 * a mapping of their own. Holes of free pages below Q_HOLE_MAX are bridged,
 * because each stretch costs a system call under those locks, and so are the
 * holes of huge pages, because protecting a part would split them.
 *
 *   pageblocks   | full | full | part  | empty | part | ...
 *   ranges       [-------------------]           [--]
 */
#ifndef Q_COW_RANGE_H
#define Q_COW_RANGE_H

#include "base/types.h"

struct q_range {
    uintptr_t start, end;
};

struct q_ranges {
    struct q_range *at; /* a mapping of its own */
    size_t nr, room;
    size_t bytes; /* in all of them */
    bool failed;  /* no memory for the array */
};

/* Fill r with what is in use. All locks of src/zone held. False: no memory. */
bool q_ranges_collect(struct q_ranges *r);

/* Fill r with the memory of one heap; its lock is held. False: no memory. */
struct q_arena;
bool q_ranges_collect_arena(struct q_ranges *r, const struct q_arena *a);

/*
 * Fill r with all that going back needs as it was: every page of the zones up
 * to their frontiers, free or not; the blocks with a mapping of their own;
 * and what the arrays of zone/memmap.h say of these pages. Flat and
 * discontiguous models. The same locks.
 */
bool q_ranges_collect_all(struct q_ranges *r);

/* Sort entries of `size` bytes, at most 64, by their first word. Allocates nothing. */
void q_sort_by_start(void *at, size_t nr, size_t size);

/* Append [start, end), joining what touches; then sort. For images. */
bool q_ranges_add(struct q_ranges *r, uintptr_t start, uintptr_t end);
void q_ranges_sort(struct q_ranges *r);

/* Make room for nr entries in all. */
bool q_ranges_reserve(struct q_ranges *r, size_t nr);

/* The first stretch that ends after addr; r->nr where none does. */
size_t q_ranges_after(const struct q_ranges *r, uintptr_t addr);

/* The stretch that holds addr; NULL where none does. */
const struct q_range *q_ranges_find(const struct q_ranges *r, uintptr_t addr);

/* Whether any stretch touches [start, end). */
bool q_ranges_touch(const struct q_ranges *r, uintptr_t start, uintptr_t end);

/*
 * maps.c: writable mappings of the process within [start, end), as the kernel
 * has them now, ascending. How many; 0 also where there are more than room, or
 * no /proc.
 */
size_t q_mappings(uintptr_t start, uintptr_t end, struct q_range *at, size_t room);

void q_ranges_free(struct q_ranges *r);

#endif
