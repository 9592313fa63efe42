/*
 * page_alloc.h - pages: alloc_pages() and its relatives inside quire.
 *
 * What is given out is contiguous, aligned to its order, and of undefined
 * content unless Q_GFP_ZERO is asked for. All functions may be called by any
 * thread; they take pcp->lock and zone->lock, never anything above. NULL
 * means that address space, memory or the configured limit is used up;
 * nothing else changes then.
 */
#ifndef Q_ZONE_PAGE_ALLOC_H
#define Q_ZONE_PAGE_ALLOC_H

#include "zone/limit.h"
#include "zone/place.h"

typedef unsigned q_gfp_t;
#define Q_GFP_KERNEL 0u      /* NORMAL first */
#define Q_GFP_MOVABLE 1u     /* MOVABLE first */
#define Q_GFP_ZERO 2u        /* zeroed; free where the pages are known to be zero */
#define Q_GFP_THISNODE 4u    /* no other node */
#define Q_GFP_RECLAIMABLE 8u /* may be dropped on demand */
#define Q_GFP_ANYWHERE 16u   /* at any page: the order says how large a block holds it, no more */

/* 2^order pages, from the node that the thread's policy says; order 0..Q_MAX_ORDER. */
struct q_page *q_alloc_pages(q_gfp_t gfp, unsigned order);

/* The same near node nid, whatever the policy. */
struct q_page *q_alloc_pages_node(unsigned nid, q_gfp_t gfp, unsigned order);

/* The same, cut to nr pages, at least 1. */
struct q_page *q_alloc_on(struct q_place want, q_gfp_t gfp, unsigned order, size_t nr);

/* Exactly nr pages (1 .. 2^Q_MAX_ORDER): the tail of the block goes back at once. */
struct q_page *q_alloc_run(q_gfp_t gfp, size_t nr);

/* The same at a multiple of 2^order pages. */
struct q_page *q_alloc_run_aligned(q_gfp_t gfp, size_t nr, unsigned order);

/* Free what q_alloc_pages() or q_alloc_run() gave. */
void q_free_run(struct q_page *page);

/* Cut a run to nr pages (at least 1). */
void q_shrink_run(struct q_page *page, size_t nr);

/* Grow a run to nr pages where it lies; false where the pages behind it are not free. */
bool q_grow_run(struct q_page *page, size_t nr);

/*
 * Slabs: blocks of the slab order through the per-CPU lists. `want` says how
 * many leading pages the caller will soon fill: of the blocks at hand it gets
 * the one that has just as many resident. *written says how many that may
 * be. On freeing, `written` leading pages may hold data.
 */
struct q_page *q_alloc_slab_pages(unsigned want, unsigned *written);
void q_free_slab_pages(struct q_page *page, unsigned written);

/*
 * Inside the layer: take from / give to the buddy lists of one zone, zone->lock
 * held. *written: pages up to the last one that may hold something.
 */
struct q_page *q_zone_take(struct q_zone *zone, unsigned order, size_t nr, enum q_mobility mobility,
                           size_t *written);
void q_zone_give(struct q_zone *zone, struct q_page *page, size_t nr, size_t written);

/*
 * The run that was freed last rests: it is not merged with its neighbours until
 * something else is wanted of the zone, since a program that frees a block often
 * wants one just as long next, and merging takes longer than all the rest. To
 * the free lists and to walkers its pages are in use. Whoever asks for what is
 * free merges it first, with the zone's lock held.
 */
void q_zone_settle(struct q_zone *zone);

/* Whether slabs and runs share a zone on this node as yet. */
bool q_heap_is_small(unsigned nid);

/* Inside the layer: per-CPU lists. */
struct q_page *q_pcp_alloc(struct q_zone *zone, unsigned order, unsigned want, unsigned *written);
void q_pcp_free(struct q_zone *zone, struct q_page *page, unsigned order, unsigned written);
bool q_pcp_drain(struct q_zone *zone); /* true where there was something */

#endif
