/*
 * own.c - snapshots whose writers save pages themselves, against copies made at the cut.
 *
 * Four threads write all the time, also by system calls; others allocate and free. They pause for
 * the cut alone: then a copy is made of all blocks. Several snapshots live at a time, are read while
 * the writers go on, and released in any order. What each shows is compared page by page.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>

#include "quire/heap.h"
#include "steps.h"

enum { WRITERS = 4, LIVE = 4, PAGE = 4096, RUN = 24, RUNS = 120, SMALL = 3000, ROUNDS = 60 };
enum { BIG = 9u << 20, MEDIUM = 300000 };

struct area {
    char *at;
    size_t size;
};

static struct area area[RUNS + SMALL + 8];
static size_t nr_areas, bytes;
static struct quire_heap *heap; /* NULL: malloc */
static bool touching;
static pthread_rwlock_t cut_lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static _Atomic bool stop;
static _Atomic uint64_t writes, calls;

static void *get(size_t size)
{
    void *p = heap != NULL ? quire_heap_alloc(heap, size) : malloc(size);

    REQUIRE(p != NULL);
    return p;
}

static void put(void *p)
{
    if (heap != NULL)
        quire_heap_free(heap, p);
    else
        free(p);
}

static void add(size_t size)
{
    area[nr_areas].at = get(size);
    area[nr_areas++].size = size;
    bytes += size;
}

static void fill_heap(void)
{
    add(BIG);
    for (int i = 0; i < 4; i++)
        add(MEDIUM);
    for (int i = 0; i < RUNS; i++)
        add((size_t)RUN * PAGE);
    for (int i = 0; i < SMALL; i++)
        add(100 + (size_t)(i % 37) * 50);
    for (size_t i = 0; i < nr_areas; i++)
        memset(area[i].at, (int)i, area[i].size);
}

static void write_one(uint64_t *rng)
{
    struct area *a = &area[conform_random(rng) % nr_areas];
    size_t at = conform_random(rng) % a->size, n = 1 + conform_random(rng) % (a->size - at);
    uint64_t what = conform_random(rng) % 100;

    n = what < 90 ? (n < 64 ? n : 64) : n;
    if (touching)
        quire_snapshot_touch(a->at + at, n);
    if (what % 10 == 0 && (touching || heap == NULL)) {
        n = n < 256 ? n : 256; /* what getrandom gives in one piece */
        CHECK(getrandom(a->at + at, n, 0) == (ssize_t)n, "errno %d", errno);
        atomic_fetch_add(&calls, 1);
    } else {
        memset(a->at + at, (int)what, n);
    }
    atomic_fetch_add(&writes, 1);
}

static void *writer(void *arg)
{
    uint64_t rng = 1000 + (uintptr_t)arg;

    while (!stop) {
        pthread_rwlock_rdlock(&cut_lock);
        for (int i = 0; i < 20; i++)
            write_one(&rng);
        pthread_rwlock_unlock(&cut_lock);
    }
    return NULL;
}

/* Memory of the heap comes and goes, while it is cut, too. */
static void *allocator(void *arg)
{
    static char *own[200];
    uint64_t rng = 5;

    while (!stop) {
        char **p = &own[conform_random(&rng) % COUNT_OF(own)];
        size_t size =
            1 + conform_random(&rng) % (conform_random(&rng) % 50 == 0 ? 6u << 20 : 200000);

        if (*p != NULL)
            put(*p);
        *p = get(size);
        memset(*p, 1, size < 5000 ? size : 5000);
    }
    for (size_t i = 0; i < COUNT_OF(own); i++)
        if (own[i] != NULL)
            put(own[i]);
    return arg;
}

struct cut {
    quire_snapshot_t *snap;
    char *copy;
};

static uint64_t pages;

static void take_one(struct cut *c, void *which, unsigned flags)
{
    size_t at = 0;

    pthread_rwlock_wrlock(&cut_lock);
    c->snap = quire_snapshot_take(which, flags);
    REQUIRE(c->snap != NULL, "errno %d", errno);
    if (c->copy == NULL)
        c->copy = outside(bytes);
    for (size_t i = 0; i < nr_areas; at += area[i++].size)
        memcpy(c->copy + at, area[i].at, area[i].size);
    pthread_rwlock_unlock(&cut_lock);
}

static void compare(const struct cut *c, char *scratch)
{
    size_t at = 0, bad = 0;

    for (size_t i = 0; i < nr_areas; at += area[i++].size) {
        ssize_t n = quire_snapshot_read(c->snap, area[i].at, scratch, area[i].size);

        CHECK(n == (ssize_t)area[i].size, "area %zu: %zd, errno %d", i, n, errno);
        bad += memcmp(scratch, c->copy + at, area[i].size) != 0;
        pages += (area[i].size + PAGE - 1) / PAGE;
    }
    CHECK(bad == 0, "%zu areas differ from the cut", bad);
}

static int rounds(void)
{
    const char *more = getenv("SNAPSHOT_ROUNDS");

    return ROUNDS * (more != NULL ? atoi(more) : 1);
}

/* of_all: every other snapshot is one of all memory. */
static void run_oracle(bool of_all, unsigned flags)
{
    struct cut cut[LIVE] = {{NULL, NULL}};
    pthread_t thread[WRITERS + 1];
    char *scratch = outside(BIG);
    uint64_t rng = 3, by_writers = 0, touched = 0, moved = 0;
    struct quire_snapshot_stat st;

    fill_heap();
    for (uintptr_t i = 0; i < WRITERS; i++)
        REQUIRE(pthread_create(&thread[i], NULL, writer, (void *)i) == 0);
    REQUIRE(pthread_create(&thread[WRITERS], NULL, allocator, NULL) == 0);
    for (int r = 0; r < rounds(); r++) {
        struct cut *c = &cut[conform_random(&rng) % LIVE];

        if (c->snap == NULL) {
            take_one(c, of_all || r % 2 == 0 ? NULL : heap, flags);
            continue;
        }
        usleep(2000);
        compare(c, scratch);
        REQUIRE(quire_snapshot_stat(c->snap, &st) == 0);
        by_writers += st.sigbus_faults;
        moved += st.moved_bytes > 0;
        touched += st.touched_bytes / PAGE;
        CHECK(quire_snapshot_release(c->snap) == 0);
        c->snap = NULL;
    }
    stop = true;
    for (int i = 0; i <= WRITERS; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < LIVE; i++) {
        if (cut[i].snap == NULL)
            continue;
        compare(&cut[i], scratch);
        CHECK(quire_snapshot_release(cut[i].snap) == 0);
    }
    printf("# %llu pages compared, %llu writes, %llu of them system calls; %llu faults served by "
           "writers, %llu pages touched\n",
           (unsigned long long)pages, (unsigned long long)writes, (unsigned long long)calls,
           (unsigned long long)by_writers, (unsigned long long)touched);
    const char *conf = getenv("QUIRE_CONF"); /* what has no window is not moved */
    bool sparse = conf != NULL && strstr(conf, "sparse") != NULL;
    CHECK(flags == 0 || sparse || moved > 0, "nothing was moved aside");
    CHECK(touching ? touched > 0 : by_writers > 0, "it was done in another way");
}

static void need_protection(void)
{
    quire_snapshot_release(take_protected());
}

static void make_heap(void)
{
    struct quire_heap_stat st;

    need_protection();
    heap = quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SIGBUS});
    REQUIRE(heap != NULL);
    quire_heap_stat(heap, &st);
    if (!st.sigbus)
        conform_skip("no SIGBUS mode here");
}

static void by_sigbus(void)
{
    make_heap();
    run_oracle(false, 0);
}

static void by_sigbus_lazily(void)
{
    make_heap();
    for (int i = 0; i < 30; i++)
        memset(malloc(1u << 20), i, 1u << 20); /* there is something to be moved aside */
    run_oracle(true, QUIRE_SNAPSHOT_LAZY);
}

static void by_touch(void)
{
    need_protection();
    touching = true;
    run_oracle(true, 0);
}

static void by_touch_lazily(void)
{
    need_protection();
    touching = true;
    run_oracle(true, QUIRE_SNAPSHOT_LAZY);
}

static void by_both(void)
{
    make_heap();
    touching = true;
    run_oracle(false, 0);
}

static const struct conform_case cases[] = {
    {"every page, SIGBUS", by_sigbus, 600},
    {"every page, SIGBUS, moved aside", by_sigbus_lazily, 600},
    {"every page, touched", by_touch, 600},
    {"every page, touched, moved aside", by_touch_lazily, 600},
    {"every page, SIGBUS and touched", by_both, 600},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
