/* reclaim.c - giving memory back: watermarks, decay, whole blocks first, and what mincore says. */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core.h"
#include "zone/linear.h"

#define NR 512
#define RUN 64

static struct q_page *page[NR];

/* 128 MiB (of 4 KiB pages) in runs of 64 pages, all written, all in the movable zone. */
static void fill(void)
{
    q_opt.huge = Q_HUGE_OFF;
    core_start(CORE_FLAT);
    core_grow_up();
    for (size_t i = 0; i < NR; i++) {
        page[i] = q_alloc_run(Q_GFP_MOVABLE, RUN);
        must(page[i] != NULL);
        core_stamp(q_page_address(page[i]), RUN, i);
    }
}

static struct q_zone *zone_in_use(void)
{
    return q_pfn_zone(q_page_to_pfn(page[0]));
}

static size_t resident_now(void)
{
    struct q_zone *zone = zone_in_use();

    return core_resident(q_pfn_to_virt(zone->start_pfn), zone->frontier - zone->start_pfn);
}

Test(reclaim, all)
{
    fill();
    must(resident_now() >= NR * RUN);
    for (size_t i = 0; i < NR; i++)
        q_free_run(page[i]);
    size_t dirty = core_dirty_pages(), gone = zone_in_use()->nr_given_back;
    must_eq(dirty + gone, NR * RUN);
    must_eq(resident_now(), dirty);
    must_eq(q_reclaim_all(0), dirty);
    must_eq(core_dirty_pages(), 0);
    must_eq(resident_now(), 0);
    must_eq(q_reclaim_all(0), 0);
    core_check();
}

Test(reclaim, keeps_what_it_is_told_to)
{
    fill();
    for (size_t i = 0; i < NR; i++)
        q_free_run(page[i]);
    size_t block = (size_t)1 << q_pageblock_order(), keep = 10 * block;
    must(q_reclaim_all(keep) > 0);
    must(core_dirty_pages() <= keep && core_dirty_pages() + block >= keep);
    must_eq(resident_now(), core_dirty_pages());
}

/* What may stay is counted over all zones together, as malloc_trim() promises. */
Test(reclaim, keeps_what_it_is_told_to_in_all_zones_together)
{
    struct q_page *normal[40];
    size_t keep = 8 << q_pageblock_order();

    q_opt.decay_ms = 3600000;
    fill();
    q_pages_carved = 40 * 500; /* as if slabs were using what is in use here */
    for (size_t i = 0; i < 40; i++) {
        normal[i] = q_alloc_run(Q_GFP_KERNEL, 500);
        must(normal[i] != NULL);
    }
    /* So little that neither zone gives anything back by itself. */
    for (size_t i = 0; i < 40; i++)
        q_free_run(normal[i]);
    for (size_t i = 0; i < NR / 2; i++)
        q_free_run(page[i]);
    must(core_zone(0, Q_ZONE_NORMAL)->nr_dirty > keep);
    q_reclaim_all(keep);
    must(core_dirty_pages() <= keep);
}

Test(reclaim, live_pages_are_left_alone)
{
    fill();
    size_t kept = 0;

    for (size_t i = 0; i < NR; i++)
        if (i % 8 != 3)
            q_free_run(page[i]);
    q_reclaim_all(0);
    must_eq(core_dirty_pages(), 0);
    for (size_t i = 3; i < NR; i += 8, kept++)
        must(core_stamped(q_page_address(page[i]), RUN, i));
    must_eq(resident_now(), kept * RUN);
    core_check();
}

/* Up to the largest watermark nothing goes before its time, however often somebody looks. */
Test(reclaim, not_before_the_decay_time)
{
    q_opt.decay_ms = 3600000;
    fill();
    for (size_t i = 0; i < NR / 8; i++)
        q_free_run(page[i]);
    for (int i = 0; i < 3; i++) {
        usleep(60000);
        q_reclaim_tick();
    }
    must_eq(core_dirty_pages(), NR / 8 * RUN);
    /* Far above it, memory goes at once. */
    for (size_t i = NR / 8; i < NR; i++)
        q_free_run(page[i]);
    must(core_dirty_pages() < NR * RUN / 2);
    must(zone_in_use()->nr_dirty <= zone_in_use()->watermark[Q_WMARK_MAX] + RUN);
    must_eq(resident_now(), core_dirty_pages());
}

/* After the decay time, ticks bring every zone below its high watermark. */
Test(reclaim, decays_to_the_high_watermark, .timeout = 300)
{
    q_opt.decay_ms = 40;
    fill();
    struct q_zone *zone = zone_in_use();
    for (size_t i = NR / 8; i < NR; i++)
        q_free_run(page[i]);
    for (int i = 0; i < 6; i++) {
        usleep(60000);
        q_reclaim_tick();
    }
    must(zone->watermark[Q_WMARK_MIN] <= zone->watermark[Q_WMARK_LOW]);
    must(zone->watermark[Q_WMARK_LOW] <= zone->watermark[Q_WMARK_HIGH]);
    must(zone->nr_dirty <= zone->watermark[Q_WMARK_HIGH] + ((size_t)1 << q_pageblock_order()));
    /* The watermark is a small part of what is in use. */
    must(zone->watermark[Q_WMARK_HIGH] << q_page_shift <= ((size_t)2 << 20));
    must(resident_now() <=
         NR / 8 * RUN + zone->watermark[Q_WMARK_HIGH] + ((size_t)1 << q_pageblock_order()));
    for (size_t i = 0; i < NR / 8; i++)
        must(core_stamped(q_page_address(page[i]), RUN, i));
    core_check();
}

/* The same driven by nothing but small allocations and frees. */
Test(reclaim, ordinary_work_drives_it, .timeout = 300)
{
    q_opt.decay_ms = 40;
    fill();
    for (size_t i = 0; i < NR; i++)
        q_free_run(page[i]);
    for (int i = 0; i < 300; i++) {
        usleep(2000);
        q_free_run(q_alloc_pages(Q_GFP_MOVABLE, 0));
    }
    /* But for the block that is worked in. */
    must(core_dirty_pages() << q_page_shift <= (size_t)4 << 20);
    core_check();
}

/* Once nothing free holds memory, no free block is listed as if it did. */
Test(reclaim, given_back_blocks_count_as_fresh)
{
    fill();
    for (size_t i = 0; i < NR; i++)
        if (i % 100 != 0)
            q_free_run(page[i]);
    must(core_used_blocks() > 0);
    q_reclaim_all(0);
    must_eq(core_dirty_pages(), 0);
    must_eq(core_used_blocks(), 0);
    core_check();
}

/* And a block that is listed as fresh holds none, whatever it was cut from. */
Test(reclaim, fresh_blocks_hold_no_memory)
{
    struct rng r = rng_new(31);
    size_t wrong = 0;

    fill();
    for (int step = 0; step < 3000; step++) {
        size_t i = rng_below(&r, NR);

        q_free_run(page[i]);
        page[i] = q_alloc_run(Q_GFP_MOVABLE, 1 + rng_below(&r, RUN));
        if (step % 100 == 0) {
            q_reclaim_all(rng_below(&r, 500));
            wrong += core_wrongly_fresh();
        }
    }
    must_eq(wrong, 0);
}

/* One pageblock of a free block goes back: what the other holds is not forgotten. */
Test(reclaim, one_half_of_a_block)
{
    core_start(CORE_FLAT);
    struct q_page *run = q_alloc_run(Q_GFP_MOVABLE, (size_t)1 << Q_MAX_ORDER);

    q_reclaim_all(0);
    /* The second half is free first, so it is the first to go. */
    q_shrink_run(run, (size_t)1 << q_pageblock_order());
    q_free_run(run);
    q_reclaim_all((size_t)1 << q_pageblock_order());
    must(core_dirty_pages() > 0);
    must_eq(core_wrongly_fresh(), 0);
    core_check();
}

/* Whole free pageblocks go first; blocks in part use keep their pages longer. */
Test(reclaim, whole_blocks_first)
{
    fill();
    size_t per_block = (size_t)1 << q_pageblock_order(), dirty_parts = 0;

    /* A sixteenth is freed wholly, of another every second run. */
    for (size_t i = 0; i < NR; i++)
        if (i >= NR - NR / 16 || (i < NR / 16 && i % 2))
            q_free_run(page[i]);
    for (size_t i = 1; i < NR / 16; i += 2)
        dirty_parts += RUN;
    q_reclaim_all(dirty_parts);
    for (size_t i = 1; i < NR / 16; i += 2)
        if (q_pageblock_of(q_page_to_pfn(page[i]))->nr_free < per_block)
            must_eq(core_resident(q_page_address(page[i]), RUN), RUN);
}

/* Locked memory stays, and quire does not take it for zero. */
Test(reclaim, locked_memory_stays)
{
    q_opt.huge = Q_HUGE_OFF;
    core_start(CORE_FLAT);
    struct q_page *run = q_alloc_run(Q_GFP_MOVABLE, 8);
    void *p = q_page_address(run);

    core_stamp(p, 8, 1);
    if (mlock(p, 8 << q_page_shift) != 0)
        cr_skip("mlock is not allowed here");
    q_free_run(run);
    q_reclaim_all(0);
    core_check();
    run = q_alloc_run(Q_GFP_MOVABLE | Q_GFP_ZERO, 8);
    must(core_is_zero(q_page_address(run), 8));
}

/* Zeroed pages after any history: fresh, freed, given back, grown, cut. */
Test(reclaim, zero_means_zero_after_any_history, .timeout = 300)
{
    struct rng r = rng_new(30);
    struct q_page *run[64] = {NULL};
    size_t zeroed = 0;

    core_start(CORE_FLAT);
    for (int step = 0; step < 6000; step++) {
        size_t i = rng_below(&r, 64), nr = 1 + rng_below(&r, 200);

        if (run[i] != NULL) {
            if (rng_below(&r, 3) == 0)
                q_shrink_run(run[i], 1 + rng_below(&r, run[i]->nr));
            q_free_run(run[i]);
        }
        run[i] = q_alloc_run(Q_GFP_MOVABLE | Q_GFP_ZERO, nr);
        must(core_is_zero(q_page_address(run[i]), nr));
        zeroed += nr;
        /* Write only some pages of some runs. */
        if (rng_below(&r, 2))
            core_stamp(q_page_address(run[i]), 1 + rng_below(&r, nr), rng_next(&r));
        if (rng_below(&r, 50) == 0)
            q_reclaim_all(rng_below(&r, 3) * 500);
        if (step % 200 == 0)
            core_check();
    }
    must(zeroed > 0);
}

/* Reclaim while others allocate, write, check and free. */
static _Atomic bool stop;

static void *worker(void *arg)
{
    struct rng r = rng_new((uintptr_t)arg);
    struct q_page *run[32] = {NULL};
    uint64_t seed[32];

    while (!stop) {
        size_t i = rng_below(&r, 32);

        if (run[i] != NULL) {
            must(core_stamped(q_page_address(run[i]), run[i]->nr, seed[i]));
            q_free_run(run[i]);
        }
        bool zero = rng_below(&r, 4) == 0;
        run[i] = q_alloc_run(Q_GFP_MOVABLE | (zero ? Q_GFP_ZERO : 0), 1 + rng_below(&r, 300));
        if (zero)
            must(core_is_zero(q_page_address(run[i]), run[i]->nr));
        seed[i] = rng_next(&r);
        core_stamp(q_page_address(run[i]), run[i]->nr, seed[i]);
    }
    for (size_t i = 0; i < 32; i++)
        if (run[i] != NULL)
            q_free_run(run[i]);
    return NULL;
}

Test(reclaim, while_others_work, .timeout = 300)
{
    pthread_t t[3];

    q_opt.decay_ms = 1;
    core_start(CORE_NUMA);
    for (size_t i = 0; i < 3; i++)
        must(pthread_create(&t[i], NULL, worker, (void *)(i + 100)) == 0);
    for (int i = 0; i < 300; i++) {
        usleep(4000);
        i % 2 ? (void)q_reclaim_all(i % 3 * 200u) : q_reclaim_tick();
    }
    stop = true;
    for (size_t i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    core_check();
    must_eq(q_pages_in_use, 0);
    q_reclaim_all(0);
    must_eq(core_dirty_pages(), 0);
}

/* A block of several pageblocks, but less than the largest, holds nothing once all went. */
Test(reclaim, blocks_of_several_pageblocks)
{
    core_start_pages(16);
    struct q_page *block[2] = {q_alloc_pages(0, 8), q_alloc_pages(0, 8)};
    must(block[0] != NULL && block[1] != NULL);
    for (size_t i = 0; i < 256; i++)
        core_stamp(q_pfn_to_virt(q_page_to_pfn(block[0]) + i), 1, i);
    q_free_run(block[0]);
    q_reclaim_all(0);
    must_eq(core_dirty_pages(), 0);
    must_eq(core_used_blocks(), 0);
}

/* A kernel that takes nothing below an address, as of memory that the program has locked. */
static size_t offers;
static char *taken_from;

static bool no_file(void *at, size_t len)
{
    return false;
}

static long refuse(void *at, size_t len)
{
    offers++;
    return (char *)at < taken_from ? -EINVAL : q_madvise(at, len, MADV_DONTNEED);
}

static const struct q_linear_ops refusing = {.online = no_file, .discard = refuse};
static struct q_page *many[4096];

/* 1 GiB (of 4 KiB pages) that nobody has touched: what is freed counts as written all the same. */
static void fill_much(void)
{
    q_opt.huge = Q_HUGE_OFF;
    core_start(CORE_FLAT);
    core_grow_up();
    for (size_t i = 0; i < 4096; i++)
        must((many[i] = q_alloc_run(Q_GFP_MOVABLE, RUN)) != NULL);
    page[0] = many[0];
    q_linear = &refusing;
}

static void free_much(void)
{
    for (size_t i = 0; i < 4096; i++)
        q_free_run(many[i]);
}

Test(reclaim, what_is_not_taken_is_not_offered_all_the_time, .timeout = 300)
{
    q_opt.decay_ms = 1;
    taken_from = (char *)~(uintptr_t)0;
    fill_much();
    free_much();
    must_eq(core_dirty_pages(), 4096 * RUN);
    must(offers < 4096 * 40);
    offers = 0;
    for (int i = 0; i < 2000; i++)
        q_free_run(q_alloc_run(Q_GFP_MOVABLE, RUN));
    must(offers < 2000 * 10);
    /* Once it takes them they go. */
    taken_from = NULL;
    must_eq(q_reclaim_all(0), 4096 * RUN);
    must_eq(core_dirty_pages(), 0);
    core_check();
}

/* What cannot go does not stand before what can. */
Test(reclaim, what_is_not_taken_is_in_nobodys_way, .timeout = 300)
{
    q_opt.decay_ms = 1;
    fill_much();
    struct q_zone *zone = zone_in_use();
    size_t part = zone->frontier - zone->start_pfn;
    taken_from = q_pfn_to_virt(zone->start_pfn + part / 2);
    free_much();
    for (int i = 0; i < 40; i++) {
        usleep(60000);
        q_reclaim_tick();
    }
    must(zone->nr_dirty <= part / 2 + zone->watermark[Q_WMARK_HIGH]);
    core_check();
}

Test(reclaim, times_ahead)
{
    for (uint32_t now = 0; now < 40; now++) {
        uint32_t at = now * 0x08000000u; /* whatever time it is */

        must(!q_is_ahead(at, at, 1000) && !q_is_ahead(at - 1, at, 1000));
        must(q_is_ahead(at + 1, at, 1000) && q_is_ahead(at + 1000, at, 1000));
        must(!q_is_ahead(at + 1001, at, 1000));
        must(!q_is_ahead(0, at, 1000) || at > ~(uint32_t)1000); /* never set */
    }
}
