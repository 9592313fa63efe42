/* zones.c - zonelists and their fallback, stealing of pageblocks, huge pages. */
#include "core.h"

#define LARGEST ((size_t)1 << Q_MAX_ORDER)
#define MAX_PAGES 4096

static unsigned nid_of(const struct q_page *page)
{
    return q_pfn_zone(q_page_to_pfn(page))->nid;
}

static unsigned type_of(const struct q_page *page)
{
    return q_pfn_zone(q_page_to_pfn(page))->type;
}

#define ZONE_BLOCKS 16

/* Four nodes of which each has so many largest blocks per zone. */
static void start_small(void)
{
    q_opt.window = 4 * Q_NR_ZONES * ZONE_BLOCKS * q_max_block_size();
    core_start(CORE_NUMA);
    must_eq(q_mem.max_pages, 4 * Q_NR_ZONES * ZONE_BLOCKS * LARGEST);
    core_grow_up();
}

Test(zones, zonelists_name_every_zone_once_nearest_first)
{
    core_start(CORE_NUMA);
    for (unsigned nid = 0; nid < 4; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            struct q_zone **list = q_nodes[nid]->zonelist[type];
            bool seen[4][Q_NR_ZONES] = {{false}};
            unsigned n = 0, far = 0;

            must(list[0] == core_zone(nid, type));
            must(list[1] == core_zone(nid, !type));
            for (; list[n] != NULL; n++) {
                must(!seen[list[n]->nid][list[n]->type]);
                seen[list[n]->nid][list[n]->type] = true;
                /* On every node the wanted type stands before the other; distances never fall. */
                must(n % 2 == 1 || list[n]->type == type);
                must(n % 2 == 0 || list[n]->nid == list[n - 1]->nid);
                must(q_topology.distance[nid][list[n]->nid] >= far);
                far = q_topology.distance[nid][list[n]->nid];
            }
            must_eq(n, 4 * Q_NR_ZONES);
        }
    }
}

Test(zones, requests_go_to_the_node_and_zone_they_ask_for)
{
    core_start(CORE_NUMA);
    core_grow_up();
    for (unsigned i = 0; i < 400; i++) {
        unsigned nid = i % 4, movable = i / 4 % 2;
        struct q_page *page =
            q_alloc_pages_node(nid, movable ? Q_GFP_MOVABLE : Q_GFP_KERNEL, i % 6);

        must(page != NULL);
        must_eq(nid_of(page), nid);
        must_eq(type_of(page), movable ? Q_ZONE_MOVABLE : Q_ZONE_NORMAL);
        core_stamp(q_page_address(page), page->nr, i);
    }
    core_check();
}

Test(zones, full_zones_fall_back_to_the_other_then_to_other_nodes)
{
    static struct q_page *page[8 * ZONE_BLOCKS];

    start_small();
    /* Node 2: first the zone asked for, then the other one, the rest from elsewhere. */
    for (unsigned i = 0; i < 8 * ZONE_BLOCKS; i++) {
        page[i] = q_alloc_pages_node(2, Q_GFP_MOVABLE, Q_MAX_ORDER);
        must(page[i] != NULL);
        if (i < 2 * ZONE_BLOCKS) {
            must_eq(nid_of(page[i]), 2);
            must_eq(type_of(page[i]), i < ZONE_BLOCKS ? Q_ZONE_MOVABLE : Q_ZONE_NORMAL);
        } else {
            must(nid_of(page[i]) != 2);
        }
        /* One node after the other, not scattered. */
        if (i >= 2 * ZONE_BLOCKS && i % (2 * ZONE_BLOCKS) != 0)
            must_eq(nid_of(page[i]), nid_of(page[i - 1]));
    }
    for (unsigned nid = 0; nid < 4; nid++) {
        must(q_alloc_pages_node(nid, Q_GFP_KERNEL, 0) == NULL);
        must(q_alloc_pages_node(nid, Q_GFP_MOVABLE | Q_GFP_THISNODE, 0) == NULL);
    }
    must_eq(q_pages_in_use, q_mem.max_pages);
    core_check();
    /* What is freed on one node serves the others. */
    q_free_run(page[0]);
    must(q_alloc_pages_node(1, Q_GFP_KERNEL | Q_GFP_THISNODE, 0) == NULL);
    struct q_page *far = q_alloc_pages_node(1, Q_GFP_KERNEL, 0);
    must(far != NULL && nid_of(far) == 2);
    core_check();
}

Test(zones, thisnode_does_not_leave_the_node)
{
    start_small();
    for (unsigned i = 0; i < 2 * ZONE_BLOCKS; i++) {
        struct q_page *page = q_alloc_pages_node(3, Q_GFP_KERNEL | Q_GFP_THISNODE, Q_MAX_ORDER);
        must(page != NULL && nid_of(page) == 3);
    }
    must(q_alloc_pages_node(3, Q_GFP_KERNEL | Q_GFP_THISNODE, Q_MAX_ORDER) == NULL);
    must(q_alloc_pages_node(3, Q_GFP_MOVABLE | Q_GFP_THISNODE, 0) == NULL);
    must_eq(q_pages_in_use, 2 * ZONE_BLOCKS * LARGEST);
    must(q_alloc_pages_node(3, Q_GFP_KERNEL, 0) != NULL);
}

/* One node; take all there is as unmovable pages. */
static size_t take_everything(struct q_page **page)
{
    size_t n = 0;

    q_opt.window = Q_NR_ZONES * ZONE_BLOCKS * q_max_block_size();
    core_start(CORE_FLAT);
    while ((page[n] = q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER)) != NULL)
        n++;
    must_eq(n, Q_NR_ZONES * ZONE_BLOCKS);
    return n;
}

static unsigned mobility_at(const struct q_page *page)
{
    return q_pageblock_of(q_page_to_pfn(page))->mobility;
}

/* A whole free pageblock changes hands, with all that is in it. */
Test(zones, whole_pageblocks_are_stolen)
{
    struct q_page *page[Q_NR_ZONES * ZONE_BLOCKS + 1];

    take_everything(page);
    struct q_zone *zone = q_pfn_zone(q_page_to_pfn(page[0]));
    must_eq(mobility_at(page[0]), Q_UNMOVABLE);
    size_t steals = zone->nr_steal;
    q_free_run(page[0]);
    struct q_page *small = q_alloc_run(Q_GFP_MOVABLE, 3);
    must(small == page[0] || q_pfn_zone(q_page_to_pfn(small)) == zone);
    must_eq(zone->nr_steal, steals + 1);
    for (size_t pfn = q_page_to_pfn(page[0]); pfn < q_page_to_pfn(page[0]) + LARGEST;
         pfn += (size_t)1 << q_pageblock_order())
        must_eq(q_pageblock_of(pfn)->mobility, Q_MOVABLE);
    /* The next one needs no theft. */
    must(q_alloc_run(Q_GFP_MOVABLE, 3) != NULL);
    must_eq(zone->nr_steal, steals + 1);
    core_check();
}

/* A pageblock that is mostly free goes over even if a part of it is in use. */
Test(zones, mostly_free_pageblocks_are_stolen)
{
    struct q_page *page[Q_NR_ZONES * ZONE_BLOCKS + 1];
    size_t per_block = (size_t)1 << q_pageblock_order();

    take_everything(page);
    q_shrink_run(page[0], LARGEST - per_block + per_block / 4);
    struct q_page *at = page[0] + (LARGEST - per_block);
    must_eq(mobility_at(at), Q_UNMOVABLE);
    must(q_alloc_run(Q_GFP_MOVABLE, 1) != NULL);
    must_eq(mobility_at(at), Q_MOVABLE);
    must_eq(mobility_at(page[0]), Q_UNMOVABLE);
    core_check();
}

/* One that is mostly in use keeps its kind; only the block that is needed moves. */
Test(zones, mostly_used_pageblocks_keep_their_kind)
{
    struct q_page *page[Q_NR_ZONES * ZONE_BLOCKS + 1];
    size_t per_block = (size_t)1 << q_pageblock_order();

    take_everything(page);
    q_shrink_run(page[0], LARGEST - per_block / 4);
    struct q_page *at = page[0] + (LARGEST - per_block);
    struct q_page *one = q_alloc_run(Q_GFP_MOVABLE, 1);
    must(one != NULL);
    must_eq(mobility_at(at), Q_UNMOVABLE);
    core_check();
    q_free_run(one);
    core_check();
    must_eq(core_free_pages(), per_block / 4);
}

/* In a heap that is not small kinds stay apart while there is room: no pageblock holds two. */
Test(zones, kinds_do_not_share_pageblocks)
{
    static struct q_page *page[MAX_PAGES];
    static const q_gfp_t kinds[] = {Q_GFP_KERNEL, Q_GFP_RECLAIMABLE};
    struct rng r = rng_new(20);

    core_start(CORE_FLAT);
    core_grow_up();
    for (size_t i = 0; i < MAX_PAGES; i++) {
        page[i] = q_alloc_run(kinds[i % 2], 1 + rng_below(&r, 8));
        must(page[i] != NULL);
    }
    for (size_t i = 0; i < MAX_PAGES; i++)
        must_eq(mobility_at(page[i]), i % 2 ? Q_RECLAIMABLE : Q_UNMOVABLE);
    core_check();
}

static size_t huge_blocks(void)
{
    return core_zone(0, 0)->nr_huge_blocks + core_zone(0, 1)->nr_huge_blocks;
}

static void fill_100_mib(void)
{
    for (size_t n = 0; n < 25; n++)
        must(q_alloc_pages(Q_GFP_MOVABLE, Q_MAX_ORDER) != NULL);
}

/* A small heap has none, whatever the option. */
Test(zones, small_heaps_have_no_huge_pages)
{
    core_start(CORE_FLAT);
    must(q_alloc_pages(Q_GFP_KERNEL, 0) != NULL);
    must(q_alloc_pages(Q_GFP_MOVABLE, 0) != NULL);
    must_eq(huge_blocks(), 0);
}

Test(zones, huge_pages_off)
{
    q_opt.huge = Q_HUGE_OFF;
    core_start(CORE_FLAT);
    fill_100_mib();
    must_eq(huge_blocks(), 0);
}

Test(zones, huge_pages_on)
{
    q_opt.huge = Q_HUGE_ON;
    core_start(CORE_FLAT);
    must(q_alloc_pages(Q_GFP_MOVABLE, 0) != NULL);
    if (!q_mem.thp_never)
        must(huge_blocks() > 0);
}
