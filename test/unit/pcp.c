/* pcp.c - per-CPU page lists: hot ones come back first, written pages are known, high adapts. */
#include <pthread.h>
#include <sched.h>

#include "core.h"

static size_t slab_pages(void)
{
    return (size_t)1 << q_slab_order();
}

static void stay_on_one_cpu(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)sched_getcpu(), &set);
    must(sched_setaffinity(0, sizeof(set), &set) == 0);
}

static uint32_t count_here(void)
{
    return core_zone(q_this_nid(), Q_ZONE_NORMAL)->pcp[q_this_cpu()].count;
}

Test(pcp, the_last_one_freed_is_the_next_one_given)
{
    struct q_page *page[4];
    unsigned written;

    stay_on_one_cpu();
    core_start(CORE_FLAT);
    for (int i = 0; i < 4; i++) {
        page[i] = q_alloc_slab_pages(1, &written);
        must(page[i] != NULL && page[i]->type == Q_PAGE_SLAB);
        must_eq(page[i]->nr, slab_pages());
        must_eq((uintptr_t)q_page_address(page[i]) & (Q_SLAB_SIZE - 1), 0);
    }
    q_free_slab_pages(page[1], 3);
    must_eq(page[1]->type, Q_PAGE_PCP);
    q_free_slab_pages(page[3], 1);
    must(q_alloc_slab_pages(1, &written) == page[3]);
    must_eq(written, 1);
    must(q_alloc_slab_pages(1, &written) == page[1]);
    must_eq(written, 3);
    core_check();
}

Test(pcp, counts_and_the_high_mark)
{
    static struct q_page *page[600];
    unsigned written;

    stay_on_one_cpu();
    core_start(CORE_FLAT);
    for (int i = 0; i < 600; i++)
        must((page[i] = q_alloc_slab_pages(1, &written)) != NULL);
    must_eq(q_pages_in_use, 600 * slab_pages());
    for (int i = 0; i < 600; i++) {
        q_free_slab_pages(page[i], 0);
        const struct q_pcp *pcp = &core_zone(0, Q_ZONE_NORMAL)->pcp[q_this_cpu()];
        must(pcp->high >= 2 * slab_pages());
        must(pcp->weight <= pcp->high);
    }
    must_eq(q_pages_in_use, 0);
    must_eq(core_pcp_pages(), count_here());
    /* The list stays within its share of the spare budget, as far as it was not grown on demand. */
    must(core_pcp_pages() << q_page_shift <= 16 * q_max(q_opt.spare, 4 * Q_SLAB_SIZE));
    core_check();
    q_pcp_drain(core_zone(0, Q_ZONE_NORMAL));
    must_eq(core_pcp_pages(), 0);
    core_check();
    must_eq(core_free_pages() % ((size_t)1 << Q_MAX_ORDER), 0);
}

/* In a large heap a list that runs empty between drains grows, a quiet one shrinks back. */
Test(pcp, high_follows_demand)
{
    static struct q_page *page[400];
    unsigned written;

    stay_on_one_cpu();
    q_opt.spare = 0;
    core_start(CORE_FLAT);
    q_pages_carved = (size_t)1 << 22; /* as if 16 GiB were in use */
    struct q_pcp *pcp = &core_zone(0, Q_ZONE_NORMAL)->pcp[q_this_cpu()];
    uint32_t base = (uint32_t)(2 * slab_pages()), top = 0;

    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 400; i++)
            must((page[i] = q_alloc_slab_pages(1, &written)) != NULL);
        for (int i = 0; i < 400; i++) {
            q_free_slab_pages(page[i], 0);
            must(pcp->high >= base);
            top = (uint32_t)q_max(top, pcp->high);
        }
    }
    must(top > base);
    must(top <= 16 * base);
    core_check();
}

/* What is said to be unwritten is zero, whatever was written before. */
Test(pcp, unwritten_pages_are_zero, .timeout = 300)
{
    struct rng r = rng_new(40);
    struct q_page *page[100] = {NULL};
    unsigned wrote[100], written;
    size_t fresh = 0;

    core_start(CORE_FLAT);
    for (int step = 0; step < 20000; step++) {
        size_t i = rng_below(&r, 100);

        if (page[i] != NULL) {
            q_free_slab_pages(page[i], wrote[i]);
            page[i] = NULL;
        } else {
            must((page[i] = q_alloc_slab_pages(1, &written)) != NULL);
            must(written <= slab_pages());
            char *p = q_page_address(page[i]);
            must(core_is_zero(p + ((size_t)written << q_page_shift), slab_pages() - written));
            fresh += slab_pages() - written;
            unsigned more = (unsigned)rng_below(&r, slab_pages() + 1);
            core_stamp(p, more, rng_next(&r));
            wrote[i] = (unsigned)q_max(written, more);
        }
        if (rng_below(&r, 200) == 0)
            q_reclaim_all(rng_below(&r, 2) * 300);
        if (step % 500 == 0)
            core_check();
    }
    must(fresh > 0);
}

#define THREADS 4

static void *worker(void *arg)
{
    struct rng r = rng_new((uintptr_t)arg);
    struct q_page *page[64] = {NULL};
    uint64_t seed[64];
    unsigned written;

    for (int step = 0; step < 20000; step++) {
        size_t i = rng_below(&r, 64);

        if (page[i] != NULL) {
            must(core_stamped(q_page_address(page[i]), 2, seed[i]));
            q_free_slab_pages(page[i], 2);
            page[i] = NULL;
            continue;
        }
        must((page[i] = q_alloc_slab_pages(1, &written)) != NULL);
        seed[i] = rng_next(&r);
        core_stamp(q_page_address(page[i]), 2, seed[i]);
    }
    for (size_t i = 0; i < 64; i++)
        if (page[i] != NULL)
            q_free_slab_pages(page[i], 2);
    return NULL;
}

Test(pcp, threads, .timeout = 300)
{
    pthread_t t[THREADS];

    core_start(CORE_NUMA);
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_create(&t[i], NULL, worker, (void *)(i + 50)) == 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    must_eq(q_pages_in_use, 0);
    core_check();
    q_reclaim_all(0);
    must_eq(core_pcp_pages(), 0);
    must_eq(core_dirty_pages(), 0);
    core_check();
}

/* Where a page is larger than what a sparse slab fills, no slab is sparse. */
Test(pcp, pages_of_64_kib)
{
    unsigned written;

    core_start_pages(16);
    struct q_page *page = q_alloc_slab_pages(1, &written);
    must(page != NULL);
    must_eq(q_pageblock_of(q_page_to_pfn(page))->mobility, Q_UNMOVABLE);
}

Test(pcp, pages_of_16_kib)
{
    unsigned written;

    core_start_pages(14);
    struct q_page *page[2] = {q_alloc_slab_pages(1, &written), q_alloc_slab_pages(2, &written)};
    must_eq(q_pageblock_of(q_page_to_pfn(page[0]))->mobility, Q_SPARSE);
    must_eq(q_pageblock_of(q_page_to_pfn(page[1]))->mobility, Q_UNMOVABLE);
}
