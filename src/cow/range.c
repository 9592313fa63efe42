/* range.c - see range.h. */
#include "cow/range.h"

#include "base/msg.h"
#include "cow/map.h"
#include "numa/topology.h"
#include "zone/memmap.h"
#include "zone/vmalloc.h"

#define HOLE_MAX ((size_t)64 << 10)

bool q_ranges_reserve(struct q_ranges *r, size_t nr)
{
    size_t room = q_max(2 * r->room, 4096 / sizeof(struct q_range));
    struct q_range *now;

    q_assert(r->nr <= r->room && (r->room == 0 || r->at != NULL));
    if (nr <= r->room)
        return true;
    room = q_align_up(q_max(room, nr) * sizeof(struct q_range), q_page_size());
    now = q_mmap(NULL, room, PROT_READ | PROT_WRITE, 0);
    if (now == NULL) {
        r->failed = true;
        return false;
    }
    for (size_t i = 0; i < r->nr; i++)
        now[i] = r->at[i];
    if (r->at != NULL)
        q_munmap(r->at, r->room * sizeof(struct q_range));
    r->at = now;
    r->room = room / sizeof(struct q_range);
    return true;
}

void q_ranges_free(struct q_ranges *r)
{
    if (r->at != NULL)
        q_munmap(r->at, r->room * sizeof(struct q_range));
    *r = (struct q_ranges){0};
}

bool q_ranges_add(struct q_ranges *r, uintptr_t start, uintptr_t end)
{
    struct q_range *last = r->nr > 0 ? &r->at[r->nr - 1] : NULL;

    if (last != NULL && start >= last->end && start - last->end == 0) {
        last->end = end;
    } else {
        if (!q_ranges_reserve(r, r->nr + 1))
            return false;
        r->at[r->nr++] = (struct q_range){start, end};
    }
    r->bytes += end - start;
    return true;
}

/* The same, bridging a small hole before it. */
static void add_near(struct q_ranges *r, uintptr_t start, uintptr_t end)
{
    if (r->nr > 0) {
        uintptr_t last = r->at[r->nr - 1].end;
        if (start >= last && start - last < HOLE_MAX)
            start = last;
    }
    q_ranges_add(r, start, end);
}

/* A pageblock of which some pages are free: walk the heads of its blocks. */
static void collect_part(struct q_ranges *r, size_t pfn, size_t end)
{
    while (pfn < end) {
        const struct q_page *page = q_pfn_to_page(pfn);
        size_t skip = 1;

        switch (q_page_type_of(page)) {
        case Q_PAGE_BUDDY:
            pfn += (size_t)1 << page->order;
            continue;
        case Q_PAGE_RUN:
        case Q_PAGE_SLAB:
            skip = page->nr;
            break;
        case Q_PAGE_PCP:
            skip = (size_t)1 << page->order;
            break;
        default: /* the tail of a block whose head lies before: in use */
            break;
        }
        skip = q_min(skip > 0 ? skip : 1, end - pfn);
        uintptr_t at = (uintptr_t)q_pfn_to_virt(pfn);
        add_near(r, at, at + (skip << q_page_shift));
        pfn += skip;
    }
}

static void collect_pages(struct q_ranges *r, size_t pfn, size_t end)
{
    size_t per_block = (size_t)1 << q_pageblock_order();

    for (; pfn < end; pfn += per_block) {
        const struct q_pageblock *block = q_pageblock_of(pfn);

        if (block->nr_free == per_block)
            continue;
        if (block->nr_free == 0 || block->huge) {
            uintptr_t at = (uintptr_t)q_pfn_to_virt(pfn);
            add_near(r, at, at + Q_PAGEBLOCK_SIZE);
        } else {
            collect_part(r, pfn, pfn + per_block);
        }
    }
}

static void collect_mapping(void *arg, void *addr, size_t bytes)
{
    q_ranges_add(arg, (uintptr_t)addr, (uintptr_t)addr + bytes);
}

/* Images that were mapped back are part of the heap. */
static void collect_mapped(struct q_ranges *r)
{
    for (const struct q_mapped *m = q_mapped_first(); m != NULL; m = m->next)
        for (size_t i = 0; i < m->ranges.nr; i++)
            q_ranges_add(r, m->ranges.at[i].start, m->ranges.at[i].end);
}

bool q_ranges_collect(struct q_ranges *r)
{
    struct q_vstat st = q_vstat_locked();

    r->nr = r->bytes = 0;
    r->failed = false;
    if (q_mem.sparse) {
        for (size_t s = q_mem.first_section; s < q_mem.end_section; s++) {
            if (q_section_addr(s) == 0)
                continue;
            const struct q_zone *zone = q_mem.section_zone[s];
            size_t pfn = s << Q_SECTION_ORDER, end = pfn + ((size_t)1 << Q_SECTION_ORDER);
            /* The section that is being cut has a part that was never used. */
            if (zone->frontier_end == end)
                end = zone->frontier;
            collect_pages(r, pfn, end);
        }
    } else {
        for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
            for (unsigned type = 0; type < Q_NR_ZONES; type++)
                collect_pages(r, q_nodes[nid]->zones[type].start_pfn,
                              q_nodes[nid]->zones[type].frontier);
    }
    if (st.blocks > 0)
        q_veach(collect_mapping, r);
    collect_mapped(r);
    q_ranges_sort(r);
    return !r->failed;
}

/* A zone up to its frontier, and the pages of the arrays that describe it. */
static void collect_zone(struct q_ranges *r, const struct q_zone *zone)
{
    size_t nr = zone->frontier - zone->start_pfn;
    uintptr_t at = (uintptr_t)q_pfn_to_virt(zone->start_pfn);
    struct q_part part[Q_NR_ARRAYS];

    if (nr == 0)
        return;
    q_ranges_add(r, at, at + (nr << q_page_shift));
    q_mem_parts(zone->start_pfn, nr, part);
    for (unsigned i = 0; i < Q_NR_ARRAYS; i++)
        q_ranges_add(r, q_align_down(part[i].from, q_page_size()),
                     q_align_up(part[i].to, q_page_size()));
}

/* Where the parts of two zones share a page. Sorted before and after. */
static void join_overlaps(struct q_ranges *r)
{
    size_t to = 0;

    for (size_t i = 1; i < r->nr; i++) {
        if (r->at[i].start < r->at[to].end)
            r->at[to].end = q_max(r->at[to].end, r->at[i].end);
        else
            r->at[++to] = r->at[i];
    }
    r->nr = r->nr > 0 ? to + 1 : 0;
    r->bytes = 0;
    for (size_t i = 0; i < r->nr; i++)
        r->bytes += r->at[i].end - r->at[i].start;
}

bool q_ranges_collect_all(struct q_ranges *r)
{
    r->nr = r->bytes = 0;
    r->failed = false;
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            collect_zone(r, &q_nodes[nid]->zones[type]);
    q_veach(collect_mapping, r);
    collect_mapped(r);
    q_ranges_sort(r);
    join_overlaps(r);
    return !r->failed;
}

void q_ranges_sort(struct q_ranges *r)
{
    q_sort_by_start(r->at, r->nr, sizeof(*r->at));
}

size_t q_ranges_after(const struct q_ranges *r, uintptr_t addr)
{
    size_t lo = 0, hi = r->nr;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (r->at[mid].end <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct q_range *q_ranges_find(const struct q_ranges *r, uintptr_t addr)
{
    size_t i = q_ranges_after(r, addr);

    return i < r->nr && r->at[i].start <= addr ? &r->at[i] : NULL;
}

bool q_ranges_touch(const struct q_ranges *r, uintptr_t start, uintptr_t end)
{
    size_t i = q_ranges_after(r, start);

    return i < r->nr && r->at[i].start < end;
}
