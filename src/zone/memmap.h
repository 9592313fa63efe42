/*
 * memmap.h - the linear map and mem_map: address <-> pfn <-> struct page.
 *
 * Two memory models, chosen at start:
 *
 * flat (with one node) or discontiguous (several): one reserved window of
 * address space, a power of two in size and aligned to it. The frame number
 * is the distance from its start; each node owns an equal share.
 *
 *     base                                             base + size
 *      | node 0: NORMAL | MOVABLE | node 1: NORMAL | ... |
 *
 * sparse: where the kernel grants no large window (RLIMIT_AS, a container), or
 * there is no room for one (a 32-bit process). Sections of one largest block
 * each lie anywhere; some bits of its address are a section's number, so no
 * two may have them in common, and a table says which section is there:
 *
 *     address  | 0000 ... | 0 0 0 1 0 1 1 0 1 0 | ....  inside  .... |
 *                           number = pfn >> 10           4 MiB
 *
 * In both models the arrays that describe memory are virtually contiguous
 * and indexed by pfn (the kernel's vmemmap), apart from the data, between
 * guard pages, and cost nothing where nothing is online:
 *
 *     | guard | slabs[pfn >> slab order] | guard | mem_map[pfn] | guard | pageblocks | guard |
 *
 * slabs[] is readable over its whole length even where nothing is online, so
 * that free() may look up any address at all without a check first.
 *
 * Locks: the mapping state has its own lock, mem_lock, innermost but for the
 * futex; lookups take none (sections are only ever added).
 */
#ifndef Q_ZONE_MEMMAP_H
#define Q_ZONE_MEMMAP_H

#include <stdatomic.h>

#include "zone/mmzone.h"

#define Q_SLAB_DESC_SHIFT 6 /* a slab descriptor is 64 bytes */
#define Q_SECTION_ORDER Q_MAX_ORDER
#define Q_BAD_PFN (~(size_t)0)

/* What free() needs to find a slab's descriptor; read-mostly, in one cache line. */
struct q_lookup {
    char *slabs;    /* the descriptor array */
    uintptr_t mask; /* of (address >> 10): which bits choose a descriptor */
} __attribute__((aligned(Q_CACHELINE)));

extern struct q_lookup q_lookup __attribute__((visibility("hidden")));

struct q_mem {
    uintptr_t base;      /* the window; 0 in the sparse model */
    size_t size;         /* its bytes; 0 in the sparse model, so that no address is inside */
    size_t max_pages;    /* frames that the arrays have room for */
    unsigned node_shift; /* pfn >> node_shift is the node, in the window */
    bool sparse;
    bool thp_always; /* /sys/kernel/mm/transparent_hugepage/enabled */
    bool thp_never;
    struct q_page *mem_map;
    struct q_pageblock *pageblocks;
    _Atomic size_t meta_bytes;    /* mapped for metadata */
    _Atomic uint32_t nr_reshaped; /* times that the window's mappings may have been cut or joined */
    size_t nr_sections;           /* sparse: sections so far, */
    size_t first_section;         /* the lowest number among them, */
    size_t end_section;           /* and one more than the highest */
    uintptr_t last_section;       /* where the newest one lies */
    uintptr_t *section_addr;      /* sparse: number -> address; 0: none */
    struct q_zone **section_zone; /* the same, -> zone */
};

extern struct q_mem q_mem;

/* Reserve what can be had and set up the nodes and zones. False where not even a little works. */
bool q_mem_init(void);

/*
 * Bring at least one largest block online in zone, more as the heap grows:
 * [zone->frontier, zone->frontier_end) is not empty afterwards. Called with
 * zone->lock held. False where address space or memory is used up.
 */
bool q_zone_grow(struct q_zone *zone);

/* Reserve size bytes of address space at a multiple of align; nothing is accessible yet. Or NULL. */
char *q_reserve(size_t size, size_t align);

/* Permanent memory for structures, zeroed, aligned to 128 bytes; NULL where there is none. */
void *q_meta_alloc(size_t bytes);

/* The same on node nid. */
void *q_meta_alloc_node(size_t bytes, unsigned nid);

/*
 * After the kernel was told what makes two mappings of one, or one of two, with
 * the zone's lock still held: for src/cow/sweep.c, which compares with the locks
 * of all zones held, and so misses no change since it looked, whole or in part.
 */
Q_INLINE void q_mem_reshape(void)
{
    /* Relaxed: see above. */
    atomic_fetch_add_explicit(&q_mem.nr_reshaped, 1, memory_order_relaxed);
}

/* The sparse half of q_virt_to_pfn(). */
size_t q_section_pfn(uintptr_t addr);

/* Sparse: the address of a section; 0: there is none of that number. */
Q_INLINE uintptr_t q_section_addr(size_t section)
{
    /* Acquire: whoever sees the address sees the zone, and may read what describes the pages. */
    return __atomic_load_n(&q_mem.section_addr[section], __ATOMIC_ACQUIRE);
}

/* Which bytes of the three arrays describe the frames [pfn, pfn + nr). */
#define Q_NR_ARRAYS 3
struct q_part {
    uintptr_t from, to;
};
void q_mem_parts(size_t pfn, size_t nr, struct q_part part[Q_NR_ARRAYS]);

/* For the lock order at fork. */
extern struct q_lock q_mem_lock;

/* Frame number of an address, or Q_BAD_PFN for an address that was never quire's. */
Q_INLINE size_t q_virt_to_pfn(const void *p)
{
    uintptr_t off = (uintptr_t)p - q_mem.base;

    if (q_likely(off < q_mem.size))
        return off >> q_page_shift;
    return q_mem.sparse ? q_section_pfn((uintptr_t)p) : Q_BAD_PFN;
}

Q_INLINE void *q_pfn_to_virt(size_t pfn)
{
    if (q_likely(!q_mem.sparse))
        return (void *)(q_mem.base + (pfn << q_page_shift));
    /* Of memory that the caller knows to be there, so its address is, and stays. */
    return (void *)(q_mem.section_addr[pfn >> Q_SECTION_ORDER] +
                    ((pfn & (((size_t)1 << Q_SECTION_ORDER) - 1)) << q_page_shift));
}

Q_INLINE struct q_page *q_pfn_to_page(size_t pfn)
{
    return q_mem.mem_map + pfn;
}

Q_INLINE size_t q_page_to_pfn(const struct q_page *page)
{
    return (size_t)(page - q_mem.mem_map);
}

Q_INLINE void *q_page_address(const struct q_page *page)
{
    return q_pfn_to_virt(q_page_to_pfn(page));
}

Q_INLINE struct q_pageblock *q_pageblock_of(size_t pfn)
{
    return q_mem.pageblocks + (pfn >> q_pageblock_order());
}

/* The zone a frame belongs to. */
Q_INLINE struct q_zone *q_pfn_zone(size_t pfn)
{
    if (q_unlikely(q_mem.sparse))
        return q_mem.section_zone[pfn >> Q_SECTION_ORDER];
    struct q_node *node = q_nodes[pfn >> q_mem.node_shift];
    return &node->zones[pfn >> (q_mem.node_shift - 1) & 1];
}

/* True where the frame is online, so that its struct page may be read. */
bool q_pfn_online(size_t pfn);

/* The first frame of the next stretch that comes online, or does not, as a whole. */
Q_INLINE size_t q_next_section(size_t pfn)
{
    return q_align_down(pfn, (size_t)1 << Q_SECTION_ORDER) + ((size_t)1 << Q_SECTION_ORDER);
}

/*
 * struct page of any address at all: NULL unless the address lies in memory
 * that is online and quire's.
 */
Q_INLINE struct q_page *q_virt_to_page(const void *p)
{
    size_t pfn = q_virt_to_pfn(p);

    return pfn != Q_BAD_PFN && q_pfn_online(pfn) ? q_pfn_to_page(pfn) : NULL;
}

#endif
