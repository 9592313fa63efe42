/* reclaim.c - see reclaim.h. */
#include "zone/reclaim.h"

#include "base/opt.h"
#include "numa/topology.h"
#include "zone/hold.h"
#include "zone/linear.h"
#include "zone/page_alloc.h"
#include "zone/pageblock.h"

#define TICK_MS 50u                       /* at most one look in this time */
#define FORGET_MS 2000u                   /* what was missed before is no hint any more */
#define BLOCKS_PER_TICK 64u               /* bounds the time under the lock */
#define FLOOR_BYTES ((size_t)256 << 10)   /* free memory up to this never goes */
#define EAGER_BYTES ((size_t)256 << 10)   /* nor does it at once up to this, */
#define EAGER_SHARE 8                     /* this part of what is in use, */
#define KEEP_BYTES ((size_t)32 << 20)     /* and so much of the runs in use lately */
#define MISSED_SHARE 8                    /* and this part more, where it was missed */
#define KEPT_SHARE 32                     /* by so much more it must be, where it had to stay */
#define PART_MIN_BYTES ((size_t)64 << 10) /* smaller pieces are not worth a system call */
#define MAX_APART 4096u                   /* of the 65530 mappings that a process may have */

/* Pages of slabs in use: only what objects were carved from counts. */
static size_t slab_pages(const struct q_zone *zone)
{
    size_t used = q_mem.sparse ? zone->present_pages : zone->frontier - zone->start_pfn;

    used -= q_min(used, zone->buddy.nr_free_pages + zone->nr_run_pages);
    return q_min(used, atomic_load_explicit(&q_pages_carved, memory_order_relaxed));
}

static void set_peaks(struct q_zone *zone)
{
    zone->slab_peak = q_max(slab_pages(zone), zone->slab_peak);
    zone->run_peak = q_max(zone->nr_run_pages, zone->run_peak);
}

/*
 * Pages that a zone may keep resident for its next needs. What was in use
 * lately and is not now may be wanted again. Of slabs half of that is kept:
 * free slabs fit what is wanted next only in part. Of runs a little is kept
 * whole, so that a program that allocates and frees the same large block
 * again and again does not pay for its pages each time. What went and was
 * missed at once (compare refaults in the kernel's mm/workingset.c), again and
 * again and not in passing from one phase to the next, is kept then, a little
 * of it, as long as it is hardly more than was in use lately.
 */
static void set_watermarks(struct q_zone *zone)
{
    size_t slabs = slab_pages(zone), used = slabs + zone->nr_run_pages;
    size_t floor = FLOOR_BYTES >> q_page_shift;
    /* Other threads may have carved since the peak was set. */
    size_t slabs_lately = zone->slab_peak - q_min(slabs, zone->slab_peak);
    size_t runs_lately = zone->run_peak - zone->nr_run_pages;
    size_t kept =
        slabs_lately / 2 + q_max(q_min(runs_lately, KEEP_BYTES >> q_page_shift), runs_lately / 2);
    size_t lately = slabs_lately + runs_lately;
    size_t again = zone->nr_missed - q_min(zone->nr_missed, lately);
    size_t missed =
        q_min(q_min(again, KEEP_BYTES >> q_page_shift), lately - kept + lately / MISSED_SHARE);

    zone->watermark[Q_WMARK_MIN] = floor;
    zone->watermark[Q_WMARK_LOW] = floor + used / 64;
    zone->watermark[Q_WMARK_HIGH] = floor + used / 32;
    zone->watermark[Q_WMARK_MAX] =
        (EAGER_BYTES >> q_page_shift) + used / EAGER_SHARE + kept + missed;
}

/* Whether no page of a free block that spans whole pageblocks holds memory. */
static bool all_clean(size_t pfn, size_t nr)
{
    for (size_t end = pfn + nr; pfn < end; pfn += (size_t)1 << q_pageblock_order())
        if (q_pageblock_of(pfn)->nr_dirty > 0)
            return false;
    return true;
}

/* The head of a free block above the size of a pageblock that holds pfn; else pfn. */
static size_t block_head(size_t pfn)
{
    for (unsigned order = Q_MAX_ORDER; order > q_pageblock_order(); order--) {
        size_t head = q_align_down(pfn, (size_t)1 << order);

        if (q_page_is_free(q_pfn_to_page(head)) && q_pfn_to_page(head)->order == order)
            return head;
    }
    return pfn;
}

/*
 * Under a limit what is free counts by whether it holds memory. In a huge page
 * all of it does, and of one that was given back the kernel may make all
 * resident again, when a page of it is touched or by itself (khugepaged). So
 * such a block is one of small pages from then on. Each is a mapping of its
 * own, so not too many; beyond that, as without a limit, it is not exact.
 */
static void no_longer_huge(struct q_zone *zone, size_t pfn, size_t end)
{
    for (; pfn < end; pfn += (size_t)1 << q_pageblock_order()) {
        size_t first = q_align_down(pfn, (size_t)1 << q_pageblock_order());
        struct q_pageblock *block = q_pageblock_of(first);

        if (!block->huge || zone->nr_apart >= MAX_APART ||
            q_madvise(q_pfn_to_virt(first), Q_PAGEBLOCK_SIZE, MADV_NOHUGEPAGE) != 0)
            continue;
        block->apart = 1;
        zone->nr_apart++;
        block->huge = 0;
        zone->nr_huge_blocks--;
    }
    q_mem_reshape();
}

static void give_back(struct q_zone *zone, size_t pfn, size_t nr)
{
    if (q_held(q_pfn_to_virt(pfn), nr << q_page_shift))
        return; /* a snapshot shows it: goes when that is released */
    if (q_linear_discard(q_pfn_to_virt(pfn), nr << q_page_shift) != 0)
        return; /* locked memory (mlockall), or shared with children: so is what we know of it */
    size_t before = zone->nr_dirty, from = pfn, end = pfn + nr;
    if (q_opt.limit != 0)
        no_longer_huge(zone, pfn, end);
    q_pageblock_cleaned(zone, pfn, nr);
    zone->nr_given_back += before - zone->nr_dirty;
    pfn = block_head(pfn);
    while (pfn < end) {
        struct q_page *page = q_pfn_to_page(pfn);
        size_t len = q_page_is_free(page) ? (size_t)1 << page->order : 1;

        /* A block that reaches beyond what was given back stays where it is. */
        if (q_page_is_free(page) && ((pfn >= from && pfn + len <= end) || all_clean(pfn, len)))
            q_buddy_freshen(&zone->buddy, page);
        pfn += len;
    }
}

static size_t block_pfn(const struct q_pageblock *block)
{
    return (size_t)(block - q_mem.pageblocks) << q_pageblock_order();
}

/* Offer the kernel what is free and resident in one block. False where nothing is large enough. */
static bool reclaim_block(struct q_zone *zone, struct q_pageblock *block, size_t min_bytes)
{
    size_t per_block = (size_t)1 << q_pageblock_order();
    size_t pfn = block_pfn(block), end = pfn + per_block, nr;
    bool offered = false;

    if (block->nr_free == per_block) {
        give_back(zone, pfn, per_block);
        return true;
    }
    while (pfn < end && q_pageblock_next_dirty(&pfn, &nr)) {
        if (nr << q_page_shift >= min_bytes) {
            give_back(zone, pfn, nr);
            offered = true;
        }
        pfn += nr;
    }
    return offered;
}

/*
 * One pass over the dirty list, oldest first; blocks that were not due or
 * kept something stay in place. `whole_only` passes over blocks in part use.
 * A pass over what is due (age_ms) is short: what it offers in vain goes to
 * the end, so that the next one offers something else.
 */
static void reclaim_pass(struct q_zone *zone, uint32_t now, uint32_t age_ms, size_t keep,
                         bool whole_only, size_t min_bytes)
{
    size_t per_block = (size_t)1 << q_pageblock_order();
    struct q_list *l = zone->dirty.next, *last = zone->dirty.prev, *next;
    unsigned work = 0;

    for (bool end = l == NULL || l == &zone->dirty; !end && zone->nr_dirty > keep; l = next) {
        struct q_pageblock *block = q_container_of(l, struct q_pageblock, dirty);
        size_t before = zone->nr_dirty;

        end = l == last || (age_ms > 0 && work >= BLOCKS_PER_TICK);
        next = l->next;
        if ((age_ms > 0 && now - block->stamp_ms < age_ms) ||
            (whole_only && block->nr_free < per_block) || !reclaim_block(zone, block, min_bytes))
            continue;
        work++;
        if (age_ms > 0 && zone->nr_dirty == before) {
            q_list_del(l);
            q_list_add_tail(&zone->dirty, l);
        }
    }
}

/*
 * Where a part had to stay (a program that locks its memory, pieces too small), the rest is looked at
 * again once there is more: each free would look at all of it otherwise.
 */
static void give_surplus(struct q_zone *zone, size_t max)
{
    size_t before = zone->nr_given_back;

    reclaim_pass(zone, 0, 0, max - max / 8, true, 0);
    if (zone->nr_dirty > max)
        reclaim_pass(zone, 0, 0, max - max / 8, false, PART_MIN_BYTES);
    zone->nr_kept = zone->nr_dirty > max ? zone->nr_dirty + zone->nr_dirty / KEPT_SHARE : 0;
    zone->nr_gone += zone->nr_given_back - before;
}

void q_zone_tick(struct q_zone *zone)
{
    set_peaks(zone);
    if (q_likely(zone->nr_dirty <= zone->watermark[Q_WMARK_LOW]))
        return;
    set_watermarks(zone);
    size_t max = zone->watermark[Q_WMARK_MAX];
    /* Not while a snapshot or a child may need part of it: it would be looked at again and again. */
    if (zone->nr_dirty > q_max(max, zone->nr_kept) && !q_any_held() && !q_linear_is_pinned())
        give_surplus(zone, max);
    uint32_t now = q_now_ms();
    if (now - zone->tick_ms < TICK_MS)
        return;
    if (now - zone->tick_ms > FORGET_MS)
        zone->nr_gone = zone->nr_missed = 0;
    zone->tick_ms = now;
    zone->nr_kept = q_min(zone->nr_kept, zone->nr_dirty + zone->nr_dirty / KEPT_SHARE);
    zone->slab_peak -= zone->slab_peak / 32; /* forgotten in a second or two */
    zone->run_peak -= zone->run_peak / 32;
    zone->nr_gone -= (zone->nr_gone + 31) / 32;
    zone->nr_missed -= (zone->nr_missed + 31) / 32;
    set_peaks(zone);
    uint32_t age = (uint32_t)q_opt.decay_ms + 1;
    reclaim_pass(zone, now, age, zone->watermark[Q_WMARK_HIGH], true, 0);
    if (zone->nr_dirty > zone->watermark[Q_WMARK_HIGH])
        reclaim_pass(zone, now, age, zone->watermark[Q_WMARK_HIGH], false, PART_MIN_BYTES);
}

void q_reclaim_tick(void)
{
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            struct q_zone *zone = &q_nodes[nid]->zones[type];

            if ((zone->nr_dirty > zone->watermark[Q_WMARK_LOW] ||
                 __atomic_load_n(&zone->resting, __ATOMIC_RELAXED) != NULL) &&
                q_trylock(&zone->lock)) {
                q_zone_settle(zone);
                q_zone_tick(zone);
                q_unlock(&zone->lock);
            }
        }
    }
}

size_t q_reclaim_all(size_t keep_pages)
{
    size_t given = 0;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            struct q_zone *zone = &q_nodes[nid]->zones[type];

            q_pcp_drain(zone);
            q_lock(&zone->lock);
            q_zone_settle(zone);
            size_t before = zone->nr_given_back;
            reclaim_pass(zone, 0, 0, keep_pages, true, 0);
            reclaim_pass(zone, 0, 0, keep_pages, false, 0);
            given += zone->nr_given_back - before;
            keep_pages -= q_min(zone->nr_dirty, keep_pages);
            q_unlock(&zone->lock);
        }
    }
    return given;
}

/*
 * Slabs that are given out but hardly carved (many threads, many classes)
 * must not become resident: huge pages only where nearly all is in use.
 */
static bool dense_enough(const struct q_zone *zone)
{
    size_t carved = atomic_load_explicit(&q_pages_carved, memory_order_relaxed);
    size_t in_use = zone->frontier - zone->start_pfn;

    if (q_mem.sparse)
        in_use = zone->present_pages;
    if (zone->type != Q_ZONE_NORMAL)
        return false;
    return carved << q_page_shift >= Q_HUGE_FROM_BYTES &&
           carved + zone->nr_run_pages >= in_use - in_use / 16;
}

void q_zone_want_huge(struct q_zone *zone, size_t pfn)
{
    /* Advice for a part would cut the mapping of a file into pieces. */
    if (q_opt.huge == Q_HUGE_OFF || q_mem.thp_never || q_linear != NULL ||
        (q_opt.huge == Q_HUGE_AUTO && !dense_enough(zone)))
        return;
    long ret = q_madvise(q_pfn_to_virt(pfn), q_max_block_size(), MADV_HUGEPAGE);
    q_mem_reshape();
    if (ret != 0)
        return;
    for (size_t p = pfn; p < pfn + ((size_t)1 << Q_MAX_ORDER);
         p += (size_t)1 << q_pageblock_order())
        q_pageblock_of(p)->huge = 1;
    zone->nr_huge_blocks += (size_t)1 << (Q_MAX_ORDER - q_pageblock_order());
}
