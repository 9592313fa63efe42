/* stat.c - see stat.h: reading the counters. */
#include "stat/stat.h"

#include <string.h>

#include "numa/topology.h"
#include "slab/holes.h"
#include "zone/page_alloc.h"

static void read_slab(struct q_stat *st, const struct q_slab *s)
{
    struct q_class_stat *c = &st->cls[s->cls];
    size_t size = q_slab_class(s)->size;
    uint64_t w = atomic_load_explicit(&((struct q_slab *)s)->remote, memory_order_relaxed);
    size_t used = q_remote_owner(w) != 0 ? q_slab_used(s) : s->carved;
    size_t absent = q_min(q_slab_absent(s), s->carved);
    size_t there = s->carved - absent; /* what is absent holds no memory */
    size_t live = q_min(used - q_min(used, absent + q_remote_count(w)), there);

    c->slabs++;
    c->live += live;
    c->free += there - live;
    st->slab_live_bytes += live * size;
    st->slab_free_bytes += (there - live) * size;
    st->slab_free_objs += there - live;
    st->slab_bytes += Q_SLAB_SIZE;
}

/* Walk the heads of blocks in the used part of a zone. */
static void read_pages(struct q_stat *st, size_t from, size_t to)
{
    for (size_t pfn = from; pfn < to;) {
        const struct q_page *page = q_pfn_to_page(pfn);
        size_t skip = 1;

        if (q_page_type_of(page) == Q_PAGE_SLAB) {
            const struct q_slab *s = q_slab_at((uint32_t)(pfn >> q_slab_order()) + 1);
            if (s->in_use)
                read_slab(st, s);
            skip = (size_t)1 << q_slab_order();
        } else if (q_page_type_of(page) == Q_PAGE_RUN) {
            st->run_bytes += (size_t)page->nr << q_page_shift;
            st->runs++;
            skip = page->nr;
        } else if (q_page_type_of(page) == Q_PAGE_BUDDY || q_page_type_of(page) == Q_PAGE_PCP) {
            skip = (size_t)1 << page->order;
        }
        pfn += skip > 0 ? skip : 1;
    }
}

static void read_zone(struct q_stat *st, struct q_zone *zone)
{
    q_lock(&zone->lock);
    q_zone_settle(zone);
    if (!q_mem.sparse) {
        read_pages(st, zone->start_pfn, zone->frontier);
        st->mapped_bytes += (zone->frontier - zone->start_pfn) << q_page_shift;
    } else {
        st->mapped_bytes += zone->present_pages << q_page_shift;
    }
    for (unsigned order = 0; order < Q_NR_ORDERS; order++)
        st->free_blocks += zone->buddy.area[order].nr_free;
    st->dirty_bytes += zone->nr_dirty << q_page_shift;
    st->given_back_bytes += zone->nr_given_back << q_page_shift;
    st->huge_bytes += zone->nr_huge_blocks * Q_PAGEBLOCK_SIZE;
    q_unlock(&zone->lock);
}

/* Objects on chains were counted as live. */
static void subtract_chains(struct q_stat *st)
{
    uint32_t nr = atomic_load_explicit(&q_nr_heaps, memory_order_acquire);

    for (uint32_t id = 1; id <= nr; id++) {
        const struct q_heap *heap = q_heaps[id];

        for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
            /* Only our own chains hold still while we walk them. */
            size_t waiting = heap == q_heap ? q_chain_length(heap->chain[c]) : 0;
            size_t bytes = waiting * q_classes[c].size;

            st->cls[c].allocated += heap->bin[c].handed - waiting;
            st->cls[c].live -= q_min(waiting, st->cls[c].live);
            st->cls[c].free += waiting;
            st->slab_live_bytes -= q_min(bytes, st->slab_live_bytes);
            st->slab_free_bytes += bytes;
            st->slab_free_objs += waiting;
        }
    }
}

void q_stat_read(struct q_stat *st)
{
    memset(st, 0, sizeof(*st));
    if (!q_slub_init())
        return;
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            read_zone(st, &q_nodes[nid]->zones[type]);
    for (size_t s = q_mem.first_section; s < q_mem.end_section; s++)
        if (q_section_addr(s) != 0)
            read_pages(st, s << Q_SECTION_ORDER, (s + 1) << Q_SECTION_ORDER);
    subtract_chains(st);
    q_vstat(&st->large);
    st->meta_bytes = atomic_load_explicit(&q_mem.meta_bytes, memory_order_relaxed);
}

void q_stat_numa(unsigned nid, size_t n[Q_NR_NUMASTAT])
{
    size_t c[Q_NR_NUMA_STATS];

    for (unsigned i = 0; i < Q_NR_NUMA_STATS; i++)
        c[i] = atomic_load_explicit(&q_nodes[nid]->numa[i], memory_order_relaxed);
    n[0] = c[Q_STAT_HIT_LOCAL] + c[Q_STAT_HIT_OTHER];
    n[1] = c[Q_STAT_MISS_LOCAL] + c[Q_STAT_MISS_OTHER];
    n[2] = c[Q_STAT_FOREIGN];
    n[3] = c[Q_STAT_INTERLEAVE];
    n[4] = c[Q_STAT_HIT_LOCAL] + c[Q_STAT_MISS_LOCAL];
    n[5] = c[Q_STAT_HIT_OTHER] + c[Q_STAT_MISS_OTHER];
}
