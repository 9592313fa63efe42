/*
 * fit.h - runs of any length, where free pages in a row hold them.
 *
 * The buddy allocator rounds 17 pages up to 32 when it looks for a place, and
 * cuts the rest off; freed, they lie as 16 and 1 and no longer serve 17. So a
 * run that needs no alignment looks for free pages in a row first, however the
 * buddy allocator has divided them:
 *
 *      in use | 1 |   2   |       4       |       4       | 1 | in use
 *             |<----------------- an extent of 12 ---------->|
 *
 * Of those at hand it gets the one with least to spare (best fit), at its
 * beginning. n pages in a row hold an aligned block of more than n/4 of them
 * and at most 2 log2(n) blocks in all, so both finding and measuring one is
 * short. Only extents that hold memory already are worth it.
 *
 * All with the zone's lock held.
 */
#ifndef Q_ZONE_FIT_H
#define Q_ZONE_FIT_H

#include "zone/mmzone.h"

/* A run of nr pages; *written as q_zone_take() has it. NULL: none fits. */
struct q_page *q_take_fitting(struct q_zone *zone, size_t nr, enum q_mobility mobility,
                              size_t *written);

/* Pages from page + from on that are free in a row, as far as page + most; may be more. */
size_t q_free_behind(const struct q_page *page, size_t from, size_t most);

/* Take [page + from, page + to), all of it free, off the free lists. */
void q_take_behind(struct q_zone *zone, struct q_page *page, size_t from, size_t to);

/* What is left of a block that was cut, from page on: it was never counted as taken. */
void q_free_tail(struct q_zone *zone, struct q_page *page, size_t nr, bool fresh);

#endif
