/* vmalloc.c - own mappings: the table with thousands of blocks, growth by mremap, the cache. */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>

#include "core.h"

#define NR 6000

static void *block[NR];
static size_t size[NR];
static uint64_t seed[NR];

/* Is nothing mapped at p any more? */
static bool is_unmapped(void *p)
{
    unsigned char vec;

    return mincore(p, q_page_size(), &vec) != 0 && errno == ENOMEM;
}

static size_t pages(size_t bytes)
{
    return q_align_up(bytes, q_page_size()) >> q_page_shift;
}

/* What is behind the first `dirty` bytes is zero, nr pages in all. */
static void check_clean(const char *p, size_t nr, size_t dirty)
{
    size_t from = pages(dirty);

    if (from < nr)
        must(core_is_zero(p + (from << q_page_shift), nr - from));
}

/* The cache may hold a part of what is in use: pretend that this is much. */
static size_t ballast(void)
{
    size_t much = (size_t)64 << 30 >> q_page_shift;

    must(q_charge(much));
    return much;
}

static void check_stat(size_t blocks, size_t bytes)
{
    struct q_vstat st;

    q_vstat(&st);
    must_eq(st.blocks, blocks);
    must_eq(st.bytes, bytes);
    must_eq(q_pages_in_use, bytes >> q_page_shift);
}

/* Thousands at once, each found by its start alone, freed in another order. */
Test(vmalloc, thousands_of_blocks, .timeout = 300)
{
    struct rng r = rng_new(60);
    size_t bytes = 0;
    size_t dirty;

    q_opt.decay_ms = 0;
    core_start(CORE_FLAT);
    for (size_t i = 0; i < NR; i++) {
        size[i] = 1 + rng_below(&r, 5 * q_page_size());
        must((block[i] = q_vmalloc(size[i], 1, &dirty)) != NULL);
        must_eq(dirty, 0);
        must(core_is_zero(block[i], pages(size[i])));
        seed[i] = rng_next(&r);
        core_stamp(block[i], pages(size[i]), seed[i]);
        bytes += pages(size[i]) << q_page_shift;
        must(q_virt_to_page(block[i]) == NULL);
    }
    check_stat(NR, bytes);
    for (size_t i = 0; i < NR; i++) {
        void *start;
        size_t have;

        must_eq(q_vsize(block[i]), pages(size[i]) << q_page_shift);
        must_eq(q_vsize((char *)block[i] + 16), 0);
        must(!q_vfree((char *)block[i] + 16));
        if (pages(size[i]) > 1) {
            must_eq(q_vsize((char *)block[i] + q_page_size()), 0);
            must(!q_vfree((char *)block[i] + q_page_size()));
        }
        if (i % 500 == 0) {
            must(q_vfind((char *)block[i] + size[i] - 1, &start, &have));
            must(start == block[i] && have == pages(size[i]) << q_page_shift);
        }
    }
    /* Every removal closes the gap it would leave: the others are still found. */
    for (size_t left = NR; left > 0; left--) {
        size_t i = rng_below(&r, left);

        must(core_stamped(block[i], pages(size[i]), seed[i]));
        must(q_vfree(block[i]));
        must_eq(q_vsize(block[i]), 0);
        bytes -= pages(size[i]) << q_page_shift;
        block[i] = block[left - 1];
        size[i] = size[left - 1];
        seed[i] = seed[left - 1];
        if (left % 100 == 0)
            for (size_t k = 0; k < left - 1; k++)
                must_eq(q_vsize(block[k]), pages(size[k]) << q_page_shift);
    }
    check_stat(0, 0);
}

Test(vmalloc, foreign_addresses)
{
    int on_stack;
    void *start;
    size_t have;

    core_start(CORE_FLAT);
    must_eq(q_vsize(NULL), 0);
    must(!q_vfree(NULL));
    must(!q_vfree(&on_stack));
    must(!q_vfind(&on_stack, &start, &have));
    must(!q_vresting(&on_stack));
    must_eq(q_vsize((void *)~(q_page_size() - 1)), 0);
}

Test(vmalloc, alignment)
{
    size_t dirty;

    core_start(CORE_FLAT);
    for (size_t align = 1; align <= (size_t)1 << 30; align *= 2) {
        for (size_t bytes = 1; bytes < (size_t)20 << 20; bytes = bytes * 7 + 3) {
            char *p = q_vmalloc(bytes, align, &dirty);

            must(p != NULL && ((uintptr_t)p & (align - 1)) == 0);
            must_eq(q_vsize(p), pages(bytes) << q_page_shift);
            check_clean(p, q_min(pages(bytes), dirty / q_page_size() + 16), dirty);
            p[0] = 1;
            p[bytes - 1] = 1;
            must(q_vfree(p));
        }
    }
}

Test(vmalloc, impossible_sizes)
{
    size_t dirty;

    core_start(CORE_FLAT);
    must(q_vmalloc(~(size_t)0, 1, &dirty) == NULL);
    must(q_vmalloc(~(size_t)0 - q_page_size(), 1, &dirty) == NULL);
    must(q_vmalloc((size_t)1 << 60, 1, &dirty) == NULL);
    must(q_vmalloc(q_page_size(), (size_t)1 << 60, &dirty) == NULL);
    must_eq(q_pages_in_use, 0);
    void *p = q_vmalloc(100, 1, &dirty);
    core_stamp(p, 1, 9);
    must(q_vrealloc(p, (size_t)1 << 60) == NULL);
    must(q_vrealloc(p, ~(size_t)0) == NULL);
    must_eq(q_vsize(p), q_page_size());
    must(core_stamped(p, 1, 9));
    check_stat(1, q_page_size());
}

Test(vmalloc, growing_and_shrinking_keeps_the_content, .timeout = 300)
{
    struct rng r = rng_new(61);
    void *p[8];
    size_t nr[8], bytes = 0;
    size_t dirty;

    core_start(CORE_FLAT);
    for (size_t i = 0; i < 8; i++) {
        nr[i] = 1;
        p[i] = q_vmalloc(1, 1, &dirty);
        core_stamp(p[i], 1, i);
    }
    for (int step = 0; step < 3000; step++) {
        size_t i = rng_below(&r, 8), now = 1 + rng_below(&r, (size_t)1 << rng_below(&r, 12));
        void *moved = q_vrealloc(p[i], now << q_page_shift);

        must(moved != NULL);
        must(core_stamped(moved, q_min(now, nr[i]), i));
        if (now > nr[i])
            must(core_is_zero((char *)moved + (nr[i] << q_page_shift), now - nr[i]));
        must_eq(q_vsize(moved), now << q_page_shift);
        must(moved == p[i] || q_vsize(p[i]) == 0 || p[i] == p[(i + 1) % 8]);
        core_stamp(moved, now, i);
        p[i] = moved;
        nr[i] = now;
    }
    for (size_t i = 0; i < 8; i++)
        bytes += nr[i] << q_page_shift;
    check_stat(8, bytes);
    for (size_t i = 0; i < 8; i++)
        must(core_stamped(p[i], nr[i], i) && q_vfree(p[i]));
    check_stat(0, 0);
}

/* What was freed comes back at the length asked for; resting blocks are known as such. */
Test(vmalloc, cache_serves_again)
{
    struct q_vstat st;
    size_t dirty;
    size_t mib = (size_t)1 << 20;

    q_opt.decay_ms = 3600000;
    core_start(CORE_FLAT);
    size_t others = ballast();
    char *p = q_vmalloc(10 * mib, 1, &dirty);
    core_stamp(p, pages(10 * mib), 3);
    must(!q_vresting(p));
    must(q_vfree(p));
    must(q_vresting(p) && q_vresting(p + 5 * mib));
    must(!q_vfree(p));
    must_eq(q_vsize(p), 0);
    q_vstat(&st);
    must(st.cached_blocks == 1 && st.cached_bytes == 10 * mib && st.blocks == 0);
    must_eq(q_pages_in_use, others);

    char *again = q_vmalloc(6 * mib, 1, &dirty);
    must(again == p && dirty == 6 * mib);
    must_eq(q_vsize(again), 6 * mib);
    must(is_unmapped(p + 6 * mib));
    q_vstat(&st);
    must(st.cached_blocks == 0 && st.cached_bytes == 0);

    must(q_vfree(again));
    char *larger = q_vmalloc(10 * mib, 1, &dirty);
    must(larger != NULL && dirty == 6 * mib);
    check_clean(larger, pages(10 * mib), dirty);
    must_eq(q_vsize(larger), 10 * mib);
    larger[10 * mib - 1] = 1;
    must(q_vfree(larger));
    must_eq(q_vtrim(true), 10 * mib);
    must(is_unmapped(larger));
    must(!q_vresting(larger));
    must_eq(q_vtrim(true), 0);
}

Test(vmalloc, cache_is_bounded)
{
    static void *many[100];
    struct q_vstat st;
    size_t dirty;
    size_t unit = (size_t)4 << 20;

    q_opt.decay_ms = 3600000;
    core_start(CORE_FLAT);
    ballast();
    for (size_t i = 0; i < 100; i++)
        must((many[i] = q_vmalloc(unit + (i << q_page_shift), 1, &dirty)) != NULL);
    for (size_t i = 0; i < 100; i++) {
        must(q_vfree(many[i]));
        q_vstat(&st);
        must(st.cached_blocks <= 16 && st.cached_bytes <= (size_t)256 << 20);
        must_eq(st.blocks, 99 - i);
    }
    size_t resting = 0;
    for (size_t i = 0; i < 100; i++)
        resting += q_vresting(many[i]);
    must(resting >= st.cached_blocks);
    must_eq(q_vtrim(true), st.cached_bytes);
    for (size_t i = 0; i < 100; i++)
        must(is_unmapped(many[i]));
}

/* Without that much in use, next to nothing rests. */
Test(vmalloc, cache_is_a_part_of_what_is_in_use)
{
    struct q_vstat st;
    size_t dirty, unit = (size_t)8 << 20;
    void *p[20];

    q_opt.decay_ms = 3600000;
    core_start(CORE_FLAT);
    for (size_t i = 0; i < 20; i++)
        must((p[i] = q_vmalloc(unit, 1, &dirty)) != NULL);
    for (size_t i = 0; i < 20; i++) {
        must(q_vfree(p[i]));
        q_vstat(&st);
        must(st.cached_bytes <= 20 * unit / 4);
    }
    must(st.cached_blocks > 0);
}

Test(vmalloc, too_large_for_the_cache)
{
    size_t dirty;

    q_opt.decay_ms = 3600000;
    core_start(CORE_FLAT);
    ballast();
    void *p = q_vmalloc((size_t)257 << 20, 1, &dirty);
    must(p != NULL && q_vfree(p));
    must(!q_vresting(p) && is_unmapped(p));
}

/* Threads with blocks of their own; the table is shared. */
static void *worker(void *arg)
{
    struct rng r = rng_new((uintptr_t)arg);
    void *p[40] = {NULL};
    size_t nr[40] = {0};
    size_t dirty;

    for (int step = 0; step < 3000; step++) {
        size_t i = rng_below(&r, 40), now = 1 + rng_below(&r, 40);

        if (p[i] == NULL) {
            must((p[i] = q_vmalloc(now << q_page_shift, 1, &dirty)) != NULL);
            check_clean(p[i], now, dirty);
        } else if (rng_below(&r, 2)) {
            must(core_stamped(p[i], nr[i], (uintptr_t)arg + i));
            must((p[i] = q_vrealloc(p[i], now << q_page_shift)) != NULL);
            must(core_stamped(p[i], q_min(now, nr[i]), (uintptr_t)arg + i));
        } else {
            must(core_stamped(p[i], nr[i], (uintptr_t)arg + i));
            must(q_vfree(p[i]));
            p[i] = NULL;
            continue;
        }
        nr[i] = now;
        core_stamp(p[i], now, (uintptr_t)arg + i);
    }
    for (size_t i = 0; i < 40; i++)
        if (p[i] != NULL)
            must(core_stamped(p[i], nr[i], (uintptr_t)arg + i) && q_vfree(p[i]));
    return NULL;
}

Test(vmalloc, threads, .timeout = 300)
{
    pthread_t t[4];

    q_opt.decay_ms = 5;
    core_start(CORE_FLAT);
    for (size_t i = 0; i < 4; i++)
        must(pthread_create(&t[i], NULL, worker, (void *)(i * 1000 + 1)) == 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    check_stat(0, 0);
}

static void *mover(void *arg)
{
    void *p = arg;

    for (int i = 0; i < 2000; i++) {
        must((p = q_vrealloc(p, q_page_size() << (1 + i % 4))) != NULL);
        must_eq(q_vsize(p), q_page_size() << (1 + i % 4));
    }
    return p;
}

/* A block that is on its way while the table is full keeps its place there. */
Test(vmalloc, full_table, .timeout = 600)
{
    static void *full[1 << 17];
    size_t nr = 0, dirty;
    pthread_t t;
    void *p;

    q_opt.decay_ms = 0;
    core_start(CORE_FLAT);
    must((p = q_vmalloc(q_page_size(), 1, &dirty)) != NULL);
    while (nr < 1 << 17 && (full[nr] = q_vmalloc(q_page_size(), 1, &dirty)) != NULL)
        nr++;
    if (nr < 130000)
        cr_skip_test("no more than %zu mappings here", nr);
    must(pthread_create(&t, NULL, mover, p) == 0);
    while (pthread_tryjoin_np(t, &p) != 0)
        must(q_vmalloc(q_page_size(), 1, &dirty) == NULL);
    must(q_vfree(p));
    for (size_t i = 0; i < nr; i += 1000)
        must_eq(q_vsize(full[i]), q_page_size());
}
