/* page_ref.c - counted runs: heads, counts, splitting; and that the zones stay right. */
#include "zone/page_ref.h"
#include "core.h"

static struct q_page *counted(size_t nr)
{
    struct q_page *page = q_alloc_run(Q_GFP_KERNEL, nr);

    must(page != NULL);
    q_page_set_counted(page);
    return page;
}

static void check_heads(enum core_kind kind)
{
    struct rng r = rng_new(3);

    core_start(kind);
    for (size_t nr = 1; nr <= (size_t)1 << Q_MAX_ORDER; nr += 1 + rng_below(&r, 40)) {
        struct q_page *page = counted(nr), *plain = q_alloc_run(Q_GFP_KERNEL, nr);

        for (size_t i = 0; i < nr; i++) {
            must(q_page_head(page + i) == page);
            must(q_page_head(plain + i) == NULL);
            must(q_page_at(page + i) == page + i);
        }
        must(q_page_head(page + nr) != page);
        must(q_page_at((char *)page + 1) == NULL);
        q_free_run(plain);
        must(q_page_put(page) == Q_PUT_LAST);
        must(q_page_head(page) == NULL);
        q_free_run(page);
        must(q_page_head(page + nr / 2) == NULL);
    }
    must(q_page_at(NULL) == NULL && q_page_at(&r) == NULL);
    core_check();
}

Test(page_ref, heads_of_all_lengths)
{
    check_heads(CORE_FLAT);
}

Test(page_ref, heads_sparse)
{
    check_heads(CORE_SPARSE);
}

/* malloc's runs stand anywhere, and grow where they are; each is marked by any of its pages. */
Test(page_ref, moved_by_any_page)
{
    struct rng r = rng_new(5);
    struct q_page *page[300];

    core_start(CORE_FLAT);
    for (unsigned i = 0; i < 300; i++)
        must((page[i] = q_alloc_run(Q_GFP_MOVABLE, 1)) != NULL);
    for (unsigned i = 0; i < 300; i++) {
        q_free_run(page[i]);
        page[i] = q_alloc_run(Q_GFP_MOVABLE | Q_GFP_ANYWHERE, 1 + rng_below(&r, 40));
        must(page[i] != NULL);
        q_grow_run(page[i], page[i]->nr + 1 + rng_below(&r, 5));
    }
    for (unsigned i = 0; i < 300; i++) {
        for (size_t at = page[i]->nr; at-- > 0;) {
            must_eq(page[i]->flags, 0);
            must_eq(q_page_set_moved(page[i] + at), page[i]->nr - at);
            must_eq(page[i]->flags, Q_PAGE_MOVED);
            page[i]->flags = 0;
        }
    }
    for (unsigned i = 0; i < 300; i++) {
        struct q_page *tail = page[i] + page[i]->nr / 2;

        q_free_run(page[i]);
        must_eq(q_page_set_moved(tail), 1);
        must_eq(page[i]->flags | tail->flags, 0);
    }
    core_check();
}

Test(page_ref, counts)
{
    core_start(CORE_FLAT);
    struct q_page *page = counted(4), *plain = q_alloc_run(Q_GFP_KERNEL, 1);

    for (unsigned i = 2; i < 100; i++) {
        must(q_page_get(page));
        must_eq(q_page_count(page), i);
    }
    for (unsigned i = 99; i > 1; i--)
        must_eq(q_page_put(page), Q_PUT_KEPT);
    must_eq(q_page_put(page), Q_PUT_LAST);
    must_eq(q_page_put(page), Q_PUT_NONE);
    must(!q_page_get(page));
    must(!q_page_get(plain));
    must_eq(q_page_put(plain), Q_PUT_NONE);
    page->refcount = Q_PAGE_COUNTED | Q_PAGE_COUNT_MAX;
    must(!q_page_get(page));
    must_eq(q_page_count(page), Q_PAGE_COUNT_MAX);
}

Test(page_ref, split_runs_are_runs)
{
    struct rng r = rng_new(4);

    core_start(CORE_FLAT);
    for (unsigned round = 0; round < 30; round++) {
        size_t nr = 1 + rng_below(&r, 1024);
        struct q_page *page = counted(nr);

        q_split_run(page);
        core_check();
        for (size_t i = 0; i < nr; i++) {
            must(q_page_head(page + i) == page + i);
            must_eq(page[i].nr, 1);
            must_eq(q_page_put(page + i), Q_PUT_LAST);
        }
        /* In no order at all. */
        for (size_t i = 0, at = 0; i < nr; i++, at = (at + 7919) % nr) {
            while (page[at].type != Q_PAGE_RUN)
                at = (at + 1) % nr;
            q_free_run(page + at);
        }
        core_check();
    }
    must_eq(q_pages_in_use, 0);
}
