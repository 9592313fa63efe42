/*
 * view_zone.c - buddyinfo, pagetypeinfo, zoneinfo, numastat.
 *
 * The layout of each line is that of the kernel's mm/vmstat.c, so that what
 * reads /proc reads this. What a word means here where it means something
 * else there: quire_procfs(3).
 */
#include <errno.h>
#include <string.h>

#include "numa/topology.h"
#include "stat/stat.h"
#include "stat/view.h"
#include "zone/compact.h"
#include "zone/memmap.h"
#include "zone/mmzone.h"
#include "zone/page_alloc.h"
#include "zone/special.h"

/* As the kernel: so many blocks of a list are counted; the lock is not held for more. */
#define COUNT_MAX 100000u

static const char *const types[Q_NR_MOBILITIES] = {"Unmovable", "Movable", "Reclaimable", "Sparse"};

/* A zone as it was at one moment. */
struct zone_copy {
    unsigned node;
    const char *name;
    size_t nr_free[Q_NR_ORDERS], free_pages;
    size_t by_type[Q_NR_MOBILITIES][Q_NR_ORDERS], blocks[Q_NR_MOBILITIES];
    size_t watermark[Q_NR_WMARK];
    size_t spanned, present, managed, start_pfn;
    size_t nr_dirty, nr_alloc, nr_free_calls, nr_steal, nr_given_back, nr_huge_blocks;
};

/* Blocks on the two lists of a mobility. */
static size_t count_lists(const struct q_free_area *area, enum q_mobility mobility)
{
    size_t n = 0;

    for (unsigned fresh = 0; fresh < 2; fresh++) {
        const struct q_list *head = &area->free_list[q_list_index(mobility, fresh)];

        for (const struct q_list *l = head->next; l != NULL && l != head && n < COUNT_MAX;
             l = l->next)
            n++;
    }
    return n;
}

/* Pageblocks of the zone that were ever used, by what they are for. */
static void count_blocks(struct zone_copy *c, size_t pfn, size_t end)
{
    for (; pfn < end; pfn += (size_t)1 << q_pageblock_order())
        c->blocks[q_pageblock_of(pfn)->mobility]++;
}

static void count_types(struct zone_copy *c, const struct q_zone *zone)
{
    for (unsigned type = 0; type < Q_NR_MOBILITIES; type++)
        for (unsigned order = 0; order < Q_NR_ORDERS; order++)
            c->by_type[type][order] = count_lists(&zone->buddy.area[order], type);
    if (!q_mem.sparse) {
        count_blocks(c, zone->start_pfn, zone->frontier);
        return;
    }
    for (size_t s = q_mem.first_section; s < q_mem.end_section; s++)
        if (q_section_addr(s) != 0 && q_mem.section_zone[s] == zone)
            count_blocks(c, s << Q_SECTION_ORDER, (s + 1) << Q_SECTION_ORDER);
}

static void copy_zone(struct zone_copy *c, struct q_zone *zone, bool with_types)
{
    memset(c, 0, sizeof(*c));
    c->node = q_topology.kernel_id[zone->nid];
    c->name = q_zone_names[zone->type];
    q_lock(&zone->lock);
    q_zone_settle(zone);
    for (unsigned order = 0; order < Q_NR_ORDERS; order++)
        c->nr_free[order] = zone->buddy.area[order].nr_free;
    c->free_pages = zone->buddy.nr_free_pages;
    memcpy(c->watermark, zone->watermark, sizeof(c->watermark));
    /* In the sparse model a zone spans what it has. */
    c->spanned = q_max(zone->spanned_pages, zone->present_pages);
    c->present = zone->present_pages;
    c->managed = zone->present_pages - (zone->frontier_end - zone->frontier);
    c->start_pfn = zone->start_pfn;
    c->nr_dirty = zone->nr_dirty;
    c->nr_alloc = zone->nr_alloc;
    c->nr_free_calls = zone->nr_free_calls;
    c->nr_steal = zone->nr_steal;
    c->nr_given_back = zone->nr_given_back;
    c->nr_huge_blocks = zone->nr_huge_blocks;
    if (with_types)
        count_types(c, zone);
    q_unlock(&zone->lock);
}

/* The special zones have neither kinds nor frames in a row. The node says nothing. */
static void copy_special(struct zone_copy *c, unsigned kind)
{
    struct q_special_zone *zone = &q_special_zones[kind];

    memset(c, 0, sizeof(*c));
    c->node = q_topology.kernel_id[0];
    c->name = q_special_ops[kind]->name;
    q_lock(&zone->lock);
    for (unsigned order = 0; order < Q_NR_ORDERS; order++)
        c->nr_free[order] = c->by_type[Q_UNMOVABLE][order] = zone->buddy.area[order].nr_free;
    c->free_pages = zone->buddy.nr_free_pages;
    c->spanned = c->present = c->managed = zone->present_pages;
    c->nr_dirty = zone->nr_written;
    c->nr_alloc = zone->nr_alloc;
    c->nr_free_calls = zone->nr_free_calls;
    c->nr_given_back = zone->nr_given_back;
    q_unlock(&zone->lock);
    c->blocks[Q_UNMOVABLE] = c->present >> q_pageblock_order();
    c->start_pfn = q_mem.max_pages;
}

/* Call fn for each zone that has memory, as the kernel does for its populated ones. */
static void each_zone(struct q_view *v, bool with_types,
                      void (*fn)(struct q_view *v, const struct zone_copy *c, struct q_zone *zone))
{
    struct zone_copy c;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            copy_zone(&c, &q_nodes[nid]->zones[type], with_types);
            if (c.present > 0)
                fn(v, &c, &q_nodes[nid]->zones[type]);
        }
    }
    for (unsigned kind = 0; kind < Q_NR_SPECIAL; kind++) {
        copy_special(&c, kind);
        if (c.present > 0)
            fn(v, &c, NULL);
    }
}

static void json_zone(struct q_view *v, const struct zone_copy *c)
{
    q_view_next(v);
    q_buf_printf(&v->out, "{\"node\":%u,\"zone\":\"%s\"", c->node, c->name);
}

static void json_array(struct q_view *v, const char *name, const size_t *n, unsigned nr)
{
    q_buf_printf(&v->out, ",\"%s\":[", name);
    for (unsigned i = 0; i < nr; i++)
        q_buf_printf(&v->out, "%s%zu", i > 0 ? "," : "", n[i]);
    q_buf_printf(&v->out, "]");
}

static void json_number(struct q_view *v, const char *name, size_t n)
{
    q_buf_printf(&v->out, ",\"%s\":%zu", name, n);
}

static void buddy_line(struct q_view *v, const struct zone_copy *c, struct q_zone *zone)
{
    if (v->json) {
        json_zone(v, c);
        json_array(v, "free", c->nr_free, Q_NR_ORDERS);
        q_buf_printf(&v->out, "}");
        return;
    }
    q_buf_printf(&v->out, "Node %d, zone %8s ", (int)c->node, c->name);
    for (unsigned order = 0; order < Q_NR_ORDERS; order++)
        q_buf_printf(&v->out, "%6zu ", c->nr_free[order]);
    q_buf_printf(&v->out, "\n");
}

/* One line for each zone. */
static int lines(struct q_view *v,
                 void (*fn)(struct q_view *v, const struct zone_copy *c, struct q_zone *zone))
{
    q_buf_printf(&v->out, v->json ? "[" : "");
    each_zone(v, false, fn);
    q_buf_printf(&v->out, v->json ? "]\n" : "");
    return 0;
}

int q_view_buddyinfo(struct q_view *v)
{
    return lines(v, buddy_line);
}

/* An index in thousandths for each order, as the kernel prints them. */
static void index_line(struct q_view *v, const struct zone_copy *c,
                       int (*fn)(const size_t nr_free[Q_NR_ORDERS], unsigned order))
{
    if (v->json)
        json_zone(v, c);
    q_buf_printf(&v->out, v->json ? ",\"index\":[" : "Node %d, zone %8s ", (int)c->node, c->name);
    for (unsigned order = 0; order < Q_NR_ORDERS; order++) {
        int index = fn(c->nr_free, order);
        unsigned size = (unsigned)(index < 0 ? -index : index);

        q_buf_printf(&v->out, v->json ? "%s%s%u.%03u" : "%s%s%u.%03u ",
                     v->json && order > 0 ? "," : "",
                     index < 0 ? "-"
                     : v->json ? ""
                               : " ",
                     size / 1000, size % 1000);
    }
    q_buf_printf(&v->out, v->json ? "]}" : "\n");
}

static void extfrag_line(struct q_view *v, const struct zone_copy *c, struct q_zone *zone)
{
    index_line(v, c, q_fragmentation_index);
}

static void unusable_line(struct q_view *v, const struct zone_copy *c, struct q_zone *zone)
{
    index_line(v, c, q_unusable_index);
}

int q_view_extfrag(struct q_view *v)
{
    return lines(v, extfrag_line);
}

int q_view_unusable(struct q_view *v)
{
    return lines(v, unusable_line);
}

static void free_by_type(struct q_view *v, const struct zone_copy *c, struct q_zone *zone)
{
    for (unsigned type = 0; type < Q_NR_MOBILITIES; type++) {
        if (v->json) {
            json_zone(v, c);
            q_buf_printf(&v->out, ",\"type\":\"%s\"", types[type]);
            json_array(v, "free", c->by_type[type], Q_NR_ORDERS);
            q_buf_printf(&v->out, "}");
            continue;
        }
        q_buf_printf(&v->out, "Node %4d, zone %8s, type %12s ", (int)c->node, c->name, types[type]);
        for (unsigned order = 0; order < Q_NR_ORDERS; order++) {
            size_t n = c->by_type[type][order];

            if (n >= COUNT_MAX)
                q_buf_printf(&v->out, ">");
            q_buf_printf(&v->out, "%6zu ", n);
        }
        q_buf_printf(&v->out, "\n");
    }
}

static void blocks_by_type(struct q_view *v, const struct zone_copy *c, struct q_zone *zone)
{
    if (v->json) {
        json_zone(v, c);
        for (unsigned type = 0; type < Q_NR_MOBILITIES; type++)
            json_number(v, types[type], c->blocks[type]);
        q_buf_printf(&v->out, "}");
        return;
    }
    q_buf_printf(&v->out, "Node %d, zone %8s ", (int)c->node, c->name);
    for (unsigned type = 0; type < Q_NR_MOBILITIES; type++)
        q_buf_printf(&v->out, "%12zu ", c->blocks[type]);
    q_buf_printf(&v->out, "\n");
}

static void pagetype_text(struct q_view *v)
{
    q_buf_printf(&v->out, "Page block order: %u\nPages per block:  %zu\n\n", q_pageblock_order(),
                 (size_t)1 << q_pageblock_order());
    q_buf_printf(&v->out, "%-43s ", "Free pages count per migrate type at order");
    for (int order = 0; order < Q_NR_ORDERS; order++)
        q_buf_printf(&v->out, "%6d ", order);
    q_buf_printf(&v->out, "\n");
    each_zone(v, true, free_by_type);
    q_buf_printf(&v->out, "\n%-23s", "Number of blocks type ");
    for (unsigned type = 0; type < Q_NR_MOBILITIES; type++)
        q_buf_printf(&v->out, "%12s ", types[type]);
    q_buf_printf(&v->out, "\n");
    each_zone(v, true, blocks_by_type);
}

int q_view_pagetypeinfo(struct q_view *v)
{
    if (!v->json) {
        pagetype_text(v);
        return 0;
    }
    q_buf_printf(&v->out, "{\"page_block_order\":%u,\"pages_per_block\":%zu,\"free\":[",
                 q_pageblock_order(), (size_t)1 << q_pageblock_order());
    each_zone(v, true, free_by_type);
    q_buf_printf(&v->out, "],\"blocks\":[");
    v->comma = false;
    each_zone(v, true, blocks_by_type);
    q_buf_printf(&v->out, "]}\n");
    return 0;
}

/* The counters that follow "protection", by the names they have there or here. */
static void zone_stats(struct q_view *v, const struct zone_copy *c)
{
    const struct {
        const char *name;
        size_t n;
    } stats[] = {
        {"nr_free_pages", c->free_pages},
        {"nr_free_resident", c->nr_dirty},
        {"nr_free_resident_max", c->watermark[Q_WMARK_MAX]},
        {"nr_given_back", c->nr_given_back},
        {"nr_huge_blocks", c->nr_huge_blocks},
        {"pgalloc", c->nr_alloc},
        {"pgfree", c->nr_free_calls},
        {"pageblocks_stolen", c->nr_steal},
    };

    for (unsigned i = 0; i < sizeof(stats) / sizeof(stats[0]); i++) {
        if (v->json)
            json_number(v, stats[i].name, stats[i].n);
        else
            q_buf_printf(&v->out, "\n      %-12s %zu", stats[i].name, stats[i].n);
    }
}

static void pagesets(struct q_view *v, struct q_zone *zone)
{
    q_buf_printf(&v->out, v->json ? ",\"pagesets\":[" : "\n  pagesets");
    for (unsigned cpu = 0; zone != NULL && cpu < q_topology.nr_cpus; cpu++) {
        struct q_pcp *pcp = &zone->pcp[cpu];

        q_lock(&pcp->lock);
        unsigned count = pcp->count, high = pcp->high;
        q_unlock(&pcp->lock);
        if (v->json)
            q_buf_printf(&v->out, "%s{\"cpu\":%u,\"count\":%u,\"high\":%u}", cpu > 0 ? "," : "",
                         cpu, count, high);
        else
            q_buf_printf(&v->out,
                         "\n    cpu: %u\n              count:    %u\n              high:     %u",
                         cpu, count, high);
    }
}

static void zone_json(struct q_view *v, const struct zone_copy *c, struct q_zone *zone)
{
    json_zone(v, c);
    json_number(v, "free", c->free_pages);
    json_number(v, "min", c->watermark[Q_WMARK_MIN]);
    json_number(v, "low", c->watermark[Q_WMARK_LOW]);
    json_number(v, "high", c->watermark[Q_WMARK_HIGH]);
    json_number(v, "spanned", c->spanned);
    json_number(v, "present", c->present);
    json_number(v, "managed", c->managed);
    zone_stats(v, c);
    json_number(v, "start_pfn", c->start_pfn);
    pagesets(v, zone);
    q_buf_printf(&v->out, "]}");
}

static void zone_lines(struct q_view *v, const struct zone_copy *c, struct q_zone *zone)
{
    if (v->json) {
        zone_json(v, c, zone);
        return;
    }
    q_buf_printf(&v->out, "Node %d, zone %8s", (int)c->node, c->name);
    q_buf_printf(&v->out,
                 "\n  pages free     %zu\n        boost    0\n        min      %zu"
                 "\n        low      %zu\n        high     %zu\n        spanned  %zu"
                 "\n        present  %zu\n        managed  %zu\n        cma      0",
                 c->free_pages, c->watermark[Q_WMARK_MIN], c->watermark[Q_WMARK_LOW],
                 c->watermark[Q_WMARK_HIGH], c->spanned, c->present, c->managed);
    q_buf_printf(&v->out, "\n        protection: (0, 0)");
    zone_stats(v, c);
    pagesets(v, zone);
    q_buf_printf(&v->out, "\n  node_unreclaimable:  0\n  start_pfn:           %zu\n", c->start_pfn);
}

int q_view_zoneinfo(struct q_view *v)
{
    return lines(v, zone_lines);
}

static const char *const numa_names[Q_NR_NUMASTAT] = {
    "numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node",
};

static void numastat_json(struct q_view *v)
{
    size_t n[Q_NR_NUMASTAT];

    q_buf_printf(&v->out, "[");
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        q_view_next(v);
        q_buf_printf(&v->out, "{\"node\":%u", q_topology.kernel_id[nid]);
        q_stat_numa(nid, n);
        for (unsigned i = 0; i < Q_NR_NUMASTAT; i++)
            json_number(v, numa_names[i], n[i]);
        q_buf_printf(&v->out, "}");
    }
    q_buf_printf(&v->out, "]\n");
}

/* One node: the file of that node. Several: side by side, as numastat(8) shows these files. */
int q_view_numastat(struct q_view *v)
{
    unsigned nr = q_topology.nr_nodes;
    size_t n[Q_NR_NUMASTAT];

    if (v->json) {
        numastat_json(v);
        return 0;
    }
    if (nr > 1)
        q_buf_printf(&v->out, "%-16s", "");
    for (unsigned nid = 0; nr > 1 && nid < nr; nid++)
        q_buf_printf(&v->out, q_topology.kernel_id[nid] < 10 ? "%11s%s%u" : "%10s%s%u", " ", "node",
                     q_topology.kernel_id[nid]);
    q_buf_printf(&v->out, nr > 1 ? "\n" : "");
    for (unsigned i = 0; i < Q_NR_NUMASTAT; i++) {
        q_buf_printf(&v->out, nr > 1 ? "%-16s" : "%s", numa_names[i]);
        for (unsigned nid = 0; nid < nr; nid++) {
            q_stat_numa(nid, n);
            q_buf_printf(&v->out, nr > 1 ? "%16zu" : " %zu", n[i]);
        }
        q_buf_printf(&v->out, "\n");
    }
    return 0;
}
