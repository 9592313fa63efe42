/*
 * page.h - struct page: what the allocator knows of one page.
 *
 * The memory map is an array of these, indexed by page frame number. A page
 * that was never used is all zero, so untouched parts of the map cost no
 * memory. Only the first page of a block carries information; the pages
 * behind it stay Q_PAGE_NONE:
 *
 *      pfn    0    1    2    3    4    5    6    7    8 ...
 *           +----+----+----+----+----+----+----+----+----
 *      type |RUN |    |    |BUDY|BUDY|    |    |    |SLAB
 *      nr   | 3  |    |    |    |    |    |    |    | 16
 *      order|    |    |    | 0  | 2  |    |    |    |  4
 *           +----+----+----+----+----+----+----+----+----
 *            a run of 3 pages    free blocks         a slab
 *
 * Invariant: the head of the block that holds a page is found by walking back
 * to the first page whose type is not Q_PAGE_NONE, and that head's length
 * covers the page. Blocks never cross a multiple of the largest order.
 *
 * Who may touch it: the owner of the block; for free blocks, whoever holds
 * the lock of the zone (BUDDY) or of the per-CPU list (PCP).
 */
#ifndef Q_BUDDY_PAGE_H
#define Q_BUDDY_PAGE_H

#include "base/list.h"
#include "base/types.h"

enum q_page_type {
    Q_PAGE_NONE,  /* never used, or inside a block */
    Q_PAGE_BUDDY, /* head of a free block on a free_area list */
    Q_PAGE_PCP,   /* head of a free block on a per-CPU list */
    Q_PAGE_SLAB,  /* head of a slab */
    Q_PAGE_RUN,   /* head of a run given out: compound page, or pages of exact number */
    Q_PAGE_REST,  /* head of a run that is free, but rests: zone->resting */
};

/* Pages of the block were moved to another node, and go home when it is freed. */
#define Q_PAGE_MOVED 2

/* What may happen to the content of a pageblock; blocks of like kind stay together. */
enum q_mobility {
    Q_UNMOVABLE,   /* addresses are held by the program: slabs */
    Q_MOVABLE,     /* large runs, in the movable zone */
    Q_RECLAIMABLE, /* may be dropped on demand */
    Q_SPARSE,      /* slabs that stay nearly empty: most of their pages are never touched */
    Q_NR_MOBILITIES,
};

struct q_page {
    uint8_t type;      /* enum q_page_type */
    uint8_t order;     /* BUDDY, PCP, SLAB: log2 of the pages in the block; see also buddy.h */
    uint8_t list;      /* BUDDY: which free list, see buddy.h */
    uint8_t flags;     /* SLAB, RUN: Q_PAGE_MOVED */
    uint32_t nr;       /* RUN, SLAB: pages; PCP: leading pages that were written */
    uint32_t refcount; /* RUN: get_page() and put_page() */
    uint32_t private;  /* of whoever owns the block */
    struct q_list lru; /* BUDDY: free list; PCP: per-CPU list */
} __attribute__((aligned(32)));

/*
 * The type of a page, whoever asks. Blocks change hands under different locks,
 * a free list's or a per-CPU list's, and a free() of any address looks at the
 * head of the slab that would hold it with no lock at all, so every load and
 * store is atomic. Relaxed: what follows from the type is the asker's own, or
 * under a lock he holds; only Q_PAGE_SLAB publishes something (page_alloc.c).
 */
Q_INLINE unsigned q_page_type_of(const struct q_page *page)
{
    return __atomic_load_n(&page->type, __ATOMIC_RELAXED);
}

Q_INLINE void q_page_set_type(struct q_page *page, enum q_page_type type)
{
    __atomic_store_n(&page->type, (uint8_t)type, __ATOMIC_RELAXED);
}

/*
 * Is this the head of a free block? Whoever holds the zone's lock knows: only
 * under it pages become free, or cease to be. Meanwhile slabs and blocks of
 * per-CPU lists turn into each other without it.
 */
Q_INLINE bool q_page_is_free(const struct q_page *page)
{
    return q_page_type_of(page) == Q_PAGE_BUDDY;
}

_Static_assert(sizeof(struct q_page) == 32, "128 struct pages share a page of the memory map");

#endif
