/*
 * core.h - the page layer brought up for a test, and checks of all it says about itself.
 *
 * The internals are linked without src/malloc, so that Criterion and the tests themselves live on
 * libc's malloc.
 */
#ifndef TEST_UNIT_CORE_H
#define TEST_UNIT_CORE_H

#include "base/opt.h"
#include "numa/topology.h"
#include "unit.h"
#include "zone/page_alloc.h"
#include "zone/pageblock.h"
#include "zone/reclaim.h"
#include "zone/vmalloc.h"

/* Which memory model to ask for. */
enum core_kind { CORE_FLAT, CORE_NUMA, CORE_SPARSE };

/* Bring up q_mem with q_opt as it is, changed for the model. */
void core_start(enum core_kind kind);

/* A flat one as on a machine with pages of 2^shift bytes, more than this one's. */
void core_start_pages(unsigned shift);

/* The same as the first with the slab layer. */
void core_start_slabs(enum core_kind kind);

/*
 * Make the heap one that was large: small ones do not keep kinds of pages apart. Every page is free
 * afterwards, and none of them resident.
 */
void core_grow_up(void);

/*
 * Every counter of every zone and pageblock against the struct pages, and every free page that is
 * said to be zero against its content. No other thread may be using the pages.
 */
void core_check(void);

/* The same; returns how many free blocks are listed as fresh although they hold memory. */
size_t core_wrongly_fresh(void);

/* Pages held by the per-CPU lists of all zones. */
size_t core_pcp_pages(void);

/* Sum over the zones: free in the buddy lists; free and written. */
size_t core_free_pages(void);
size_t core_dirty_pages(void);

/* Free blocks that are listed as holding memory. */
size_t core_used_blocks(void);

/* Resident pages of [p, p + nr pages), by mincore. */
size_t core_resident(const void *p, size_t nr);

/* True where nr pages from p on are all zero. */
bool core_is_zero(const void *p, size_t nr);

Q_INLINE struct q_zone *core_zone(unsigned nid, unsigned type)
{
    return &q_nodes[nid]->zones[type];
}

/* Write something that depends on page and seed to both ends of each page, and compare it later. */
void core_stamp(void *p, size_t nr, uint64_t seed);
bool core_stamped(const void *p, size_t nr, uint64_t seed);

#endif
