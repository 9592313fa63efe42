/* highmem.c - pages without addresses, windows and areas, against a model of what is mapped where. */
#include "zone/highmem.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core.h"
#include "zone/area.h"
#include "zone/page_ref.h"

#define PAGES 700

static struct {
    struct q_page *page;
    unsigned maps;  /* kmaps that the model knows of */
    uint64_t value; /* what was last written to it */
} all[PAGES];

static struct q_page *alloc(enum q_special kind)
{
    int error;
    struct q_page *page = q_special_alloc(kind, 0, 1, false, &error);

    if (page == NULL && kind == Q_SPECIAL_SECRET && (error == EOPNOTSUPP || error == ENOMEM))
        cr_skip_test("memfd_secret is not to be had here");
    must(page != NULL);
    q_page_set_counted(page);
    return page;
}

static uint64_t *map(struct q_page *page)
{
    int error;
    uint64_t *at = q_kmap(page, &error);

    must(at != NULL);
    must(q_kmap_address(page) == at && q_kmap_page((char *)at + 9) == page);
    return at;
}

static void check_guards(const uint64_t *at, size_t nr)
{
    /* Nothing on either side: the kernel has nowhere to write to. */
    int fd[2];

    must(pipe(fd) == 0);
    must(write(fd[1], "xy", 2) == 2);
    must(read(fd[0], (char *)at - 1, 1) == -1 && errno == EFAULT);
    must(read(fd[0], (char *)at + (nr << q_page_shift), 1) == -1 && errno == EFAULT);
    close(fd[0]);
    close(fd[1]);
}

static void step(enum q_special kind, struct rng *rng, unsigned *in_use)
{
    size_t i = rng_below(rng, PAGES);
    struct q_page *page = all[i].page;
    uint64_t what = rng_below(rng, 10);

    if (page == NULL) {
        all[i].page = alloc(kind);
        all[i].value = 0;
        must(q_kmap_address(all[i].page) == NULL && q_special_address(all[i].page) == NULL);
    } else if (what < 6 && (all[i].maps > 0 || *in_use < Q_NR_KMAP)) {
        uint64_t *at = map(page);

        *in_use += all[i].maps++ == 0;
        must_eq(at[0], all[i].value);
        must_eq(at[q_page_size() / 8 - 1], all[i].value);
        all[i].value = at[0] = at[q_page_size() / 8 - 1] = rng_next(rng);
        if (what == 0)
            check_guards(at, 1);
    } else if (all[i].maps > 0) {
        must(q_kunmap(page));
        *in_use -= --all[i].maps == 0;
    } else {
        must(!q_kunmap(page));
        must(q_kmap_address(page) == NULL);
        must_eq(q_page_put(page), Q_PUT_LAST);
        q_special_free(page);
        all[i].page = NULL;
    }
}

static void random_maps(enum q_special kind, enum core_kind model, int steps)
{
    struct rng rng = rng_new(kind);
    unsigned in_use = 0;

    core_start(model);
    for (int i = 0; i < steps; i++)
        step(kind, &rng, &in_use);
    for (unsigned i = 0; i < PAGES; i++) {
        while (all[i].maps > 0 && all[i].maps-- > 0)
            must(q_kunmap(all[i].page));
        if (all[i].page != NULL)
            q_special_free(all[i].page);
    }
    q_buddy_verify(&q_special_zones[kind].buddy);
    must_eq(q_special_zones[kind].buddy.nr_free_pages, q_special_zones[kind].present_pages);
    must_eq(q_special_zones[kind].nr_written, 0);
    must_eq(q_pages_in_use, 0);
}

Test(highmem, maps_at_random)
{
    random_maps(Q_SPECIAL_HIGHMEM, CORE_FLAT, 20000);
}

Test(highmem, maps_at_random_sparse)
{
    random_maps(Q_SPECIAL_HIGHMEM, CORE_SPARSE, 5000);
}

Test(highmem, secret_maps_at_random)
{
    random_maps(Q_SPECIAL_SECRET, CORE_FLAT, 5000);
}

/* All windows in use is an error, and one that comes free serves again. */
Test(highmem, windows_run_out)
{
    core_start(CORE_FLAT);
    static struct q_page *page[Q_NR_KMAP + 1];
    int error;

    for (unsigned i = 0; i <= Q_NR_KMAP; i++)
        page[i] = alloc(Q_SPECIAL_HIGHMEM);
    for (unsigned i = 0; i < Q_NR_KMAP; i++)
        *map(page[i]) = i;
    must(q_kmap(page[Q_NR_KMAP], &error) == NULL);
    must_eq(error, EBUSY);
    must(q_kmap(page[7], &error) == q_kmap_address(page[7]));
    must(q_kunmap(page[7]) && q_kunmap(page[7]) && !q_kunmap(page[7]));
    must_eq(*map(page[Q_NR_KMAP]), 0);
    must(q_kmap(page[7], &error) == NULL);
    for (unsigned i = 0; i < Q_NR_KMAP; i++)
        must(i == 7 || *(uint64_t *)q_kmap_address(page[i]) == i);
}

/* A page that is freed leaves no window behind, and comes back empty. */
Test(highmem, freed_pages_are_gone)
{
    core_start(CORE_FLAT);
    struct q_page *page = alloc(Q_SPECIAL_HIGHMEM);
    uint64_t *at = map(page);
    int fd[2];

    must(pipe(fd) == 0);
    memset(at, 0x77, q_page_size());
    must(q_kunmap(page));
    must(write(fd[1], at, 1) == 1);
    must_eq(q_page_put(page), Q_PUT_LAST);
    q_special_free(page);
    must(write(fd[1], at, 1) == -1 && errno == EFAULT);
    for (unsigned i = 0; i < 3; i++)
        must(core_is_zero(map(alloc(Q_SPECIAL_HIGHMEM)), 1));
}

/* Areas of pages from anywhere, in any order, some of them twice. */
Test(highmem, areas_at_random)
{
    core_start(CORE_FLAT);
    struct rng rng = rng_new(5);
    static struct quire_page *list[300];
    struct q_page *block;
    int error;

    for (unsigned i = 0; i < PAGES; i++) {
        all[i].page = alloc(Q_SPECIAL_HIGHMEM);
        all[i].value = 0;
    }
    must((block = q_special_alloc(Q_SPECIAL_HIGHMEM, 6, 64, false, &error)) != NULL);
    for (int round = 0; round < 200; round++) {
        size_t nr = 1 + rng_below(&rng, 300), which[300];
        bool in_order = rng_below(&rng, 2) == 0;

        for (size_t i = 0; i < nr; i++) {
            which[i] = in_order && i > 0 ? (which[i - 1] + 1) % PAGES : rng_below(&rng, PAGES);
            list[i] = (struct quire_page *)all[which[i]].page;
        }
        char *at = q_area_map(list, nr, &error);
        must(at != NULL);
        for (size_t i = 0; i < nr; i++) {
            uint64_t *word = (uint64_t *)(at + (i << q_page_shift));
            must_eq(*word, all[which[i]].value);
            *word = all[which[i]].value = rng_next(&rng);
        }
        check_guards((uint64_t *)at, nr);
        must(q_area_remove(at, false) == NULL && q_area_remove(at + 1, true) == NULL);
        struct q_area *a = q_area_remove(at, true);
        must(a != NULL && a->nr == nr);
        q_area_done(a);
        must(q_area_remove(at, true) == NULL);
    }
}

Test(highmem, areas_of_their_own)
{
    core_start(CORE_FLAT);
    struct rng rng = rng_new(6);
    struct {
        char *at;
        size_t bytes, nr;
    } area[40] = {{NULL, 0, 0}};
    size_t held = 0;
    int error;

    for (int round = 0; round < 1500; round++) {
        size_t i = rng_below(&rng, 40);

        if (area[i].at == NULL) {
            area[i].bytes = 1 + rng_below(&rng, (size_t)1 << rng_below(&rng, 22));
            area[i].nr = q_align_up(area[i].bytes, q_page_size()) >> q_page_shift;
            must((area[i].at = q_area_alloc(area[i].bytes, &error)) != NULL);
            must(area[i].at[0] == 0 && area[i].at[area[i].bytes - 1] == 0);
            core_stamp(area[i].at, area[i].nr, i);
            held += area[i].nr;
        } else {
            must(core_stamped(area[i].at, area[i].nr, i));
            struct q_area *a = q_area_remove(area[i].at, false);
            must(a != NULL);
            q_area_done(a);
            held -= area[i].nr;
            area[i].at = NULL;
        }
        must_eq(q_pages_in_use, held);
    }
    must(q_area_alloc(SIZE_MAX, &error) == NULL && error == ENOMEM);
    must(q_area_alloc((size_t)1 << 60, &error) == NULL && error == ENOMEM);
    must_eq(q_pages_in_use, held);
}

/* Memory of a page that could not be given back is asked for anew, and so is there when it is used. */
Test(highmem, memory_of_a_page_that_could_not_be_cleaned)
{
    core_start(CORE_FLAT);
    struct q_page *page = alloc(Q_SPECIAL_HIGHMEM);
    const struct q_section *s = q_special_section(page);
    struct stat before, after;
    int keep = dup(s->fd);

    must(keep >= 0 && fstat(keep, &before) == 0 && before.st_blocks > 0);
    *map(page) = 7;
    must(q_kunmap(page));
    must_eq(q_page_put(page), Q_PUT_LAST);
    close(s->fd); /* the program closes a number that it never opened */
    q_special_free(page);
    must_eq(q_special_zones[Q_SPECIAL_HIGHMEM].nr_written, 1);
    must_eq(dup2(keep, s->fd), s->fd);
    must(alloc(Q_SPECIAL_HIGHMEM) == page);
    must(fstat(keep, &after) == 0);
    must_eq(after.st_blocks, before.st_blocks);
    must_eq(*map(page), 0);
}
