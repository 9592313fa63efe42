/*
 * pageblock.h - book-keeping of free pages by 2 MiB pageblock.
 *
 * For every pageblock: how many pages are free, which of them were written
 * and so hold memory (and something other than zeroes). From this follow
 * what calloc() may skip, what reclaim gives back, and which block to fill
 * first.
 *
 * Invariants, under zone->lock:
 *  - nr_dirty <= nr_free; a block is on zone->dirty exactly while nr_dirty > 0;
 *  - zone->nr_dirty is the sum of nr_dirty over its blocks.
 */
#ifndef Q_ZONE_PAGEBLOCK_H
#define Q_ZONE_PAGEBLOCK_H

#include "zone/memmap.h"

/*
 * Pages [pfn, pfn + nr) become free; the first `written` of them may hold
 * data. Call before or after giving them to the buddy lists.
 */
void q_pageblock_freed(struct q_zone *zone, size_t pfn, size_t nr, size_t written);

/* Pages [pfn, pfn + nr) stop being free. Returns how many of them, up to the last that may not be zero. */
size_t q_pageblock_taken(struct q_zone *zone, size_t pfn, size_t nr);

/* Whether no page of a free block, or of a part of one, holds memory. A q_is_fresh_fn. */
bool q_pageblock_is_fresh(const struct q_page *page, unsigned order);

/* All free written pages of [pfn, pfn + nr), which lies in one block, were given back: they are zero. */
void q_pageblock_cleaned(struct q_zone *zone, size_t pfn, size_t nr);

/* The next stretch of free written pages in the block, from *pfn on; false where there is none. */
bool q_pageblock_next_dirty(size_t *pfn, size_t *nr);

/* A block that is mostly empty should be served last, so that it may empty wholly. */
Q_INLINE bool q_pageblock_mostly_free(size_t pfn)
{
    return q_pageblock_of(pfn)->nr_free > ((1u << q_pageblock_order()) / 2);
}

/* A wholly free block is as good as any, and the one that was used last is in cache. */
Q_INLINE bool q_pageblock_to_tail(size_t pfn)
{
    return q_pageblock_mostly_free(pfn) &&
           q_pageblock_of(pfn)->nr_free < (1u << q_pageblock_order());
}

Q_INLINE uint32_t q_now_ms(void)
{
    return (uint32_t)(q_clock_often() / 1000000u);
}

/*
 * Whether the time `at` is still to come, where it was set at most `most` ahead: also when 49 days
 * begin anew, and after any time in which nobody looked.
 */
Q_INLINE bool q_is_ahead(uint32_t at, uint32_t now, uint32_t most)
{
    return at - now - 1 < most;
}

/* Compare the counters of the zone with its blocks; ends the program when they differ. */
void q_zone_verify(struct q_zone *zone);

#endif
