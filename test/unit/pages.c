/* pages.c - page runs at random, in each memory model, against a model that knows every page. */
#include <pthread.h>

#include "core.h"

#define MAX_RUNS 1500
#define BUDGET_PAGES 24000

struct run {
    struct q_page *page;
    size_t nr;
    uint64_t seed;
};

static struct run runs[MAX_RUNS];
static size_t nr_runs, pages_held;

/* Overlap: each page in use has a mark, by frame number. */
static uint8_t *held;

static void mark(const struct q_page *page, size_t from, size_t to, uint8_t as)
{
    for (size_t pfn = q_page_to_pfn(page) + from; pfn < q_page_to_pfn(page) + to; pfn++) {
        must_eq(held[pfn], !as);
        held[pfn] = as;
    }
    pages_held = as ? pages_held + (to - from) : pages_held - (to - from);
}

static void check_content(const struct run *r)
{
    must(core_stamped(q_page_address(r->page), r->nr, r->seed));
    must_eq(r->page->type, Q_PAGE_RUN);
    must_eq(r->page->nr, r->nr);
}

static void alloc_one(struct rng *rng)
{
    static const q_gfp_t kinds[] = {Q_GFP_KERNEL, Q_GFP_MOVABLE, Q_GFP_RECLAIMABLE, Q_GFP_MOVABLE};
    bool zero = rng_below(rng, 4) == 0, by_order = rng_below(rng, 2) != 0;
    q_gfp_t gfp = kinds[rng_below(rng, 4)] | (zero ? Q_GFP_ZERO : 0);
    size_t nr, scale = (size_t)1 << rng_below(rng, Q_NR_ORDERS);
    struct run *r = &runs[nr_runs];

    if (nr_runs == MAX_RUNS || pages_held > BUDGET_PAGES)
        return;
    if (by_order) {
        unsigned order = (unsigned)rng_below(rng, q_fls(scale) + 1u);
        nr = (size_t)1 << order;
        r->page = q_alloc_pages(gfp, order);
    } else {
        nr = 1 + rng_below(rng, scale);
        gfp |= rng_below(rng, 2) ? Q_GFP_ANYWHERE : 0;
        r->page = q_alloc_run(gfp, nr);
    }
    must(r->page != NULL);
    /* Aligned to its order, the next one for exact lengths, unless none was asked for. */
    if ((gfp & Q_GFP_ANYWHERE) == 0)
        must_eq(q_page_to_pfn(r->page) & (((size_t)1 << q_ceil_log2(nr)) - 1), 0);
    mark(r->page, 0, nr, 1);
    if (zero)
        must(core_is_zero(q_page_address(r->page), nr));
    r->nr = nr;
    r->seed = rng_next(rng);
    core_stamp(q_page_address(r->page), nr, r->seed);
    nr_runs++;
}

static void free_one(struct rng *rng)
{
    if (nr_runs == 0)
        return;
    struct run *r = &runs[rng_below(rng, nr_runs)];

    check_content(r);
    mark(r->page, 0, r->nr, 0);
    q_free_run(r->page);
    *r = runs[--nr_runs];
}

static void shrink_one(struct rng *rng)
{
    if (nr_runs == 0)
        return;
    struct run *r = &runs[rng_below(rng, nr_runs)];
    size_t nr = 1 + rng_below(rng, r->nr);

    q_shrink_run(r->page, nr);
    mark(r->page, nr, r->nr, 0);
    r->nr = nr;
    check_content(r);
}

/* What lies behind the run, as the model sees it: online, not held, in the same largest block. */
static bool room_behind(const struct run *r, size_t nr)
{
    size_t pfn = q_page_to_pfn(r->page), largest = (size_t)1 << Q_MAX_ORDER;

    if (pfn / largest != (pfn + nr - 1) / largest)
        return false;
    for (size_t p = pfn + r->nr; p < pfn + nr; p++)
        if (held[p])
            return false;
    return true;
}

static size_t grown, not_grown;

static void grow_one(struct rng *rng)
{
    if (nr_runs == 0 || pages_held > BUDGET_PAGES)
        return;
    struct run *r = &runs[rng_below(rng, nr_runs)];
    size_t nr = r->nr + 1 + rng_below(rng, (size_t)1 << rng_below(rng, Q_NR_ORDERS));
    size_t in_use = q_pages_in_use;
    bool room = room_behind(r, nr);
    bool ok = q_grow_run(r->page, nr);

    /* All that is not held is free here: nothing uses the per-CPU lists. */
    must_eq(ok, room);
    if (!ok) {
        not_grown++;
        must_eq(q_pages_in_use, in_use);
        check_content(r);
        return;
    }
    grown++;
    mark(r->page, r->nr, nr, 1);
    must(core_stamped(q_page_address(r->page), r->nr, r->seed));
    r->nr = nr;
    core_stamp(q_page_address(r->page), nr, r->seed);
}

static void random_runs(enum core_kind kind, uint64_t salt)
{
    struct rng rng = rng_new(salt);
    int steps = UNIT_SANITIZED ? 5000 : 20000;

    core_start(kind);
    held = calloc(q_mem.max_pages, 1);
    for (int step = 0; step < steps; step++) {
        bool filling = step / 2000 % 2 == 0;
        size_t what = rng_below(&rng, 16);

        if (what == 0)
            shrink_one(&rng);
        else if (what <= 2)
            grow_one(&rng);
        else if ((what <= 11) == filling)
            alloc_one(&rng);
        else
            free_one(&rng);
        if (what == 0 && rng_below(&rng, 40) == 0)
            q_reclaim_all(rng_below(&rng, 2) ? 0 : rng_below(&rng, 4000));
        must_eq(q_pages_in_use, pages_held);
        if (step % 500 == 0)
            core_check();
    }
    must(grown > 50 && not_grown > 50);
    while (nr_runs > 0)
        free_one(&rng);
    core_check();
    must_eq(q_pages_in_use, 0);
    free(held);
}

Test(pages, random_runs_flat, .timeout = 600)
{
    random_runs(CORE_FLAT, 10);
}

Test(pages, random_runs_discontiguous, .timeout = 600)
{
    random_runs(CORE_NUMA, 11);
}

Test(pages, random_runs_sparse, .timeout = 600)
{
    random_runs(CORE_SPARSE, 12);
}

Test(pages, random_runs_without_huge_pages_and_decay, .timeout = 600)
{
    q_opt.huge = Q_HUGE_OFF;
    q_opt.decay_ms = 1;
    random_runs(CORE_FLAT, 13);
}

Test(pages, random_runs_with_huge_pages, .timeout = 600)
{
    q_opt.huge = Q_HUGE_ON;
    random_runs(CORE_FLAT, 14);
}

Test(pages, impossible_requests)
{
    core_start(CORE_NUMA);
    must(q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER + 1) == NULL);
    must(q_alloc_pages_node(4, Q_GFP_KERNEL, 0) == NULL);
    must(q_alloc_run(Q_GFP_KERNEL, 0) == NULL);
    must(q_alloc_run(Q_GFP_KERNEL, ((size_t)1 << Q_MAX_ORDER) + 1) == NULL);
    must_eq(q_pages_in_use, 0);
    struct q_page *page = q_alloc_run(Q_GFP_KERNEL, 5);
    must(page != NULL);
    must(!q_grow_run(page, ((size_t)1 << Q_MAX_ORDER) + 1));
    must_eq(q_pages_in_use, 5);
}

static _Atomic bool enough;

static void *ask_for_too_much(void *arg)
{
    while (!enough)
        must(!q_charge(q_opt.limit >> q_page_shift));
    return arg;
}

/* What fails at the limit takes nothing from others, not for a moment. */
Test(pages, small_requests_beside_hopeless_ones)
{
    pthread_t thread;

    q_opt.limit = (size_t)32 << 20;
    core_start(CORE_FLAT);
    must(q_charge(1));
    must(pthread_create(&thread, NULL, ask_for_too_much, NULL) == 0);
    for (int i = 0; i < 3000000; i++) {
        must(q_charge(1));
        q_uncharge(1);
    }
    enough = true;
    pthread_join(thread, NULL);
    must(!q_charge(SIZE_MAX) && !q_charge(q_opt.limit >> q_page_shift));
    must(q_charge((q_opt.limit >> q_page_shift) - 1));
    must(!q_charge(1));
}

/* The limit holds to the page, over runs and own mappings together. */
Test(pages, limit)
{
    q_opt.limit = (size_t)32 << 20;
    core_start(CORE_FLAT);
    size_t allowed = q_opt.limit >> q_page_shift, nr = allowed / 4 < 1024 ? allowed / 4 : 1024;
    struct q_page *last = NULL;
    size_t dirty;

    for (size_t got = 0; got + nr <= allowed / 2; got += nr)
        must((last = q_alloc_run(Q_GFP_MOVABLE, nr)) != NULL);
    size_t left = allowed - q_pages_in_use;
    void *mapping = q_vmalloc(left << q_page_shift, 1, &dirty);
    must(mapping != NULL);
    must_eq(q_pages_in_use, allowed);
    must(q_alloc_run(Q_GFP_KERNEL, 1) == NULL);
    must(q_vmalloc(1, 1, &dirty) == NULL);
    must(q_vrealloc(mapping, (left + 1) << q_page_shift) == NULL);
    must_eq(q_pages_in_use, allowed);
    must_eq(q_vsize(mapping), left << q_page_shift);
    q_shrink_run(last, nr - 1);
    must(!q_grow_run(last, nr + 1));
    must(q_grow_run(last, nr));
    must_eq(q_pages_in_use, allowed);
    must(q_vfree(mapping));
    must(q_alloc_run(Q_GFP_KERNEL, 1) != NULL);
}

/* Lengths a little above a power of two: what was freed serves again, and hardly anything else is touched. */
Test(pages, runs_fit_where_their_like_were_freed)
{
    static const size_t lengths[] = {9, 17, 35, 69, 138, 275, 538};
    struct q_page *page[70];

    core_start(CORE_FLAT);
    for (size_t i = 0; i < 70; i++)
        must((page[i] = q_alloc_run(Q_GFP_ANYWHERE, lengths[i % 7])) != NULL);
    size_t frontier = core_zone(0, Q_ZONE_NORMAL)->frontier;
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = round % 3; i < 70; i += 3)
            q_free_run(page[i]);
        for (size_t i = round % 3; i < 70; i += 3)
            must((page[i] = q_alloc_run(Q_GFP_ANYWHERE, lengths[i % 7])) != NULL);
        core_check();
    }
    must(core_zone(0, Q_ZONE_NORMAL)->frontier - frontier <= 2 * q_max_block_size() >>
         q_page_shift);
}

#define ROW 64u

/* A row of single pages in use, at page[0..ROW). */
static void make_row(struct q_page *page[ROW])
{
    page[0] = q_alloc_run(Q_GFP_KERNEL, ROW);
    must(page[0] != NULL);
    q_shrink_run(page[0], 1);
    for (size_t i = 1; i < ROW; i++) {
        page[i] = q_alloc_run(Q_GFP_KERNEL, 1);
        must(page[i] == page[0] + i);
    }
}

static void free_pages(struct q_page *page[ROW], size_t from, size_t nr)
{
    for (size_t i = from; i < from + nr; i++)
        q_free_run(page[i]);
}

/* Pages in a row serve a run, wherever it begins, and whatever blocks they are. */
Test(pages, rows_of_free_blocks_serve_runs)
{
    struct q_page *page[ROW];

    core_start(CORE_FLAT);
    for (size_t nr = 1; nr < ROW / 2; nr++) {
        for (size_t at = 1; at + nr < ROW; at++) {
            make_row(page);
            free_pages(page, at, nr);
            struct q_page *run = q_alloc_run(Q_GFP_ANYWHERE, nr);
            must(run == page[at]);
            q_free_run(run);
            free_pages(page, 0, at);
            free_pages(page, at + nr, ROW - at - nr);
        }
        core_check();
    }
}

/* Of several rows it is the one with least to spare, and the rest of it stays for others. */
Test(pages, the_row_with_least_to_spare_is_taken)
{
    struct q_page *page[ROW];

    core_start(CORE_FLAT);
    make_row(page);
    free_pages(page, 1, 20);
    free_pages(page, 23, 12);
    free_pages(page, 37, 14);
    must(q_alloc_run(Q_GFP_ANYWHERE, 12) == page[23]);
    must(q_alloc_run(Q_GFP_ANYWHERE, 12) == page[37]);
    must(q_alloc_run(Q_GFP_ANYWHERE, 2) == page[49]);
    must(q_alloc_run(Q_GFP_ANYWHERE, 20) == page[1]);
    core_check();
}

/* The run that was freed last serves the next of its length, and is merged for anything else. */
Test(pages, the_run_freed_last_rests)
{
    core_start(CORE_FLAT);
    struct q_page *run = q_alloc_run(Q_GFP_ANYWHERE, 20), *next = q_alloc_run(Q_GFP_ANYWHERE, 7);
    size_t in_use = q_pages_in_use, run_pages = core_zone(0, Q_ZONE_NORMAL)->nr_run_pages;

    q_free_run(run);
    must_eq(q_page_type_of(run), Q_PAGE_REST);
    must_eq(q_pages_in_use, in_use - 20);
    must_eq(core_zone(0, Q_ZONE_NORMAL)->nr_run_pages, run_pages - 20);
    must(q_alloc_run(Q_GFP_ANYWHERE | Q_GFP_ZERO, 20) == run);
    must(core_is_zero(q_page_address(run), 20));
    must_eq(q_page_type_of(run), Q_PAGE_RUN);
    q_free_run(run);
    must(q_alloc_run(Q_GFP_ANYWHERE, 19) == run);
    q_free_run(run);
    q_free_run(next);
    must_eq(q_page_type_of(run), Q_PAGE_BUDDY);
    must_eq(q_page_type_of(next), Q_PAGE_REST);
    must_eq(q_reclaim_all(0), 27);
    must_eq(q_page_type_of(next), Q_PAGE_NONE);
    core_check();
    must(q_grow_run(run = q_alloc_run(Q_GFP_KERNEL, 16), 17));
    next = run + 17;
    must(q_alloc_run(Q_GFP_ANYWHERE, 3) != NULL);
    core_check();
    q_opt.limit = (size_t)1 << 30;
    q_free_run(run);
    must(q_page_type_of(run) != Q_PAGE_REST);
    core_check();
}
