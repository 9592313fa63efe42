/* core.c - see core.h. */
#include "core.h"

#include <sys/mman.h>

#include "slab/slub.h"

static void choose(enum core_kind kind)
{
    /* As many nodes as the test says, whatever the machine has. */
    q_opt.numa = q_opt.numa == Q_NUMA_AUTO ? Q_NUMA_OFF : q_opt.numa;
    if (kind == CORE_NUMA)
        q_opt.numa_fake = 4;
    if (kind == CORE_SPARSE)
        q_opt.model = Q_MODEL_SPARSE;
    else if (!UNIT_SANITIZED)
        q_opt.model = Q_MODEL_FLAT;
    if (q_opt.window == 0)
        q_opt.window = (size_t)8 << 30;
}

void core_start(enum core_kind kind)
{
    choose(kind);
    q_base_init();
    must(q_mem_init());
    must_eq(q_mem.sparse, kind == CORE_SPARSE);
}

void core_start_pages(unsigned shift)
{
    choose(CORE_FLAT);
    q_page_shift = shift;
    must(q_mem_init());
}

void core_start_slabs(enum core_kind kind)
{
    unsetenv("QUIRE_CONF"); /* q_slub_init() reads it, over what the test chose */
    choose(kind);
    must(q_slub_init());
    must_eq(q_mem.sparse, kind == CORE_SPARSE);
}

void core_grow_up(void)
{
    struct q_page *page[64];
    size_t n;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (n = 0; n < 64 && q_heap_is_small(nid); n++) {
            page[n] = q_alloc_pages_node(nid, Q_GFP_KERNEL | Q_GFP_THISNODE, Q_MAX_ORDER);
            must(page[n] != NULL);
        }
        must(!q_heap_is_small(nid));
        while (n > 0)
            q_free_run(page[--n]);
    }
    q_reclaim_all(0);
    must_eq(core_dirty_pages(), 0);
}

bool core_is_zero(const void *p, size_t nr)
{
    const uint64_t *w = p, *end = w + (nr << q_page_shift) / sizeof(*w);
    uint64_t any = 0;

    for (; w < end; w++)
        any |= *w;
    return any == 0;
}

/* Part of a free block: all its pages are behind the head, and unwritten ones are zero. */
static size_t check_free_block(size_t pfn, unsigned order)
{
    size_t dirty = 0, per_block = (size_t)1 << q_pageblock_order();

    for (size_t p = pfn; p < pfn + ((size_t)1 << order); p++) {
        size_t bit = p & (per_block - 1);

        must(p == pfn || q_pfn_to_page(p)->type == Q_PAGE_NONE);
        if (q_pageblock_of(p)->written[bit / 64] >> (bit % 64) & 1)
            dirty++;
        else
            must(core_is_zero(q_pfn_to_virt(p), 1));
    }
    return dirty;
}

/* The pages of one pageblock from the struct pages; blocks never cross a largest block. */
struct tally {
    size_t nr_free, dirty;
};

/* Free blocks, or their parts, that are listed as fresh but hold memory. */
static size_t wrongly_fresh;

static void check_largest_block(struct q_zone *zone, size_t first, struct tally *sum)
{
    size_t end = first + ((size_t)1 << Q_MAX_ORDER), per_block = (size_t)1 << q_pageblock_order();
    struct tally t[1 << Q_MAX_ORDER] = {{0, 0}};

    for (size_t pfn = first; pfn < end;) {
        struct q_page *page = q_pfn_to_page(pfn);
        size_t len = 1;

        must(q_pfn_zone(pfn) == zone);
        switch (page->type) {
        case Q_PAGE_BUDDY:
            len = (size_t)1 << page->order;
            must_eq(pfn & (len - 1), 0);
            for (size_t p = pfn, n; p < pfn + len; p += n) {
                n = q_min(len, per_block);
                size_t dirty = check_free_block(p, q_fls(n));
                t[(p - first) / per_block].nr_free += n;
                t[(p - first) / per_block].dirty += dirty;
                wrongly_fresh += (page->list & 1) != 0 && dirty > 0;
                /* The second and later pageblocks of a block look like its inside. */
                must(p == pfn || q_pfn_to_page(p)->type == Q_PAGE_NONE);
            }
            break;
        case Q_PAGE_PCP:
            len = (size_t)1 << page->order;
            break;
        case Q_PAGE_RUN:
        case Q_PAGE_SLAB:
            len = page->nr;
            must(len > 0);
            break;
        default:
            must(!"a page that belongs to no block");
        }
        pfn += len;
        must(pfn <= end);
    }
    for (size_t pfn = first; pfn < end; pfn += per_block) {
        const struct q_pageblock *block = q_pageblock_of(pfn);
        const struct tally *is = &t[(pfn - first) / per_block];

        must_eq(block->nr_free, is->nr_free);
        must_eq(block->nr_dirty, is->dirty);
        must_eq(q_list_linked(&block->dirty), is->dirty > 0);
        sum->nr_free += is->nr_free;
        sum->dirty += is->dirty;
    }
}

static void check_zone(struct q_zone *zone)
{
    struct tally sum = {0, 0};
    size_t step = (size_t)1 << Q_MAX_ORDER;

    q_lock(&zone->lock);
    q_zone_settle(zone);
    q_zone_verify(zone);
    if (q_mem.sparse) {
        /* A section is cut off the frontier as soon as it is there. */
        for (size_t s = 0; s < q_mem.end_section; s++)
            if (q_mem.section_zone[s] == zone)
                check_largest_block(zone, s * step, &sum);
    } else {
        must(zone->frontier_end <= zone->start_pfn + zone->spanned_pages);
        must_eq(zone->frontier_end - zone->start_pfn, zone->present_pages);
        for (size_t pfn = zone->start_pfn; pfn < zone->frontier; pfn += step)
            check_largest_block(zone, pfn, &sum);
    }
    must_eq(zone->buddy.nr_free_pages, sum.nr_free);
    must_eq(zone->nr_dirty, sum.dirty);
    q_unlock(&zone->lock);
}

void core_check(void)
{
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            check_zone(core_zone(nid, type));
}

size_t core_wrongly_fresh(void)
{
    wrongly_fresh = 0;
    core_check();
    return wrongly_fresh;
}

size_t core_pcp_pages(void)
{
    size_t n = 0;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            for (unsigned cpu = 0; cpu < q_topology.nr_cpus; cpu++)
                n += core_zone(nid, type)->pcp[cpu].count;
    return n;
}

size_t core_free_pages(void)
{
    size_t n = 0;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            n += core_zone(nid, type)->buddy.nr_free_pages;
    return n;
}

/* What was freed last is merged, so that it counts. */
static void settle_all(void)
{
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            struct q_zone *zone = core_zone(nid, type);

            q_lock(&zone->lock);
            q_zone_settle(zone);
            q_unlock(&zone->lock);
        }
    }
}

size_t core_dirty_pages(void)
{
    size_t n = 0;

    settle_all();
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            n += core_zone(nid, type)->nr_dirty;
    return n;
}

size_t core_used_blocks(void)
{
    size_t n = 0;

    settle_all();
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            for (unsigned order = 0; order < Q_NR_ORDERS; order++)
                for (unsigned list = 0; list < Q_NR_LISTS; list += 2) {
                    struct q_list *head = &core_zone(nid, type)->buddy.area[order].free_list[list];
                    for (struct q_list *l = head->next; l != NULL && l != head; l = l->next)
                        n++;
                }
    return n;
}

size_t core_resident(const void *p, size_t nr)
{
    static unsigned char vec[1 << 20];
    size_t n = 0;

    must(nr <= sizeof(vec));
    must(mincore((void *)(uintptr_t)p, nr << q_page_shift, vec) == 0);
    for (size_t i = 0; i < nr; i++)
        n += vec[i] & 1;
    return n;
}

static uint64_t stamp_of(uint64_t seed, size_t i, unsigned end)
{
    return (seed + 2 * i + end + 1) * 0x9e3779b97f4a7c15u;
}

void core_stamp(void *p, size_t nr, uint64_t seed)
{
    for (size_t i = 0; i < nr; i++) {
        uint64_t *page = (uint64_t *)((char *)p + (i << q_page_shift));

        page[0] = stamp_of(seed, i, 0);
        page[q_page_size() / sizeof(*page) - 1] = stamp_of(seed, i, 1);
    }
}

bool core_stamped(const void *p, size_t nr, uint64_t seed)
{
    for (size_t i = 0; i < nr; i++) {
        const uint64_t *page = (const uint64_t *)((const char *)p + (i << q_page_shift));

        if (page[0] != stamp_of(seed, i, 0) ||
            page[q_page_size() / sizeof(*page) - 1] != stamp_of(seed, i, 1))
            return false;
    }
    return true;
}
