/*
 * oracle.c - every byte of a snapshot against a copy made at the cut.
 *
 * One thread changes the heap by random operations: write, free, allocate, resize, trim, fork. At
 * random times it takes a snapshot and copies all live blocks to memory that is not quire's; later
 * each snapshot, in random order, must show exactly the copy, or what is left of it where some was
 * dropped. By write
 * protection at once, lazily, and by a holder process.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "steps.h"

enum { BLOCKS = 1500, SNAPSHOTS = 5 };

struct block {
    char *at;
    size_t size;
};

/* A snapshot and what it must show. In memory from mmap, so that it does not show itself. */
struct oracle {
    quire_snapshot_t *snap;
    uintptr_t gone; /* what lies below was dropped */
    size_t nr, bytes, room;
    char *copy;
    struct block *blocks; /* as they were; contents one after the other in `copy` */
};

static struct block *block; /* from mmap, too */
static uint64_t rng = 42;
static unsigned flags;
static char *scratch;
static unsigned nr_dropped;
static unsigned nr_moved; /* cuts that moved the heap aside */
static size_t scratch_size = 20u << 20;

static size_t random_size(void)
{
    uint64_t kind = conform_random(&rng) % 100;

    if (kind < 70)
        return 1 + conform_random(&rng) % 700;
    if (kind < 90)
        return 1 + conform_random(&rng) % 40000;
    if (kind < 99)
        return 1 + conform_random(&rng) % 300000;
    return 1 + conform_random(&rng) % (9u << 20);
}

static void scribble(struct block *b)
{
    if (b->at == NULL)
        return;
    if (b->size < 4096 || conform_random(&rng) % 4 == 0) {
        memset(b->at, (int)conform_random(&rng), b->size);
        return;
    }
    for (int i = 0; i < 5; i++)
        b->at[conform_random(&rng) % b->size] = (char)conform_random(&rng);
}

static void fill(struct block *b)
{
    b->at = malloc(b->size);
    REQUIRE(b->at != NULL);
    scribble(b);
    if (b->size >= 64)
        memset(b->at + b->size - 64, (int)conform_random(&rng), 64);
}

static void step(void)
{
    struct block *b = &block[conform_random(&rng) % BLOCKS];
    uint64_t what = conform_random(&rng) % 1000;

    if (b->at == NULL) {
        b->size = random_size();
        fill(b);
    } else if (what < 500) {
        scribble(b);
    } else if (what < 800) {
        free(b->at);
        b->at = NULL;
    } else if (what < 990) {
        size_t size = random_size();
        b->at = realloc(b->at, size);
        REQUIRE(b->at != NULL);
        b->size = size;
        scribble(b);
    } else if (what < 998) {
        quire_trim(0);
    } else {
        pid_t pid = fork();
        if (pid == 0) {
            for (int i = 0; i < 50; i++)
                scribble(&block[conform_random(&rng) % BLOCKS]);
            _exit(0);
        }
        CHECK(conform_child_ok(pid, "a child that writes"));
    }
}

static void take_one(struct oracle *o)
{
    struct quire_snapshot_stat st;
    size_t need = 0;

    o->gone = 0;
    o->snap = quire_snapshot_take(NULL, flags);
    REQUIRE(o->snap != NULL, "errno %d", errno);
    REQUIRE(quire_snapshot_stat(o->snap, &st) == 0);
    nr_moved += st.moved_bytes > 0;
    for (size_t i = 0; i < BLOCKS; i++)
        need += block[i].at != NULL ? block[i].size : 0;
    if (need > o->room) {
        if (o->copy != NULL)
            munmap(o->copy, o->room);
        o->room = need + need / 2;
        o->copy = outside(o->room);
    }
    o->bytes = 0;
    for (size_t i = 0; i < BLOCKS; i++) {
        o->blocks[i] = block[i];
        if (block[i].at != NULL)
            memcpy(o->copy + o->bytes, block[i].at, block[i].size);
        o->bytes += block[i].at != NULL ? block[i].size : 0;
    }
}

static void verify(struct oracle *o)
{
    size_t at = 0, bad = 0;

    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = o->blocks[i].at != NULL ? o->blocks[i].size : 0;

        if (size == 0)
            continue;
        errno = 0;
        ssize_t n = quire_snapshot_read(o->snap, o->blocks[i].at, scratch, size);
        if ((uintptr_t)o->blocks[i].at < o->gone) {
            CHECK(n == -1 && errno == EFAULT, "block %zu was dropped: read gave %zd", i, n);
            at += size;
            continue;
        }
        CHECK(n == (ssize_t)size, "block %zu of %zu bytes: read gave %zd, errno %d", i, size, n,
              errno);
        bad += memcmp(scratch, o->copy + at, size) != 0;
        at += size;
    }
    CHECK(bad == 0, "%zu blocks differ", bad);
}

static bool lies_across(const struct oracle *o, uintptr_t border)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        uintptr_t at = (uintptr_t)o->blocks[i].at;
        if (at != 0 && at < border && at + o->blocks[i].size > border)
            return true;
    }
    return false;
}

/* Everything below the page of some block, where none lies across that border. */
static void drop_some(struct oracle *o)
{
    for (int tries = 0; tries < 20; tries++) {
        const struct block *b = &o->blocks[conform_random(&rng) % BLOCKS];
        uintptr_t end = (uintptr_t)b->at & ~(uintptr_t)(getpagesize() - 1);

        if (end <= o->gone || lies_across(o, end))
            continue;
        CHECK(quire_snapshot_drop(o->snap, (void *)end) == 0, "errno %d", errno);
        o->gone = end;
        nr_dropped++;
        return;
    }
}

static void end(struct oracle *o)
{
    verify(o);
    CHECK(quire_snapshot_release(o->snap) == 0);
    o->snap = NULL;
}

/* SNAPSHOT_ROUNDS=8 in the environment: eight times as much. */
static void run_oracle(int rounds, int steps)
{
    const char *more = getenv("SNAPSHOT_ROUNDS");
    struct oracle *o = outside(SNAPSHOTS * sizeof(*o));

    rounds *= more != NULL ? atoi(more) : 1;
    block = outside(BLOCKS * sizeof(*block));
    scratch = outside(scratch_size);
    for (int i = 0; i < SNAPSHOTS; i++)
        o[i].blocks = outside(BLOCKS * sizeof(*block));
    for (int i = 0; i < 3 * BLOCKS; i++)
        step();
    for (int r = 0; r < rounds; r++) {
        struct oracle *one = &o[conform_random(&rng) % SNAPSHOTS];

        if (one->snap == NULL)
            take_one(one);
        else if (conform_random(&rng) % 3 == 0)
            drop_some(one);
        else
            end(one);
        for (int i = 0; i < steps; i++)
            step();
    }
    for (int i = 0; i < SNAPSHOTS; i++)
        if (o[i].snap != NULL)
            end(&o[i]);
    for (int i = 0; i < 1000; i++)
        step();
    printf("# %u times some was dropped\n", nr_dropped);
}

static void need_protection(void)
{
    struct quire_snapshot_stat st;
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);

    REQUIRE(s != NULL, "errno %d", errno);
    REQUIRE(quire_snapshot_stat(s, &st) == 0);
    quire_snapshot_release(s);
    if (st.method != QUIRE_SNAPSHOT_BY_PROTECTION)
        conform_skip("no write protection here: %s", st.why_not);
}

static void by_protection(void)
{
    need_protection();
    run_oracle(30, 150);
}

static void many_cuts(void)
{
    need_protection();
    rng = 7;
    run_oracle(90, 15);
}

static void by_holder(void)
{
    flags = QUIRE_SNAPSHOT_HOLDER;
    run_oracle(15, 100);
}

/* The heap is made large enough to be moved aside. */
static void lazily(void)
{
    char *ballast[200];

    need_protection();
    for (int i = 0; i < 200; i++) {
        ballast[i] = malloc(300000);
        memset(ballast[i], i, 300000);
    }
    flags = QUIRE_SNAPSHOT_LAZY;
    rng = 9;
    run_oracle(45, 60);
    for (int i = 0; i < 200; i++) {
        CHECK(ballast[i][0] == (char)i && ballast[i][299999] == (char)i);
        free(ballast[i]);
    }
    printf("# %u cuts moved the heap aside\n", nr_moved);
}

static const struct conform_case cases[] = {
    {"every byte, by protection", by_protection, 600},
    {"many cuts", many_cuts, 600},
    {"every byte, lazily", lazily, 600},
    {"every byte, by a holder process", by_holder, 600},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
