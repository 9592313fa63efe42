/*
 * buddy.h - the binary buddy allocator as a pure data structure.
 *
 * It manages blocks of 2^order pages over an array of struct page and knows
 * nothing of memory, locks, CPUs or policy; tests drive it over an array on
 * the stack. Knowlton, "A Fast Storage Allocator", CACM 1965; the shape is
 * that of the kernel's mm/page_alloc.c.
 *
 *   area[2]  UNMOVABLE  used:  [page 8..11] <-> [page 20..23]    nr_free = 3
 *                       fresh: [page 32..35]
 *            MOVABLE    used:  ...
 *   area[1]  ...
 *
 * Within a mobility, blocks that hold memory already ("used") and blocks that
 * do not ("fresh") are on lists of their own, and used ones of any order go
 * first: taking a fresh one costs page faults and memory. A block that merges
 * from both counts as used. When it is split again, the owner of the pages is
 * asked what the halves hold, where he can tell (q_is_fresh_fn).
 *
 * Invariants:
 *  - a free block of order k starts at a pfn that is a multiple of 2^k, its
 *    head has type Q_PAGE_BUDDY and order k, and it is on exactly one list;
 *  - two buddies of the same order below the highest are never both free:
 *    freeing merges them at once;
 *  - the last page of a used block has the block's order, too: whoever comes
 *    from behind finds the head (boundary tags: Knuth, vol. 1, 2.5);
 *  - nr_free_pages is the sum over areas of nr_free << order;
 *  - a block is listed after its order and type were written, and its type is
 *    cleared after it was unlisted: what a fork finds in between can be listed
 *    again (zone/salvage.c).
 *
 * The caller serialises all calls on one struct q_buddy (the zone's lock).
 * A free block's lists end: head is taken first, so callers put blocks that
 * they want to fill at the head and those they hope to see empty at the tail.
 */
#ifndef Q_BUDDY_BUDDY_H
#define Q_BUDDY_BUDDY_H

#include "buddy/page.h"

/* Lists of one order: mobility, and whether the block holds memory. */
#define Q_NR_LISTS (2 * Q_NR_MOBILITIES)

Q_INLINE unsigned q_list_index(enum q_mobility mobility, bool fresh)
{
    return 2u * mobility + fresh;
}

struct q_free_area {
    struct q_list free_list[Q_NR_LISTS];
    size_t nr_free; /* blocks on all lists of this order */
};

struct q_buddy {
    struct q_free_area area[Q_NR_ORDERS];
    size_t nr_free_pages;
};

/* How a block goes back. */
struct q_free_how {
    uint8_t mobility; /* enum q_mobility */
    bool fresh;       /* holds no memory */
    bool to_tail;     /* prefer other blocks over this one */
};

/*
 * Free the block of 2^order pages at page, whose frame number is pfn, merging
 * it with its buddies as far as they are free. Returns the order of the block
 * that resulted.
 */
unsigned q_buddy_free(struct q_buddy *b, struct q_page *page, size_t pfn, unsigned order,
                      struct q_free_how how);

/* Whether none of the 2^order pages from page on, which are free, holds memory. */
typedef bool q_is_fresh_fn(const struct q_page *page, unsigned order);

/*
 * Take a block of 2^order pages from the lists of this mobility: the smallest
 * that fits, split down; the halves not needed go back to the lists, and where
 * is_fresh (NULL: nobody) can tell, it is a half with memory that is kept.
 * NULL where there is none. The result's head has type Q_PAGE_NONE, and in
 * page->list where it came from.
 */
struct q_page *q_buddy_alloc(struct q_buddy *b, unsigned order, enum q_mobility mobility,
                             q_is_fresh_fn *is_fresh);

/*
 * The largest free block of at least min_order on the lists of this mobility,
 * still on its list; NULL where there is none.
 */
struct q_page *q_buddy_largest(struct q_buddy *b, unsigned min_order, enum q_mobility mobility);

/* Take this free block, whole, off its list. */
void q_buddy_remove(struct q_buddy *b, struct q_page *page);

/*
 * List a block that is free by its type and order, but on no list; nothing is
 * merged. For making the lists anew, from an empty struct q_buddy.
 */
void q_buddy_relist(struct q_buddy *b, struct q_page *page, enum q_mobility mobility);

/* Move a free block to the lists of another mobility. */
void q_buddy_retype(struct q_buddy *b, struct q_page *page, enum q_mobility mobility);

/* A free block lost its memory: to the end of the fresh list. */
void q_buddy_freshen(struct q_buddy *b, struct q_page *page);

/*
 * Free nr pages from pfn on: the pages are cut into the largest aligned
 * blocks. Used for tails of exact lengths and for runs.
 */
void q_buddy_free_range(struct q_buddy *b, struct q_page *page, size_t pfn, size_t nr,
                        struct q_free_how how);

/* Walk all lists and compare with the counters; ends the program when they differ. */
void q_buddy_verify(const struct q_buddy *b);

#endif
