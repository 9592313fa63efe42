/*
 * page_ref.h - pages that a program holds by reference count.
 *
 * malloc's runs have a refcount of exactly 1. A run that was given out through
 * the page interface has Q_PAGE_COUNTED in the same word, so neither can be
 * taken for the other, and who allocates runs need not know of this:
 *
 *      refcount   31        30                      0
 *               +---------+--------------------------+
 *   malloc      |    0    |            1             |
 *   page        | COUNTED | references; 0: being freed |
 *   owned       |    0    |            2             |  by an object cache or a heap
 *   movable     |    0    |            3             |  by a handle (movable.h)
 *               +---------+--------------------------+
 *
 * All pages of a run share the count of its head. A counted run starts at a
 * multiple of the smallest power of two that holds it: that is how the head
 * of a page inside it is found.
 *
 * The word is changed by compare-and-swap; no lock is taken but by
 * q_split_run(), which takes zone->lock. Runs of the special zones (special.h)
 * are held the same way.
 */
#ifndef Q_ZONE_PAGE_REF_H
#define Q_ZONE_PAGE_REF_H

#include "zone/memmap.h"

#define Q_PAGE_COUNTED (1u << 31)
#define Q_PAGE_COUNT_MAX (Q_PAGE_COUNTED - 1)
#define Q_PAGE_OWNED 2u
#define Q_PAGE_HANDLED 3u

/* The run at page, just allocated, is held by count from now on: by one reference. */
Q_INLINE void q_page_set_counted(struct q_page *page)
{
    /* Relaxed: nobody else knows the page yet. */
    __atomic_store_n(&page->refcount, Q_PAGE_COUNTED | 1, __ATOMIC_RELAXED);
}

/* The run at page becomes an object of malloc's, to be freed as such. */
Q_INLINE void q_page_set_plain(struct q_page *page)
{
    /* Relaxed: by the thread that put the last reference, so nobody else uses it. */
    __atomic_store_n(&page->refcount, 1, __ATOMIC_RELAXED);
}

/* The run at page, just allocated, belongs to an object cache or a heap (slab/unit.h). */
Q_INLINE void q_page_set_owned(struct q_page *page)
{
    /* Relaxed: as above. */
    __atomic_store_n(&page->refcount, Q_PAGE_OWNED, __ATOMIC_RELAXED);
}

Q_INLINE bool q_page_is_owned(const struct q_page *page)
{
    /* Relaxed: set before anything in the run was handed out, and stays until it is freed. */
    return __atomic_load_n(&page->refcount, __ATOMIC_RELAXED) == Q_PAGE_OWNED;
}

/* Whether a handle stands for this run; its number + 1 is in `private`. */
Q_INLINE bool q_page_is_movable(const struct q_page *page)
{
    /* Relaxed: for a complaint, or to be asked of the handle again. */
    return __atomic_load_n(&page->refcount, __ATOMIC_RELAXED) == Q_PAGE_HANDLED;
}

/* Whether this run is a block of malloc's. */
Q_INLINE bool q_page_is_plain(const struct q_page *page)
{
    /* Relaxed: as above. */
    return __atomic_load_n(&page->refcount, __ATOMIC_RELAXED) == 1;
}

/* Whether this run belongs to the page interface. */
Q_INLINE bool q_page_is_counted(const struct q_page *page)
{
    /* Relaxed: set before the page was handed out, and stays until it is freed. */
    return (__atomic_load_n(&page->refcount, __ATOMIC_RELAXED) & Q_PAGE_COUNTED) != 0;
}

/* The struct page that p points to; NULL where p is no pointer into the memory map. */
struct q_page *q_page_at(const void *p);

/*
 * Pages of the slab or run that holds page, of any kind and at any place, lie
 * on another node from now on. Returns how many there are from page to its
 * end; 1 where nothing that is given out holds it.
 */
size_t q_page_set_moved(struct q_page *page);

/* The head of the live counted run that holds page; NULL where there is none. */
struct q_page *q_page_head(struct q_page *page);

/* References to a counted run; 0 where it is being freed. */
uint32_t q_page_count(const struct q_page *head);

/* Take one more. False where there are none, or as many as there may be. */
bool q_page_get(struct q_page *head);

enum q_put { Q_PUT_KEPT, Q_PUT_LAST, Q_PUT_NONE };

/*
 * Drop one. Q_PUT_LAST: it was the last, and the caller now frees the run.
 * Q_PUT_NONE: there was none to drop.
 */
enum q_put q_page_put(struct q_page *head);

/*
 * Make a counted run of nr pages into nr counted runs of one page each, with
 * one reference each.
 */
void q_split_run(struct q_page *page);

/* The same, with the lock of the zone held: walkers see either one run or all the single pages. */
void q_split_pages(struct q_page *page);

#endif
