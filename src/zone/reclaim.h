/*
 * reclaim.h - giving memory back to the kernel, and asking for huge pages.
 *
 * Reclaim works on free pages that are still resident. Under the high
 * watermark it does nothing; above it, pageblocks that have rested for
 * decay_ms are given back, wholly free ones first, oldest first. It runs from
 * allocation and freeing (q_zone_tick), so an idle process does nothing.
 */
#ifndef Q_ZONE_RECLAIM_H
#define Q_ZONE_RECLAIM_H

#include "zone/memmap.h"

/* So large must the slabs be before huge pages are asked for. */
#define Q_HUGE_FROM_BYTES ((size_t)64 << 20)

/* Look whether something should be given back; cheap when not. zone->lock held. */
void q_zone_tick(struct q_zone *zone);

/* The same for every zone, from paths that hold no lock. */
void q_reclaim_tick(void);

/*
 * Give back free pages of all zones until at most keep_pages of them stay
 * resident (malloc_trim is keep_pages = pad). Returns how many pages went.
 */
size_t q_reclaim_all(size_t keep_pages);

/*
 * Decide for a fresh largest block whether the kernel should back it with
 * huge pages: yes once the heap is so large that the part of the last block
 * that may stay unused is a few per cent of it. zone->lock held.
 */
void q_zone_want_huge(struct q_zone *zone, size_t pfn);

#endif
