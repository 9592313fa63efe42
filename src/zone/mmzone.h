/*
 * mmzone.h - nodes, zones, pageblocks: who owns which pages.
 *
 *   node 0 (pglist_data)                          node 1
 *   +--------------------+--------------------+   +---- - -
 *   | NORMAL             | MOVABLE            |   |
 *   | used..|frontier    | used..|frontier    |   |
 *   +--------------------+--------------------+   +---- - -
 *
 * A zone begins empty and grows at its frontier: sections of it are brought
 * online (made accessible), then cut off the frontier one largest block at a
 * time and given to the buddy allocator. NORMAL serves slabs, MOVABLE large
 * runs; each falls back to the other and then to other nodes in the order of
 * the node's zonelist.
 *
 * Watermarks, in pages that are free but still resident: at `high` a zone is
 * comfortable, and what lies above it is given back to the kernel, oldest
 * whole pageblocks first, once it has rested for the decay time. Above `max`
 * (a part of what is in use, and of what was lately) it goes at once.
 *
 * Locks: zone->lock guards everything in struct q_zone and the pageblocks and
 * free struct pages of the zone; pcp->lock (one per CPU, outside zone->lock)
 * guards a per-CPU list. Order: doc/locking.md.
 */
#ifndef Q_ZONE_MMZONE_H
#define Q_ZONE_MMZONE_H

#include <stdatomic.h>

#include "base/lock.h"
#include "buddy/buddy.h"

enum q_zone_type { Q_ZONE_NORMAL, Q_ZONE_MOVABLE, Q_NR_ZONES };

enum q_watermark { Q_WMARK_MIN, Q_WMARK_LOW, Q_WMARK_HIGH, Q_WMARK_MAX, Q_NR_WMARK };

/* Bits for the largest number of pages in a pageblock: 2 MiB in pages of 4 KiB. */
#define Q_PAGEBLOCK_WORDS 8

/*
 * One pageblock: 2 MiB. A set bit in `written` says that the page may hold
 * something other than zeroes, and memory; it matters while the page is free
 * (what is given out belongs to the user) and is set again when it is freed.
 */
struct q_pageblock {
    uint64_t written[Q_PAGEBLOCK_WORDS];
    struct q_list dirty; /* zone->dirty: blocks with free, written pages; oldest first */
    uint32_t stamp_ms;   /* when a page of it was last freed */
    uint16_t nr_free;    /* pages in the buddy lists */
    uint16_t nr_dirty;   /* of these, written ones */
    uint8_t mobility;
    uint8_t huge;  /* the kernel was asked for a huge page */
    uint8_t apart; /* and then for none, see reclaim.c: a mapping of its own */
} __attribute__((aligned(2 * Q_CACHELINE)));
_Static_assert(sizeof(struct q_pageblock) == 128, "two cache lines");

/*
 * Free blocks of one CPU, by order up to that of a slab, those of sparse
 * pageblocks apart. Hot: just freed, in cache and resident.
 */
#define Q_PCP_ORDERS 5
#define Q_NR_PCP_KINDS 2

struct q_pcp {
    struct q_lock lock;
    uint32_t high;   /* weight above which blocks return to the buddy lists */
    uint32_t weight; /* of the lists: resident pages, and one for each block */
    uint32_t count;  /* pages in the lists */
    uint32_t misses; /* refills since high was last looked at */
    struct q_list list[Q_NR_PCP_KINDS][Q_PCP_ORDERS]; /* head hot, tail cold */
} __attribute__((aligned(2 * Q_CACHELINE)));

struct q_zone {
    struct q_lock lock;
    uint8_t nid, type;
    struct q_buddy buddy;

    size_t start_pfn, spanned_pages; /* fixed: where the zone may grow */
    size_t present_pages;            /* online */
    size_t frontier, frontier_end;   /* online but never used */

    size_t watermark[Q_NR_WMARK];
    size_t nr_run_pages; /* pages given out in runs, not slabs */
    size_t nr_dirty;     /* free pages that are still resident */
    size_t nr_kept;      /* up to so many stay, since they had to when some should go at once */
    struct q_list dirty; /* pageblocks with such pages */
    size_t slab_peak, run_peak; /* most pages in use, lately */
    struct q_page *resting;     /* the run that was freed last: q_zone_settle() */
    size_t nr_gone;             /* given back at once, lately, and not missed yet; */
    size_t nr_missed;           /* so many were, since fresh ones had to be taken instead */
    uint32_t tick_ms;           /* when reclaim last looked */

    /* Event counters, as in /proc/vmstat. Under the lock. */
    size_t nr_alloc, nr_free_calls, nr_steal, nr_given_back, nr_huge_blocks, nr_apart;
    struct q_pcp *pcp; /* [q_topology.nr_cpus] */
} __attribute__((aligned(2 * Q_CACHELINE)));

/*
 * Blocks handed out, by what the kernel's numastat distinguishes; this node is
 * the one that the block came from, but in FOREIGN.
 */
enum q_numa_stat {
    Q_STAT_HIT_LOCAL,  /* wanted here, by a thread of this node */
    Q_STAT_HIT_OTHER,  /* wanted here, by a thread of another node */
    Q_STAT_MISS_LOCAL, /* wanted elsewhere, by a thread of this node */
    Q_STAT_MISS_OTHER,
    Q_STAT_FOREIGN,    /* wanted here, came from another node */
    Q_STAT_INTERLEAVE, /* of the hits: those of an interleaving policy */
    Q_NR_NUMA_STATS,
};

/* A node's memory: the kernel's pglist_data. */
struct q_node {
    unsigned nid;
    _Atomic size_t numa[Q_NR_NUMA_STATS];
    struct q_page *node_mem_map;
    size_t node_start_pfn, node_spanned_pages;
    struct q_zone zones[Q_NR_ZONES];
    /* zonelist[type]: zones to try for a request of that type, nearest first; NULL ends it */
    struct q_zone *zonelist[Q_NR_ZONES][Q_MAX_NODES * Q_NR_ZONES + 1];
};

extern struct q_node *q_nodes[Q_MAX_NODES];

extern const char *const q_zone_names[Q_NR_ZONES];

#endif
