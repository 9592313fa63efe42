/*
 * rollback.c - going back, against an oracle.
 *
 * The heap is changed by random operations; a snapshot is taken and everything copied to memory
 * that is not quire's. Then, round after round, it is changed further and gone back: all blocks
 * must be where they were, with their content and size, and the allocator must go on as if nothing
 * had been: what it gives out does not overlap what lives, calloc's memory is zero, the counters
 * are those of the cut, and the same operations give the same addresses again.
 */
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "steps.h"

enum { BLOCKS = 1200 };

struct block {
    char *at;
    size_t size;
    unsigned seed;
};

/* All from mmap, so that going back does not change it. */
static struct block *block;
static uint64_t rng;
static uint64_t addresses; /* hash of what was given out; large blocks are where the kernel likes */
static bool with_large;

static size_t random_size(void)
{
    uint64_t kind = conform_random(&rng) % 100;

    if (kind < 70)
        return 1 + conform_random(&rng) % 700;
    if (kind < 90)
        return 1 + conform_random(&rng) % 40000;
    if (kind < 99 || !with_large || conform_random(&rng) % 4 != 0)
        return 1 + conform_random(&rng) % 150000;
    return 1 + conform_random(&rng) % (6u << 20);
}

static void fill(struct block *b)
{
    b->seed = (unsigned)conform_random(&rng);
    conform_fill(b->at, b->size, b->seed);
    addresses = (addresses ^ (uintptr_t)b->at) * 0x100000001b3u;
}

static bool all_zero(const char *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static void step(void)
{
    struct block *b = &block[conform_random(&rng) % BLOCKS];
    uint64_t what = conform_random(&rng) % 1000;

    if (b->at == NULL) {
        b->size = random_size();
        b->at = what < 300 ? calloc(1, b->size) : malloc(b->size);
        REQUIRE(b->at != NULL);
        if (what < 300)
            CHECK(all_zero(b->at, b->size), "calloc of %zu bytes", b->size);
        fill(b);
    } else if (what < 300) {
        CHECK(conform_intact(b->at, b->size, b->seed), "before a write");
        fill(b);
    } else if (what < 700) {
        CHECK(conform_intact(b->at, b->size, b->seed), "before free");
        free(b->at);
        b->at = NULL;
    } else if (what < 995) {
        size_t size = random_size();
        CHECK(conform_intact(b->at, b->size, b->seed), "before realloc");
        b->at = realloc(b->at, size);
        REQUIRE(b->at != NULL);
        b->size = size;
        fill(b);
    } else {
        quire_trim(0);
    }
}

static void steps(int n)
{
    for (int i = 0; i < n; i++)
        step();
}

/* Fewer blocks or more: grows past the frontier, or frees whole pageblocks. */
static void wave(void)
{
    bool grow = conform_random(&rng) % 2 == 0;

    for (int i = 0; i < BLOCKS; i++) {
        struct block *b = &block[i];
        if (grow && b->at == NULL) {
            b->size = 100000 + random_size();
            b->at = malloc(b->size);
            REQUIRE(b->at != NULL);
            fill(b);
        } else if (!grow && b->at != NULL && i % 8 != 0) {
            free(b->at);
            b->at = NULL;
        }
    }
}

static void check_blocks(void)
{
    size_t bad = 0;

    for (int i = 0; i < BLOCKS; i++)
        if (block[i].at != NULL)
            bad += !conform_intact(block[i].at, block[i].size, block[i].seed) ||
                   malloc_usable_size(block[i].at) < block[i].size;
    CHECK(bad == 0, "%zu blocks differ", bad);
}

static quire_snapshot_t *take_or_skip(unsigned flags)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, flags);

    if (s == NULL && errno == ENOTSUP)
        conform_skip("no rollback here");
    REQUIRE(s != NULL, "errno %d", errno);
    return s;
}

static void go_back(quire_snapshot_t *s)
{
    REQUIRE(quire_snapshot_restore(s) == 0, "errno %d", errno);
}

/* One cut, and rounds that go back to it. Returns with the heap as at the cut. */
static void rounds_of(int rounds, int nr)
{
    size_t bytes = BLOCKS * sizeof(*block);
    struct block *then = outside(bytes);
    uint64_t start = rng;

    quire_snapshot_t *s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK); /* the first one makes threads */
    struct mallinfo2 before = mallinfo2();
    memcpy(then, block, bytes);
    for (int r = 0; r < rounds; r++) {
        rng = start + (uint64_t)r;
        if (conform_random(&rng) % 4 == 0)
            wave();
        steps((int)(conform_random(&rng) % (unsigned)nr));
        go_back(s);
        memcpy(block, then, bytes);
        check_blocks();
        struct mallinfo2 now = mallinfo2();
        CHECK(now.uordblks == before.uordblks, "%zu bytes in use, were %zu", now.uordblks,
              before.uordblks);
    }
    quire_snapshot_release(s);
    munmap(then, bytes);
    rng = start + 1000003;
}

static void run(uint64_t seed, int cuts, int rounds, int nr)
{
    const char *more = getenv("SNAPSHOT_ROUNDS");

    cuts *= more != NULL ? atoi(more) : 1;
    rng = seed;
    block = outside(BLOCKS * sizeof(*block));
    steps(3 * BLOCKS);
    for (int c = 0; c < cuts; c++) {
        rounds_of(rounds, nr);
        steps(300);
        check_blocks();
    }
    for (int i = 0; i < BLOCKS; i++)
        free(block[i].at);
}

static void random_rounds(void)
{
    with_large = true;
    run(1, 3, 8, 500);
}

static void short_rounds(void)
{
    with_large = true;
    run(2, 2, 40, 20);
}

/* The same operations on the same CPU, whose lists they take pages from, give the same addresses. */
static void same_again(void)
{
    cpu_set_t one;
    size_t bytes = BLOCKS * sizeof(*block);
    struct block *then = outside(bytes);
    uint64_t first = 0;

    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
    rng = 3;
    block = outside(bytes);
    steps(3 * BLOCKS);
    quire_snapshot_t *s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);
    memcpy(then, block, bytes);
    for (int r = 0; r < 6; r++) {
        rng = 99;
        addresses = 0;
        steps(500);
        if (r == 0)
            first = addresses;
        CHECK(addresses == first, "round %d", r);
        go_back(s);
        memcpy(block, then, bytes);
    }
    quire_snapshot_release(s);
}

/* Pages, slabs and mappings come; some stay. */
static void traffic(uint64_t *seed)
{
    for (int i = 0; i < 40; i++) {
        char *a = malloc(conform_random(seed) % 100000), *b = malloc(conform_random(seed) % 2000);

        free(a);
        if (conform_random(seed) % 8 != 0)
            free(b);
    }
}

/* Savepoints within savepoints: the older ones show and restore what they should. */
static void nested(void)
{
    enum { DEEP = 5, PAGES = 200 };
    quire_snapshot_t *s[DEEP];
    char *p = calloc(PAGES, 4096), c;
    uint64_t seed = 4;

    for (int round = 0; round < 20; round++) {
        s[0] = take_or_skip(0);
        p[5 * 4096] = (char)(100 + round);
        for (int d = 1; d < DEEP; d++) {
            for (int i = 0; i < PAGES; i++)
                p[i * 4096] = (char)d;
            traffic(&seed);
            s[d] = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);
            CHECK(quire_snapshot_restore(s[1]) == (d == 1 ? 0 : -1));
        }
        for (int d = DEEP - 1; d > 0; d--) {
            for (int again = 0; again < 4; again++) {
                for (int i = 0; i < 50; i++)
                    p[conform_random(&seed) % PAGES * 4096] = 77;
                traffic(&seed);
                go_back(s[d]);
                for (int i = 0; i < PAGES; i++)
                    CHECK(p[i * 4096] == d, "page %d is %d at depth %d", i, p[i * 4096], d);
                CHECK(quire_snapshot_read(s[0], p + 5 * 4096, &c, 1) == 1 &&
                      c == (char)(round == 0 ? 0 : 1));
                if (d > 2)
                    CHECK(quire_snapshot_read(s[d - 1], p + 7 * 4096, &c, 1) == 1 && c == d - 1);
            }
            quire_snapshot_release(s[d]);
        }
        quire_snapshot_release(s[0]);
    }
    free(p);
}

static void large_blocks(void)
{
    size_t size = 20u << 20;
    char *a = malloc(size), *b = malloc(size), *c = malloc(size);

    memset(a, 1, size);
    memset(b, 2, size);
    memset(c, 3, size);
    quire_snapshot_t *s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);
    for (int i = 0; i < 20; i++) {
        memset(a + size / 2, 9, 50000);
        free(b);
        char *moved = realloc(c, 2 * size);
        char *fresh = malloc(size);
        REQUIRE(moved != NULL && fresh != NULL);
        CHECK(moved[0] == 3 && moved[size - 1] == 3);
        memset(fresh, 7, size);
        if (i % 2 == 0)
            free(fresh);
        go_back(s);
        size_t bad = 0;
        for (size_t k = 0; k < size; k += 512)
            bad += a[k] != 1 || b[k] != 2 || c[k] != 3;
        CHECK(bad == 0, "%zu differ", bad);
        CHECK(malloc_usable_size(b) >= size);
    }
    quire_snapshot_release(s);
    free(a);
    free(b);
    free(c);
}

/* Run with limit:200M, too: what was given out since the cut counts no more. */
static void rounds_that_leak(void)
{
    quire_snapshot_t *s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);

    for (int i = 0; i < 100; i++) {
        for (size_t size = 16; size <= 8u << 20; size *= 8) {
            char *p = malloc(size);

            REQUIRE(p != NULL, "round %d, %zu bytes", i, size);
            p[0] = p[size - 1] = 1;
        }
        go_back(s);
    }
    quire_snapshot_release(s);
}

static _Atomic bool stop;

static void *waits(void *arg)
{
    free(malloc(100));
    while (!stop)
        usleep(1000);
    return arg;
}

/*
 * Threads that work between the cut and going back, and wait at both. In every other phase each has
 * the blocks that the other one had, so they free each other's.
 */
enum { WORKERS = 2, PHASES = 24 };
static pthread_barrier_t begin, end;
static unsigned phase, phase_seed;

static void work(unsigned id)
{
    uint64_t r = phase_seed * 977 + id;

    for (int k = 0; k < 600; k++) {
        struct block *b =
            &block[conform_random(&r) % (BLOCKS / WORKERS) * WORKERS + (id + phase) % WORKERS];
        if (b->at != NULL) {
            CHECK(conform_intact(b->at, b->size, b->seed));
            free(b->at);
            b->at = NULL;
        } else {
            b->size = 1 + conform_random(&r) % (conform_random(&r) % 8 == 0 ? 60000 : 600);
            b->at = malloc(b->size);
            b->seed = (unsigned)conform_random(&r);
            conform_fill(b->at, b->size, b->seed);
        }
    }
}

static void *worker(void *arg)
{
    for (int i = 0; i < PHASES; i++) {
        pthread_barrier_wait(&begin);
        work((unsigned)(size_t)arg);
        pthread_barrier_wait(&end);
    }
    return arg;
}

static void one_phase(unsigned nr, unsigned seed)
{
    phase = nr;
    phase_seed = seed;
    pthread_barrier_wait(&begin);
    pthread_barrier_wait(&end);
}

static void quiet_threads(void)
{
    size_t bytes = BLOCKS * sizeof(*block);
    struct block *then = outside(bytes);
    pthread_t t[WORKERS];

    block = outside(bytes);
    pthread_barrier_init(&begin, NULL, WORKERS + 1);
    pthread_barrier_init(&end, NULL, WORKERS + 1);
    for (size_t i = 0; i < WORKERS; i++)
        pthread_create(&t[i], NULL, worker, (void *)i);
    one_phase(0, 0);
    one_phase(1, 1);
    quire_snapshot_t *s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);
    memcpy(then, block, bytes);
    for (unsigned i = 0; i < (PHASES - 4) / 2; i++) {
        one_phase(i, 2 + i);
        one_phase(i + 1, 100 + i);
        check_blocks();
        go_back(s);
        memcpy(block, then, bytes);
        check_blocks();
    }
    quire_snapshot_release(s);
    one_phase(0, 7);
    one_phase(1, 8);
    check_blocks();
    for (size_t i = 0; i < WORKERS; i++)
        pthread_join(t[i], NULL);
}

static void refusals(void)
{
    quire_snapshot_t *plain = take_or_skip(0), *s, *newer;
    char *p = malloc(100);
    pthread_t t;

    CHECK(quire_snapshot_restore(plain) == -1 && errno == EINVAL);
    quire_snapshot_release(plain);
    CHECK(quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK | QUIRE_SNAPSHOT_HOLDER) == NULL &&
          errno == EINVAL);
    *p = 1;
    s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);
    newer = take_or_skip(0);
    *p = 2;
    CHECK(quire_snapshot_restore(s) == -1 && errno == EBUSY);
    quire_snapshot_release(newer);
    CHECK(*p == 2);
    go_back(s);
    CHECK(*p == 1);
    stop = false;
    pthread_create(&t, NULL, waits, NULL);
    usleep(20000);
    CHECK(quire_snapshot_restore(s) == -1 && errno == EBUSY, "a thread came");
    stop = true;
    pthread_join(t, NULL);
    CHECK(quire_snapshot_restore(s) == -1 && errno == EBUSY, "a thread came and went");
    quire_snapshot_release(s);
    pid_t pid = fork();
    if (pid == 0) {
        s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
        *p = 5;
        _exit(s == NULL || quire_snapshot_restore(s) != 0 || *p != 1);
    }
    CHECK(conform_child_ok(pid, "a child that goes back"));
    free(p);
}

/* A lost snapshot says so, and the program goes on. */
static void budget(void)
{
    size_t size = 8u << 20;
    char *p = malloc(size);

    memset(p, 1, size);
    CHECK(quire_snapshot_budget(1u << 20) == 0);
    quire_snapshot_t *s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);
    memset(p, 2, size);
    CHECK(quire_snapshot_restore(s) == -1 && errno == ENOBUFS, "errno %d", errno);
    CHECK(p[0] == 2 && p[size - 1] == 2);
    quire_snapshot_release(s);
    CHECK(quire_snapshot_budget(0) == 0);
    s = take_or_skip(QUIRE_SNAPSHOT_ROLLBACK);
    memset(p, 3, size);
    go_back(s);
    CHECK(p[0] == 2 && p[size - 1] == 2);
    quire_snapshot_release(s);
    free(p);
}

static const struct conform_case cases[] = {
    {"random rounds", random_rounds, 300},
    {"many short rounds", short_rounds, 300},
    {"the same addresses again", same_again, 120},
    {"snapshots within snapshots", nested, 120},
    {"large blocks", large_blocks, 120},
    {"rounds that leak", rounds_that_leak, 60},
    {"threads that wait meanwhile", quiet_threads, 60},
    {"refusals", refusals, 60},
    {"the budget is used up", budget, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
