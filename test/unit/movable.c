/* movable.c - runs that move and are dropped, against a model of what is in each. */
#include "zone/movable.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "core.h"
#include "zone/compact.h"
#include "zone/page_ref.h"

#define MAX 800

static struct {
    struct q_movable *h;
    size_t nr;
    unsigned pins, flags;
    uint64_t seed;
    char *at; /* while it is pinned */
} all[MAX];

static char *pin(unsigned i, bool *lost)
{
    void *at;

    must_eq(q_movable_pin(all[i].h, &at, lost), Q_PIN_OK);
    must(((uintptr_t)at & (q_page_size() - 1)) == 0);
    must(all[i].pins == 0 || at == all[i].at);
    all[i].at = at;
    all[i].pins++;
    return at;
}

static void unpin(unsigned i)
{
    must_eq(q_movable_unpin(all[i].h), Q_PIN_OK);
    all[i].pins--;
}

static void make(unsigned i, struct rng *rng, unsigned flags)
{
    bool lost;

    all[i].nr = 1 + rng_below(rng, (size_t)1 << rng_below(rng, 7));
    all[i].flags = flags | (rng_below(rng, 4) == 0 ? Q_MOVABLE_ZERO : 0);
    all[i].h = q_movable_alloc(all[i].nr, all[i].flags);
    must(all[i].h != NULL);
    must_eq(q_movable_pages(all[i].h), all[i].nr);
    char *at = pin(i, &lost);
    must(!lost || (flags & Q_MOVABLE_DISCARDABLE) != 0);
    must((all[i].flags & Q_MOVABLE_ZERO) == 0 || core_is_zero(at, all[i].nr));
    all[i].seed = rng_next(rng);
    core_stamp(at, all[i].nr, all[i].seed);
    unpin(i);
}

/* Pin it and look at its content, which is gone only where it may be. */
static void look(unsigned i, struct rng *rng)
{
    bool lost;
    char *at = pin(i, &lost);

    if (lost) {
        must((all[i].flags & Q_MOVABLE_DISCARDABLE) != 0 && all[i].pins == 1);
        must(core_is_zero(at, all[i].nr));
    } else {
        must(core_stamped(at, all[i].nr, all[i].seed));
    }
    all[i].seed = rng_next(rng);
    core_stamp(at, all[i].nr, all[i].seed);
}

static void destroy(unsigned i)
{
    while (all[i].pins > 0)
        unpin(i);
    must_eq(q_movable_free(all[i].h), Q_PIN_OK);
    must_eq(q_movable_free(all[i].h), Q_PIN_NO_HANDLE);
    all[i].h = NULL;
}

static void step(struct rng *rng, unsigned flags)
{
    unsigned i = (unsigned)rng_below(rng, MAX);
    size_t what = rng_below(rng, 100);

    if (all[i].h == NULL)
        make(i, rng, flags | (rng_below(rng, 2) == 0 ? Q_MOVABLE_DISCARDABLE : 0));
    else if (what < 40)
        look(i, rng);
    else if (what < 80 && all[i].pins > 0)
        unpin(i);
    else if (all[i].pins == 0)
        destroy(i);
    else
        must_eq(q_movable_free(all[i].h), Q_PIN_WRONG);
    if (what == 99)
        q_compact();
    if (what == 98)
        q_movable_shrink(50);
}

static void random_steps(enum core_kind kind, unsigned flags, int steps)
{
    struct rng rng = rng_new(flags + kind);

    core_start(kind);
    for (int i = 0; i < steps; i++) {
        step(&rng, flags);
        if (i % 2000 == 1999)
            core_check();
    }
    for (unsigned i = 0; i < MAX; i++)
        if (all[i].h != NULL)
            destroy(i);
    must_eq(q_pages_in_use, 0);
    core_check();
}

Test(movable, at_random)
{
    random_steps(CORE_FLAT, 0, 20000);
}

Test(movable, at_random_numa)
{
    random_steps(CORE_NUMA, 0, 10000);
}

Test(movable, at_random_sparse)
{
    random_steps(CORE_SPARSE, 0, 10000);
}

static size_t whole_blocks(void)
{
    size_t n = 0;

    for (unsigned type = 0; type < Q_NR_ZONES; type++) {
        struct q_zone *zone = core_zone(0, type);

        for (size_t pfn = zone->start_pfn; pfn < zone->frontier;
             pfn += (size_t)1 << q_pageblock_order())
            n += q_pageblock_of(pfn)->nr_free == 1u << q_pageblock_order();
    }
    return n;
}

static void nr_free(size_t n[Q_NR_ORDERS], unsigned type)
{
    for (unsigned order = 0; order < Q_NR_ORDERS; order++)
        n[order] = core_zone(0, type)->buddy.area[order].nr_free;
}

/* Three of four runs go, all over; then what is left fits into a quarter of the pageblocks. */
Test(movable, compaction_empties_pageblocks)
{
    static struct q_movable *h[4096];
    size_t n[Q_NR_ORDERS], pages = q_max((size_t)4096 >> (q_page_shift - 12), 1024);
    void *at;
    bool lost;

    core_start(CORE_FLAT);
    core_grow_up();
    for (size_t i = 0; i < pages; i++) {
        must((h[i] = q_movable_alloc(1, 0)) != NULL);
        must(q_movable_pin(h[i], &at, &lost) == Q_PIN_OK);
        core_stamp(at, 1, i);
        must(q_movable_unpin(h[i]) == Q_PIN_OK);
    }
    for (size_t i = 0; i < pages; i++)
        if (i % 4 != 0)
            must(q_movable_free(h[i]) == Q_PIN_OK);
    size_t before = whole_blocks();
    nr_free(n, Q_ZONE_MOVABLE);
    int bad = q_unusable_index(n, q_pageblock_order());
    struct q_compacted done = q_compact();
    must(done.moved > 0 && done.moved < pages / 4);
    must_eq(whole_blocks(), before + done.pageblocks);
    must(done.pageblocks >= 3 * (pages >> q_pageblock_order()) / 4 - 2);
    nr_free(n, Q_ZONE_MOVABLE);
    must(q_unusable_index(n, q_pageblock_order()) < bad / 2);
    for (size_t i = 0; i < pages; i += 4) {
        must(q_movable_pin(h[i], &at, &lost) == Q_PIN_OK && !lost);
        must(core_stamped(at, 1, i));
    }
    /* All pinned: nothing moves. */
    done = q_compact();
    must(done.moved == 0 && done.pageblocks == 0);
}

/* Slabs, runs of malloc's and pinned runs stay where they are. */
Test(movable, compaction_leaves_others_alone)
{
    struct rng rng = rng_new(8);
    static struct q_page *page[500];
    void *at, *again;
    bool lost;

    core_start(CORE_FLAT);
    for (unsigned i = 0; i < 500; i++) {
        page[i] = q_alloc_run(Q_GFP_MOVABLE, 1 + rng_below(&rng, 20));
        must(page[i] != NULL);
        core_stamp(q_page_address(page[i]), page[i]->nr, i);
        make(i, &rng, 0);
    }
    must(q_movable_pin(all[3].h, &at, &lost) == Q_PIN_OK);
    for (unsigned i = 0; i < 500; i += 2) {
        q_free_run(page[i]);
        destroy(i);
    }
    q_compact();
    must(q_movable_pin(all[3].h, &again, &lost) == Q_PIN_OK && again == at);
    for (unsigned i = 1; i < 500; i += 2) {
        must(core_stamped(q_page_address(page[i]), page[i]->nr, i));
        look(i, &rng);
    }
}

/* A run that was moved to another node stays, and its pageblock is not emptied around it. */
Test(movable, compaction_leaves_moved_runs)
{
    static struct q_movable *h[4096];
    size_t pages = q_max((size_t)4096 >> (q_page_shift - 12), 1024);

    core_start(CORE_FLAT);
    core_grow_up();
    for (size_t i = 0; i < pages; i++)
        must((h[i] = q_movable_alloc(1, 0)) != NULL);
    for (size_t i = 0; i < pages; i++)
        if (i % 4 != 0)
            must(q_movable_free(h[i]) == Q_PIN_OK);
    struct q_page *stays = h[pages - 4]->page, *other = h[pages - 8]->page;
    for (size_t i = 0; i < pages; i += 4)
        stays = h[i]->page > stays ? h[i]->page : stays;
    for (size_t i = 0; i < pages; i += 4)
        other = h[i]->page > other && h[i]->page != stays ? h[i]->page : other;
    must(q_pageblock_of(q_page_to_pfn(stays)) == q_pageblock_of(q_page_to_pfn(other)));
    q_page_set_moved(stays);
    must(q_compact().moved > 0);
    must(q_movable_grab(stays) != NULL);
    q_movable_ungrab();
    must(q_movable_grab(other) != NULL);
    q_movable_ungrab();
    must_eq(stays->flags, Q_PAGE_MOVED);
    for (size_t i = 0; i < pages; i += 4)
        must(q_movable_free(h[i]) == Q_PIN_OK);
    must_eq(stays->flags, 0);
    core_check();
}

/* At the limit what may be dropped is, and nothing else. */
Test(movable, dropped_at_the_limit)
{
    struct rng rng = rng_new(4);
    size_t dropped = 0;
    bool lost;

    q_opt.limit = (size_t)16 << 20;
    core_start(CORE_FLAT);
    for (unsigned i = 0; i < 60; i++) {
        all[i].nr = 10;
        all[i].flags = i % 3 == 0 ? 0 : Q_MOVABLE_DISCARDABLE;
        must((all[i].h = q_movable_alloc(10, all[i].flags)) != NULL);
        char *at = pin(i, &lost);
        all[i].seed = rng_next(&rng);
        core_stamp(at, 10, all[i].seed);
        if (i % 5 != 0)
            unpin(i);
    }
    size_t could = q_movable_droppable();
    must_eq(could, 320);
    /* Own mappings and runs, until there is no more. */
    size_t got = 0, dirty;
    while (q_vmalloc((size_t)2 << 20, q_page_size(), &dirty) != NULL)
        got++;
    while (q_alloc_run(Q_GFP_KERNEL, 1) != NULL)
        got++;
    must(got > 0);
    must_eq(q_movable_droppable(), 0);
    must_eq(q_pages_in_use, q_opt.limit >> q_page_shift);
    for (unsigned i = 0; i < 60; i++) {
        void *at;

        if (i % 5 == 0 || i % 3 == 0) {
            char *now = pin(i, &lost);
            must(!lost && core_stamped(now, 10, all[i].seed));
        } else {
            must_eq(q_movable_pin(all[i].h, &at, &lost), Q_PIN_NO_MEMORY);
            dropped++;
        }
    }
    must_eq(dropped * 10, could);
}

/* Whether the kernel may read it: not while it is strict and not pinned. */
Test(movable, strict_runs_are_out_of_reach)
{
    core_start(CORE_FLAT);
    struct q_movable *h = q_movable_alloc(3, Q_MOVABLE_STRICT);
    bool lost;
    void *at;
    int fd[2];

    must(pipe(fd) == 0 && h != NULL);
    must(q_movable_pin(h, &at, &lost) == Q_PIN_OK && q_movable_pin(h, &at, &lost) == Q_PIN_OK);
    memset(at, 7, 3 << q_page_shift);
    must(q_movable_unpin(h) == Q_PIN_OK && write(fd[1], at, 1) == 1);
    must(q_movable_unpin(h) == Q_PIN_OK && write(fd[1], at, 1) == -1 && errno == EFAULT);
    must(q_movable_unpin(h) == Q_PIN_WRONG);
    must(q_movable_pin(h, &at, &lost) == Q_PIN_OK && *(char *)at == 7);
    must(q_movable_unpin(h) == Q_PIN_OK && q_movable_free(h) == Q_PIN_OK);
    /* What serves next is accessible. */
    for (int i = 0; i < 100; i++)
        memset(q_page_address(q_alloc_run(Q_GFP_MOVABLE, 3)), 1, 3 << q_page_shift);
}

Test(movable, no_handles)
{
    core_start(CORE_FLAT);
    struct q_movable none, *h = q_movable_alloc(1, 0);
    bool lost;
    void *at;

    must(q_movable_pin(NULL, &at, &lost) == Q_PIN_NO_HANDLE);
    must(q_movable_pin(&none, &at, &lost) == Q_PIN_NO_HANDLE);
    must(q_movable_unpin((struct q_movable *)((char *)h + 8)) == Q_PIN_NO_HANDLE);
    must(q_movable_free(h + 1) == Q_PIN_NO_HANDLE && q_movable_pages(h + 1) == 0);
    must(q_movable_free(h) == Q_PIN_OK);
}

/* The kernel's examples: nothing free, one that fits, many small ones, too little of all. */
Test(movable, indices)
{
    size_t none[Q_NR_ORDERS] = {0}, fits[Q_NR_ORDERS] = {3, 0, 1}, small[Q_NR_ORDERS] = {1024},
           few[Q_NR_ORDERS] = {2};

    must_eq(q_fragmentation_index(none, 3), 0);
    must_eq(q_fragmentation_index(fits, 2), -1000);
    must_eq(q_fragmentation_index(small, 3), 1000 - (1000 + 128000) / 1024);
    must_eq(q_fragmentation_index(few, 9), 1000 - (1000 + 3) / 2);
    must_eq(q_unusable_index(none, 0), 1000);
    must_eq(q_unusable_index(fits, 2), 3 * 1000 / 7);
    must_eq(q_unusable_index(fits, 0), 0);
    must_eq(q_unusable_index(small, 1), 1000);
}

static _Atomic bool stop;

static void *compact_often(void *arg)
{
    while (!stop) {
        q_compact();
        q_movable_shrink(20);
    }
    return arg;
}

/* While another thread moves and drops all the time, each pin finds what it left. */
Test(movable, while_others_compact)
{
    struct rng rng = rng_new(77);
    pthread_t thread;

    core_start(CORE_FLAT);
    core_grow_up();
    must(pthread_create(&thread, NULL, compact_often, NULL) == 0);
    for (int i = 0; i < 8000; i++) {
        unsigned at = (unsigned)rng_below(&rng, 300);

        if (all[at].h == NULL) {
            make(at, &rng, at % 2 ? Q_MOVABLE_DISCARDABLE : 0);
        } else if (rng_below(&rng, 3) == 0) {
            destroy(at);
        } else {
            look(at, &rng);
            unpin(at);
        }
    }
    stop = true;
    pthread_join(thread, NULL);
}
