/* buddy.c - the buddy allocator over an array of pages, against a model that knows each page. */
#include <string.h>

#include "buddy/buddy.h"
#include "unit.h"

#define MAX_BLOCK ((size_t)1 << Q_MAX_ORDER)
#define FIRST_PFN (3 * MAX_BLOCK) /* not 0, so that a mix-up of pfn and index shows */
#define NR_PAGES (6 * MAX_BLOCK)

/* Pages before and behind are in use for ever; merging must not look past the ends of blocks. */
static struct q_page map[NR_PAGES + 2 * MAX_BLOCK];
static struct q_page *const pages = map + MAX_BLOCK;
static struct q_buddy buddy;

/* The model: owner of each page, 0 where it is free; whether a free page holds no memory. */
static uint32_t owner[NR_PAGES];
static bool fresh[NR_PAGES];
static size_t nr_free;

struct block {
    size_t at, nr; /* index of the first page, pages */
};
static struct block blocks[NR_PAGES + 1];
static uint32_t nr_blocks;

static size_t index_of(const struct q_page *page)
{
    must(page >= pages && page < pages + NR_PAGES);
    return (size_t)(page - pages);
}

/* The largest aligned block around page i that the model says is free. */
static unsigned largest_free_around(size_t i)
{
    unsigned order = 0;

    while (order < Q_MAX_ORDER) {
        size_t start = i & ~(((size_t)2 << order) - 1);

        for (size_t p = start; p < start + ((size_t)2 << order); p++)
            if (owner[p] != 0)
                return order;
        order++;
    }
    return order;
}

/*
 * Every free page lies in exactly one free block, the largest that can be, and every free block
 * holds only free pages: from this follow all invariants of buddy.h.
 */
static void check_all(void)
{
    size_t free_pages = 0, by_order[Q_NR_ORDERS] = {0};

    q_buddy_verify(&buddy);
    for (size_t i = 0; i < NR_PAGES;) {
        if (owner[i] != 0) {
            must(pages[i].type != Q_PAGE_BUDDY);
            i++;
            continue;
        }
        must_eq(pages[i].type, Q_PAGE_BUDDY);
        unsigned order = pages[i].order;
        must_eq(order, largest_free_around(i));
        must_eq(i & (((size_t)1 << order) - 1), 0);
        must(q_list_linked(&pages[i].lru));
        for (size_t p = i + 1; p < i + ((size_t)1 << order); p++) {
            must_eq(owner[p], 0);
            must_eq(pages[p].type, Q_PAGE_NONE);
            must_eq(fresh[p], fresh[i]);
        }
        must_eq(pages[i].list & 1, fresh[i]);
        by_order[order]++;
        free_pages += (size_t)1 << order;
        i += (size_t)1 << order;
    }
    must_eq(free_pages, nr_free);
    must_eq(buddy.nr_free_pages, nr_free);
    for (unsigned o = 0; o < Q_NR_ORDERS; o++)
        must_eq(buddy.area[o].nr_free, by_order[o]);
}

/* The cheap half of check_all(), after every step: the counters. */
static void check_counts(void)
{
    size_t sum = 0;

    for (unsigned o = 0; o < Q_NR_ORDERS; o++)
        sum += buddy.area[o].nr_free << o;
    must_eq(sum, nr_free);
    must_eq(buddy.nr_free_pages, nr_free);
}

static void start(void)
{
    for (size_t i = 0; i < NR_PAGES; i += MAX_BLOCK) {
        enum q_mobility m = (enum q_mobility)(i / MAX_BLOCK % Q_NR_MOBILITIES);
        struct q_free_how how = {.mobility = (uint8_t)m, .fresh = true};
        must_eq(q_buddy_free(&buddy, pages + i, FIRST_PFN + i, Q_MAX_ORDER, how), Q_MAX_ORDER);
    }
    memset(fresh, true, sizeof(fresh));
    nr_free = NR_PAGES;
    check_all();
}

static void note_taken(size_t at, size_t nr)
{
    uint32_t id = ++nr_blocks;

    for (size_t i = at; i < at + nr; i++) {
        must_eq(owner[i], 0);
        owner[i] = id;
    }
    blocks[id] = (struct block){at, nr};
    nr_free -= nr;
}

static struct block forget(uint32_t id)
{
    struct block b = blocks[id];

    for (size_t i = b.at; i < b.at + b.nr; i++)
        owner[i] = 0;
    blocks[id] = blocks[nr_blocks];
    if (id != nr_blocks)
        for (size_t i = blocks[id].at; i < blocks[id].at + blocks[id].nr; i++)
            owner[i] = id;
    nr_blocks--;
    nr_free += b.nr;
    return b;
}

static bool is_free_head(size_t i, enum q_mobility m)
{
    return owner[i] == 0 && pages[i].type == Q_PAGE_BUDDY && pages[i].list / 2 == m;
}

static bool model_has(unsigned order, enum q_mobility m)
{
    for (size_t i = 0; i < NR_PAGES; i++)
        if (is_free_head(i, m) && pages[i].order >= order)
            return true;
    return false;
}

/*
 * The block that a request must be cut from: the smallest that fits of those that hold memory,
 * else the smallest fresh one.
 */
static unsigned smallest_fit(unsigned order, enum q_mobility m, bool *is_fresh)
{
    unsigned best[2] = {Q_NR_ORDERS, Q_NR_ORDERS};

    for (size_t i = 0; i < NR_PAGES; i++)
        if (is_free_head(i, m) && pages[i].order >= order && pages[i].order < best[fresh[i]])
            best[fresh[i]] = pages[i].order;
    *is_fresh = best[0] == Q_NR_ORDERS;
    return best[*is_fresh];
}

/* Pages [at, at + nr) went back: what merged is fresh only if all of it was. */
static void note_freed(size_t at, size_t nr, bool as_fresh)
{
    for (size_t i = at; i < at + nr; i++)
        fresh[i] = as_fresh;
    for (size_t i = at; i < at + nr;) {
        size_t len = (size_t)1 << largest_free_around(i), start = i & ~(len - 1);
        bool all = true;

        for (size_t p = start; p < start + len; p++)
            all &= fresh[p];
        for (size_t p = start; p < start + len; p++)
            fresh[p] = all;
        i = start + len;
    }
}

static void random_alloc(struct rng *r)
{
    unsigned order = (unsigned)(rng_below(r, 4) == 0 ? rng_below(r, Q_NR_ORDERS) : rng_below(r, 5));
    enum q_mobility m = (enum q_mobility)rng_below(r, Q_NR_MOBILITIES);
    bool is_fresh;
    unsigned from = smallest_fit(order, m, &is_fresh);
    size_t count = from < Q_NR_ORDERS ? buddy.area[from].nr_free : 0;
    struct q_page *page = q_buddy_alloc(&buddy, order, m, NULL);

    must_eq(page != NULL, from < Q_NR_ORDERS);
    if (page == NULL)
        return;
    size_t at = index_of(page);
    must_eq(at & (((size_t)1 << order) - 1), 0);
    must_eq(page->type, Q_PAGE_NONE);
    must_eq(buddy.area[from].nr_free, count - 1);
    must_eq(fresh[at], is_fresh);
    note_taken(at, (size_t)1 << order);
}

static struct q_free_how random_how(struct rng *r)
{
    return (struct q_free_how){.mobility = (uint8_t)rng_below(r, Q_NR_MOBILITIES),
                               .fresh = rng_below(r, 3) == 0,
                               .to_tail = rng_below(r, 2) != 0};
}

static void random_free(struct rng *r)
{
    if (nr_blocks == 0)
        return;
    struct block b = forget(1 + (uint32_t)rng_below(r, nr_blocks));
    struct q_free_how how = random_how(r);

    if ((b.nr & (b.nr - 1)) == 0 && (b.at & (b.nr - 1)) == 0 && rng_below(r, 2) != 0) {
        unsigned got = q_buddy_free(&buddy, pages + b.at, FIRST_PFN + b.at, q_fls(b.nr), how);
        must_eq(got, largest_free_around(b.at));
    } else {
        q_buddy_free_range(&buddy, pages + b.at, FIRST_PFN + b.at, b.nr, how);
    }
    note_freed(b.at, b.nr, how.fresh);
}

/* Give the tail of a block back, as exact lengths do. */
static void random_cut(struct rng *r)
{
    if (nr_blocks == 0)
        return;
    uint32_t id = 1 + (uint32_t)rng_below(r, nr_blocks);
    struct block *b = &blocks[id];

    if (b->nr == 1)
        return;
    size_t keep = 1 + rng_below(r, b->nr - 1), cut = b->nr - keep;
    for (size_t i = b->at + keep; i < b->at + b->nr; i++)
        owner[i] = 0;
    b->nr = keep;
    nr_free += cut;
    struct q_free_how how = random_how(r);
    size_t at = b->at + keep;
    q_buddy_free_range(&buddy, pages + at, FIRST_PFN + at, cut, how);
    note_freed(at, cut, how.fresh);
}

static void random_retype(struct rng *r)
{
    unsigned least = (unsigned)rng_below(r, Q_NR_ORDERS);
    enum q_mobility from = (enum q_mobility)rng_below(r, Q_NR_MOBILITIES);
    enum q_mobility to = (enum q_mobility)rng_below(r, Q_NR_MOBILITIES);
    struct q_page *page = q_buddy_largest(&buddy, least, from);

    must_eq(page != NULL, model_has(least, from));
    if (page == NULL)
        return;
    must_eq(page->list / 2, from);
    must(page->order == Q_MAX_ORDER || !model_has(page->order + 1u, from));
    unsigned order = page->order;
    if (rng_below(r, 4) == 0) {
        q_buddy_freshen(&buddy, page);
        must_eq(page->list, 2 * from + 1);
        memset(fresh + index_of(page), true, (size_t)1 << order);
    } else {
        bool was = page->list & 1;
        q_buddy_retype(&buddy, page, to);
        must_eq(page->list, 2 * to + was);
    }
    must_eq(page->order, order);
}

Test(buddy, random_operations_against_a_model)
{
    struct rng r = rng_new(1);

    start();
    for (int step = 0; step < 12000; step++) {
        /* Drift between a full and an empty array. */
        bool filling = step / 1500 % 2 == 0;

        switch (rng_below(&r, 10)) {
        case 0:
            random_cut(&r);
            break;
        case 1:
            random_retype(&r);
            break;
        case 2:
        case 3:
        case 4:
            filling ? random_free(&r) : random_alloc(&r);
            break;
        default:
            filling ? random_alloc(&r) : random_free(&r);
        }
        check_counts();
        if (step % 8 == 0)
            check_all();
    }
    while (nr_blocks > 0)
        random_free(&r);
    check_all();
    must_eq(buddy.area[Q_MAX_ORDER].nr_free, NR_PAGES / MAX_BLOCK);
}

/* The kernel's textbook case: one page out of a full block leaves one block of each lower order. */
Test(buddy, split_leaves_one_half_of_every_order)
{
    q_buddy_free(&buddy, pages, FIRST_PFN, Q_MAX_ORDER,
                 (struct q_free_how){.mobility = Q_UNMOVABLE});
    struct q_page *page = q_buddy_alloc(&buddy, 0, Q_UNMOVABLE, NULL);

    must(page == pages);
    for (unsigned o = 0; o < Q_MAX_ORDER; o++)
        must_eq(buddy.area[o].nr_free, 1);
    must_eq(buddy.area[Q_MAX_ORDER].nr_free, 0);
    must_eq(q_buddy_free(&buddy, page, FIRST_PFN, 0, (struct q_free_how){.mobility = Q_UNMOVABLE}),
            Q_MAX_ORDER);
    must_eq(buddy.area[Q_MAX_ORDER].nr_free, 1);
}

Test(buddy, head_is_taken_first_tail_last)
{
    /* Every second page: no two merge. */
    for (size_t i = 0; i < 8; i += 2)
        q_buddy_free(&buddy, pages + i, FIRST_PFN + i, 0,
                     (struct q_free_how){.mobility = Q_MOVABLE, .to_tail = i >= 4});
    /* 0 and 2 went to the head, 4 and 6 to the tail: 2 0 4 6. */
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) == pages + 2);
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) == pages + 0);
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) == pages + 4);
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) == pages + 6);
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) == NULL);
}

Test(buddy, other_mobilities_are_left_alone)
{
    q_buddy_free(&buddy, pages, FIRST_PFN, 3, (struct q_free_how){.mobility = Q_MOVABLE});
    must(q_buddy_alloc(&buddy, 0, Q_UNMOVABLE, NULL) == NULL);
    must(q_buddy_alloc(&buddy, 0, Q_RECLAIMABLE, NULL) == NULL);
    must(q_buddy_alloc(&buddy, 4, Q_MOVABLE, NULL) == NULL);
    must(q_buddy_alloc(&buddy, 3, Q_MOVABLE, NULL) == pages);
}

/* A block that holds memory goes before a fresh one, even if it is larger and must be split. */
Test(buddy, used_before_fresh)
{
    q_buddy_free(&buddy, pages, FIRST_PFN, 0,
                 (struct q_free_how){.mobility = Q_MOVABLE, .fresh = true});
    q_buddy_free(&buddy, pages + 16, FIRST_PFN + 16, 4, (struct q_free_how){.mobility = Q_MOVABLE});
    for (size_t i = 16; i < 32; i++)
        must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) >= pages + 16);
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) == pages);
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, NULL) == NULL);
}

/* Of the 64 pages from `pages` on, only number 37 holds memory. */
static bool but_for_one(const struct q_page *page, unsigned order)
{
    size_t at = (size_t)(page - pages);

    return at > 37 || at + ((size_t)1 << order) <= 37;
}

/* Splitting a block that merged from both kinds gives the memory first, and keeps the rest apart. */
Test(buddy, split_tells_fresh_from_used)
{
    q_buddy_free(&buddy, pages, FIRST_PFN, 6, (struct q_free_how){.mobility = Q_MOVABLE});
    must(q_buddy_alloc(&buddy, 0, Q_MOVABLE, but_for_one) == pages + 37);
    for (unsigned order = 0; order < 6; order++) {
        must_eq(buddy.area[order].nr_free, 1);
        must(!q_list_empty(&buddy.area[order].free_list[q_list_index(Q_MOVABLE, true)]));
    }
    q_buddy_verify(&buddy);
    /* What has memory again merges with the rest, and is found again. */
    q_buddy_free(&buddy, pages + 37, FIRST_PFN + 37, 0, (struct q_free_how){.mobility = Q_MOVABLE});
    must_eq(buddy.area[6].nr_free, 1);
    must(q_buddy_alloc(&buddy, 2, Q_MOVABLE, but_for_one) == pages + 36);
    /* Nothing but fresh ones is left: the smallest that fits. */
    must(q_buddy_alloc(&buddy, 2, Q_MOVABLE, but_for_one) == pages + 32);
}

/* Any range is cut into the fewest aligned blocks, and what is freed so can be had again. */
Test(buddy, ranges_of_every_length_and_place)
{
    for (size_t at = 0; at < 40; at++) {
        for (size_t nr = 1; nr < 150; nr++) {
            memset(&buddy, 0, sizeof(buddy));
            memset(map, 0, sizeof(struct q_page) * 2 * MAX_BLOCK);
            q_buddy_free_range(&buddy, pages + at, FIRST_PFN + at, nr,
                               (struct q_free_how){.mobility = Q_UNMOVABLE});
            q_buddy_verify(&buddy);
            must_eq(buddy.nr_free_pages, nr);
            for (size_t i = at, end = at + nr; i < end;) {
                unsigned order = pages[i].order;

                must_eq(pages[i].type, Q_PAGE_BUDDY);
                must_eq(i & (((size_t)1 << order) - 1), 0);
                /* Twice as long would not be aligned, or would not fit. */
                must((i & ((size_t)1 << order)) != 0 || i + ((size_t)2 << order) > end);
                i += (size_t)1 << order;
                must(i <= end);
            }
        }
    }
}
