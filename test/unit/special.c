/* special.c - the zones that serve only who names them, against a model that knows every page. */
#include "zone/special.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core.h"
#include "zone/page_ref.h"

#define MAX_RUNS 300
#define LOW_END ((uintptr_t)1 << 32)

static struct {
    struct q_page *page;
    size_t nr;
    uint64_t seed;
} runs[MAX_RUNS];
static size_t nr_runs, pages_held;

/* No page of the run is in another one, and it is where and as it was asked for. */
static void check_place(enum q_special kind, const struct q_page *page, unsigned order)
{
    uintptr_t at = (uintptr_t)q_special_address(page);
    size_t bytes = (size_t)page->nr << q_page_shift;

    must_eq(at & ((q_page_size() << order) - 1), 0);
    must(kind != Q_SPECIAL_DMA32 || at + bytes <= LOW_END);
    must(q_page_at(page) == page && q_page_is_special(page));
    for (size_t i = 0; i < page->nr; i += 1 + page->nr / 3) {
        must(q_special_virt_to_page((char *)at + (i << q_page_shift) + 7) == page + i);
        must(q_special_pfn_to_page(q_special_pfn(page + i)) == page + i);
        must(q_special_pfn(page + i) == q_special_pfn(page) + i);
        must(q_page_head((struct q_page *)page + i) == page);
    }
    for (size_t i = 0; i < nr_runs; i++) {
        uintptr_t other = (uintptr_t)q_special_address(runs[i].page);
        must(at + bytes <= other || other + (runs[i].nr << q_page_shift) <= at);
    }
}

static void alloc_one(enum q_special kind, struct rng *rng)
{
    unsigned order = (unsigned)rng_below(rng, rng_below(rng, 8) == 0 ? Q_NR_ORDERS : 5);
    size_t nr = ((size_t)1 << order) - rng_below(rng, ((size_t)1 << order) / 2 + 1);
    bool zero = rng_below(rng, 2) == 0;
    int error;

    if (nr_runs == MAX_RUNS || pages_held > 6000)
        return;
    struct q_page *page = q_special_alloc(kind, order, nr, zero, &error);
    must(page != NULL);
    must_eq(page->nr, nr);
    q_page_set_counted(page);
    check_place(kind, page, order);
    if (zero)
        must(core_is_zero(q_special_address(page), nr));
    runs[nr_runs].page = page;
    runs[nr_runs].nr = nr;
    runs[nr_runs].seed = rng_next(rng);
    core_stamp(q_special_address(page), nr, runs[nr_runs].seed);
    nr_runs++;
    pages_held += nr;
}

static void free_one(struct rng *rng)
{
    size_t i = rng_below(rng, nr_runs);

    must(core_stamped(q_special_address(runs[i].page), runs[i].nr, runs[i].seed));
    must_eq(q_page_put(runs[i].page), Q_PUT_LAST);
    q_special_free(runs[i].page);
    pages_held -= runs[i].nr;
    runs[i] = runs[--nr_runs];
}

/* What is not held is free, and what is free and not marked is zero. */
static void check_zone(enum q_special kind)
{
    struct q_special_zone *zone = &q_special_zones[kind];
    size_t written = 0;

    q_buddy_verify(&zone->buddy);
    must_eq(zone->buddy.nr_free_pages + pages_held, zone->present_pages);
    must_eq(q_pages_in_use, pages_held);
    must_eq(q_pages_outside, pages_held);
    for (unsigned order = 0; order < Q_NR_ORDERS; order++)
        for (unsigned list = 0; list < Q_NR_LISTS; list++) {
            struct q_list *head = &zone->buddy.area[order].free_list[list];

            for (struct q_list *l = head->next; l != NULL && l != head; l = l->next) {
                struct q_page *page = q_container_of(l, struct q_page, lru);

                for (size_t i = 0; i < (size_t)1 << order; i++) {
                    bool marked = (page[i].flags & Q_PAGE_WRITTEN) != 0;

                    written += marked;
                    must(!marked || (list & 1) == 0);
                    must(marked || core_is_zero(q_special_address(page + i), 1));
                }
            }
        }
    must_eq(written, zone->nr_written);
    must(zone->nr_written << q_page_shift <= q_special_ops[kind]->keep_bytes);
}

static void random_runs(enum q_special kind, enum core_kind model, uint64_t salt)
{
    struct rng rng = rng_new(salt);

    core_start(model);
    for (int step = 0; step < 3000; step++) {
        if (nr_runs == 0 || rng_below(&rng, 100) < (step / 500 % 2 == 0 ? 60u : 40u))
            alloc_one(kind, &rng);
        else
            free_one(&rng);
        if (step % 500 == 499)
            check_zone(kind);
    }
    while (nr_runs > 0)
        free_one(&rng);
    check_zone(kind);
    q_special_trim();
    must_eq(q_special_zones[kind].nr_written, 0);
    check_zone(kind);
}

Test(special, low_runs_at_random)
{
    random_runs(Q_SPECIAL_DMA32, CORE_FLAT, 1);
}

Test(special, low_runs_at_random_numa)
{
    random_runs(Q_SPECIAL_DMA32, CORE_NUMA, 2);
}

Test(special, low_runs_at_random_sparse)
{
    random_runs(Q_SPECIAL_DMA32, CORE_SPARSE, 3);
}

/* Locking needs a limit that lets us; without it nothing is given out. */
static bool may_lock(void)
{
    struct rlimit limit;
    int error;

    getrlimit(RLIMIT_MEMLOCK, &limit);
    struct q_page *page = q_special_alloc(Q_SPECIAL_DMA, Q_MAX_ORDER, 1024, false, &error);
    if (page == NULL) {
        must(error == ENOMEM || error == EPERM);
        must_eq(q_pages_in_use, 0);
        return false;
    }
    q_special_free(page);
    return geteuid() == 0 || limit.rlim_cur >= (size_t)32 << 20;
}

Test(special, locked_runs_at_random)
{
    core_start(CORE_FLAT);
    if (!may_lock())
        cr_skip_test("RLIMIT_MEMLOCK is below 32 MiB");
    random_runs(Q_SPECIAL_DMA, CORE_FLAT, 4);
}

Test(special, splitting)
{
    core_start(CORE_FLAT);
    int error;
    struct q_page *page = q_special_alloc(Q_SPECIAL_DMA32, 5, 32, true, &error);

    must(page != NULL);
    q_page_set_counted(page);
    q_special_split(page);
    for (int i = 31; i >= 0; i--) {
        must(q_page_head(page + i) == page + i && page[i].nr == 1);
        must_eq(q_page_put(page + i), Q_PUT_LAST);
        q_special_free(page + i);
    }
    check_zone(Q_SPECIAL_DMA32);
    must_eq(q_special_zones[Q_SPECIAL_DMA32].buddy.area[Q_MAX_ORDER].nr_free, 1);
}

/* The program's own mappings are left alone, and at the end of it all there is ENOMEM. */
Test(special, all_of_it)
{
    static struct q_page *all[1100];
    size_t nr = 0, len = q_page_size();
    unsigned char *own[3];
    int error = 0;

    core_start(CORE_FLAT);
    for (unsigned i = 0; i < 3; i++) {
        void *at = (void *)(LOW_END - (size_t)(3 * i + 1) * q_max_block_size() + len * i);
        own[i] = mmap(at, len, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        must(own[i] == MAP_FAILED || own[i] == at);
        if (own[i] != MAP_FAILED)
            memset(own[i], 0x5a, len);
    }
    while (nr < 1100 &&
           (all[nr] = q_special_alloc(Q_SPECIAL_DMA32, Q_MAX_ORDER, 1024, false, &error)) != NULL)
        nr++;
    must(nr <= LOW_END / q_max_block_size());
    must_eq(error, ENOMEM);
    must_eq(q_pages_in_use, nr << Q_MAX_ORDER);
    for (unsigned i = 0; i < 3; i++)
        for (size_t at = 0; own[i] != MAP_FAILED && at < len; at++)
            must_eq(own[i][at], 0x5a);
    if (nr < 2)
        cr_skip_test("hardly any room below 4 GiB here");
    /* What comes back serves again, without a look for more. */
    q_special_free(all[nr - 1]);
    must(q_special_alloc(Q_SPECIAL_DMA32, 0, 1, true, &error) != NULL);
    must(q_special_alloc(Q_SPECIAL_DMA32, Q_MAX_ORDER, 1024, false, &error) == NULL);
    must_eq(error, ENOMEM);
}

Test(special, the_limit_counts)
{
    q_opt.limit = (size_t)8 << 20;
    core_start(CORE_FLAT);
    int error;
    struct q_page *page = q_special_alloc(Q_SPECIAL_DMA32, 0, 1, false, &error);

    must(page != NULL);
    must(q_special_alloc(Q_SPECIAL_DMA32, Q_MAX_ORDER, q_opt.limit >> q_page_shift, false,
                         &error) == NULL ||
         q_page_shift != 12);
    must(q_alloc_run(Q_GFP_KERNEL, 4) != NULL);
    must_eq(q_pages_in_use, 5);
    q_special_free(page);
    must_eq(q_pages_in_use, 4);
}

/* However many sections with addresses there are: files' need no place in the table of those. */
Test(special, files_when_addresses_are_many, .timeout = 60)
{
    size_t nr = 0;
    int error = 0;

    core_start(CORE_FLAT);
    if (!may_lock())
        cr_skip_test("RLIMIT_MEMLOCK is below 32 MiB");
    /* One locked page of each. */
    while (nr < 5000 && q_special_alloc(Q_SPECIAL_DMA, Q_MAX_ORDER, 1, false, &error) != NULL)
        nr++;
    if (nr != 4096)
        cr_skip_test("%zu sections, errno %d", nr, error);
    must_eq(error, ENOMEM);
    must(q_special_alloc(Q_SPECIAL_HIGHMEM, 0, 1, true, &error) != NULL);
    must(q_special_alloc(Q_SPECIAL_DMA32, 0, 1, true, &error) == NULL);
}

/* A handler that may not wait puts runs aside; the next call of anybody frees them. */
Test(special, freed_later)
{
    core_start(CORE_FLAT);
    struct q_page *page[8];
    int error;

    for (int i = 0; i < 8; i++)
        page[i] = q_special_alloc(Q_SPECIAL_DMA32, 2, 4, false, &error);
    for (int i = 0; i < 7; i++)
        q_special_free_later(page[i]);
    must_eq(q_pages_in_use, 32);
    q_special_free(page[7]);
    must_eq(q_pages_in_use, 0);
    check_zone(Q_SPECIAL_DMA32);
}

static void *take_and_leave(void *lock)
{
    q_lock(lock); /* by a thread that is not there in the child */
    return NULL;
}

/* A child of a fork that could not wait makes the lists anew from the struct pages. */
Test(special, lists_anew_in_a_child)
{
    core_start(CORE_FLAT);
    struct rng rng = rng_new(9);

    for (int step = 0; step < 600; step++) {
        if (nr_runs == 0 || rng_below(&rng, 100) < 60)
            alloc_one(Q_SPECIAL_DMA32, &rng);
        else
            free_one(&rng);
    }
    struct q_special_zone *zone = &q_special_zones[Q_SPECIAL_DMA32];
    size_t nr_free = zone->buddy.nr_free_pages;
    pthread_t other;
    must(pthread_create(&other, NULL, take_and_leave, &zone->lock) == 0);
    pthread_join(other, NULL);
    struct q_list *head = &zone->buddy.area[0].free_list[0];
    head->next = head->prev = NULL;
    zone->buddy.nr_free_pages = 12345;
    q_special_fork_child();
    q_buddy_verify(&zone->buddy);
    must_eq(zone->buddy.nr_free_pages, nr_free);
    must_eq(zone->nr_written, nr_free);
    while (nr_runs > 0)
        free_one(&rng);
    q_special_trim();
    check_zone(Q_SPECIAL_DMA32);
}
