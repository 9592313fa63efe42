/*
 * special.h - zones that serve only who asks for them by name.
 *
 *   DMA32     addresses below 4 GiB                     special_map.c
 *   DMA       locked in memory, never swapped           special_map.c
 *   HIGHMEM   pages of a file, without an address       highmem.c
 *   SECRET    the same in a file that the kernel hides  highmem.c
 *
 * Their memory comes online one section (a largest block) at a time, wherever
 * it can be had. The struct pages of all sections stand in a few arrays of
 * their own, each twice as long as the one before, so that the section of a
 * struct page is found without a lock or a table of addresses:
 *
 *   chunk 0: 16 sections   chunk 1: 32 sections          chunk 2: 64 ...
 *   | 16 x 1024 pages |    | 32 x 1024 struct pages |
 *
 * A page here has the frame number of its place in these arrays, counted on
 * from the frames of the memory map. There are no pageblocks and no per-CPU
 * lists: a buddy allocator for each zone, and one bit for each page.
 *
 * Snapshots do not cover this memory, and going back leaves it as it is.
 *
 * Invariants, under the zone's lock:
 *  - a free page without Q_PAGE_WRITTEN reads as zero and holds no memory;
 *  - nr_written is the number of free pages with it, at most `keep` but where
 *    the kernel would not take memory back.
 * Sections are only added; nr_sections is published after all they need.
 *
 * Locks: zone->lock of each, then section_lock while a section is added (and
 * q_mem_lock inside it). Order: doc/locking.md.
 */
#ifndef Q_ZONE_SPECIAL_H
#define Q_ZONE_SPECIAL_H

#include "zone/memmap.h"

enum q_special {
    Q_SPECIAL_DMA32,
    Q_SPECIAL_DMA,
    Q_SPECIAL_HIGHMEM,
    Q_SPECIAL_SECRET,
    Q_NR_SPECIAL,
};

#define Q_PAGE_WRITTEN 1 /* q_page.flags: free, and may hold something */

struct q_section {
    struct q_special_zone *zone;
    struct q_page *pages; /* 2^Q_MAX_ORDER of them, aligned to their size */
    uintptr_t addr;       /* where they lie; 0: in a file */
    uint64_t offset;      /* in the file, */
    int fd;               /* this one, if it still is: a program may close any number */
    uint64_t dev, inode;
    bool inherited; /* the file is the parent's: this is a forked child's view of it */
};

struct q_special_zone {
    struct q_lock lock;
    struct q_buddy buddy;
    size_t present_pages, nr_written, nr_alloc, nr_free_calls, nr_given_back;
    uintptr_t cursor;      /* DMA32: where the last section was found */
    struct q_section file; /* HIGHMEM: the file, offset: its length; inode 0: none yet */
};

/* What a zone does its own way. Errors are negative errnos. */
struct q_special_ops {
    const char *name;
    /* Memory for another section: fill in where it is. The zone's lock is held. */
    int (*grow)(struct q_special_zone *zone, struct q_section *s);
    /* Pages are about to be given out; NULL: nothing to do. No lock is held. */
    int (*ready)(const struct q_section *s, size_t first, size_t nr);
    /* Take the memory back, so that it reads as zero; false where it could not be. */
    bool (*clean)(const struct q_section *s, size_t first, size_t nr);
    size_t keep_bytes; /* free memory that may stay resident */
};

extern struct q_special_zone q_special_zones[Q_NR_SPECIAL];
extern const struct q_special_ops *const q_special_ops[Q_NR_SPECIAL];

/*
 * nr pages (up to 2^order, order up to Q_MAX_ORDER) at a multiple of 2^order
 * pages. NULL with *error: ENOMEM, or why the kernel refuses such memory.
 */
struct q_page *q_special_alloc(enum q_special kind, unsigned order, size_t nr, bool zero,
                               int *error);

/* Free such a run; its count is 0. */
void q_special_free(struct q_page *head);

/* In a signal handler that may not wait for the lock: it is freed with the next run. */
void q_special_free_later(struct q_page *head);

/* Make a counted run of nr pages into nr counted runs of one page each. */
void q_special_split(struct q_page *head);

/* Give back what rests. Returns how many pages went. */
size_t q_special_trim(void);

/* Whether a struct page stands outside the memory map, and so, if it is one at all, here. */
Q_INLINE bool q_page_is_special(const struct q_page *page)
{
    return (uintptr_t)page - (uintptr_t)q_mem.mem_map >= q_mem.max_pages * sizeof(*page);
}

/* The section of a struct page; NULL where p points to none of these zones'. */
struct q_section *q_special_section(const void *p);

Q_INLINE enum q_special q_special_kind(const struct q_section *s)
{
    return (enum q_special)(s->zone - q_special_zones);
}

/* Address of a page that has one by nature; and the page at such an address; NULL for others. */
void *q_special_address(const struct q_page *page);
struct q_page *q_special_virt_to_page(const void *p);

/* Frame numbers; NULL where there is no such frame. */
size_t q_special_pfn(const struct q_page *page);
struct q_page *q_special_pfn_to_page(size_t pfn);

/* For fork.c: every lock, in order; and those of a child, where lists may have to be made anew. */
void q_special_each_lock(void (*fn)(struct q_lock *l));
void q_special_fork_child(void);

extern const struct q_special_ops q_dma32_ops, q_dma_ops, q_highmem_ops, q_secret_ops;

#endif
