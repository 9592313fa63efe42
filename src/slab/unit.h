/*
 * unit.h - memory of object caches and heaps: whose it is, found from an address.
 *
 * Caches (cache.h) and heaps (arena.h) take runs of pages that begin at a
 * multiple of 64 KiB. The slab descriptors of these units would lie idle, so
 * they say whose the memory is:
 *
 *   run          |  64 KiB  |  64 KiB  |  64 KiB  |
 *   descriptor     owner      owner      owner         `tag`
 *                  info       info       info          `mult`: what the owner knows of the run
 *                  start      start      start         `freelist`: where the run begins
 *                  0          0          0             `span`
 *
 * With a span of 0 no address passes the test of free() (slab.h), so what lies
 * here is never taken for an object of malloc's. The page's type is
 * Q_PAGE_RUN, so q_slab_of() does not know it, and its reference count says
 * that it is owned (zone/page_ref.h), so it is no block of malloc's either.
 *
 * Written by the owner while nobody knows an address in the run. Whoever
 * reads it for a live object reads what was written before the object was
 * handed out; for any other address the answer may be stale.
 */
#ifndef Q_SLAB_UNIT_H
#define Q_SLAB_UNIT_H

#include "slab/slab.h"
#include "zone/page_ref.h"

/* What `private` of an owned run's first page says. */
enum q_owner_kind { Q_OWNER_CACHE = 1, Q_OWNER_ARENA, Q_OWNER_ARENA_LARGE };

Q_INLINE const void *q_unit_owner(const struct q_slab *unit)
{
    return (const void *)(uintptr_t)q_racy_read(&unit->tag);
}

Q_INLINE void *q_unit_info(const struct q_slab *unit)
{
    return (void *)(uintptr_t)q_racy_read(&unit->mult);
}

Q_INLINE char *q_unit_start(const struct q_slab *unit)
{
    return (char *)unit->freelist;
}

/* The run at page, fresh from the page layer and aligned to 64 KiB, belongs to owner. */
void q_unit_claim(struct q_page *page, enum q_owner_kind kind, const void *owner, void *info);

/* The run belongs to nobody who could be found from an address. */
void q_unit_disown(const struct q_page *page);

/* Give such a run back to the page layer. */
void q_unit_release(struct q_page *page);

/* The first page of the owned run that holds p, any address at all; NULL where there is none. */
struct q_page *q_unit_page(const void *p);

/* The descriptor of the unit that holds p, which lies in an owned run. */
struct q_slab *q_unit_of(const void *p);

/*
 * Zeroed memory for what an owner needs to know: an object of malloc's own, so
 * that snapshots treat it as they do the program's. At most Q_SMALL_MAX bytes.
 */
void *q_inner_alloc(size_t bytes);
void q_inner_free(void *p);

#endif
