/*
 * rollback_heap.c - going back to a snapshot of one heap, against an oracle.
 *
 * As rollback.c, but only one heap of quire_heap_create()'s goes back: what lives in it must be where
 * it was, with its content, size and the heap's own counters, whatever was allocated, freed, resized
 * or reset since; and nothing else may change: malloc, other heaps and other threads go on meanwhile.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "quire/heap.h"
#include "steps.h"

enum { BLOCKS = 900 };

struct block {
    char *at;
    size_t size;
    unsigned seed;
};

struct world {
    struct quire_heap *heap;
    struct block block[BLOCKS];
    uint64_t rng;
    bool mappings;
};

static struct world *new_world(const struct quire_heap_attr *attr, uint64_t seed)
{
    struct world *w = outside(sizeof(*w));

    w->heap = quire_heap_create(attr);
    REQUIRE(w->heap != NULL, "errno %d", errno);
    w->rng = seed;
    w->mappings = true;
    return w;
}

static void end_world(struct world *w)
{
    for (int i = 0; i < BLOCKS; i++)
        if (w->block[i].at != NULL)
            quire_heap_free(w->heap, w->block[i].at);
    struct quire_heap_stat st;
    quire_heap_stat(w->heap, &st);
    CHECK(st.live == 0 && st.live_bytes == 0, "%zu blocks are left, %zu bytes", st.live,
          st.live_bytes);
    quire_heap_destroy(w->heap);
    munmap(w, sizeof(*w));
}

static size_t random_size(struct world *w)
{
    uint64_t kind = conform_random(&w->rng) % 200;

    if (kind < 150)
        return 1 + conform_random(&w->rng) % 700;
    if (kind < 190)
        return 1 + conform_random(&w->rng) % 40000;
    if (kind < 199 || !w->mappings)
        return 1 + conform_random(&w->rng) % 300000;
    return 1 + conform_random(&w->rng) % (9u << 20);
}

static void fill(struct world *w, struct block *b)
{
    b->seed = (unsigned)conform_random(&w->rng);
    conform_fill(b->at, b->size, b->seed);
}

static void step(struct world *w)
{
    struct block *b = &w->block[conform_random(&w->rng) % BLOCKS];
    uint64_t what = conform_random(&w->rng) % 1000;

    if (b->at == NULL) {
        b->size = random_size(w);
        b->at = what < 300   ? quire_heap_calloc(w->heap, 1, b->size)
                : what < 400 ? quire_heap_aligned(w->heap, 256, b->size)
                             : quire_heap_alloc(w->heap, b->size);
        REQUIRE(b->at != NULL);
        for (size_t i = 0; what < 300 && i < b->size; i++)
            CHECK(b->at[i] == 0, "calloc of %zu bytes", b->size);
        fill(w, b);
        return;
    }
    CHECK(conform_intact(b->at, b->size, b->seed), "%zu bytes", b->size);
    if (what < 300) {
        fill(w, b);
    } else if (what < 700) {
        quire_heap_free(w->heap, b->at);
        b->at = NULL;
    } else {
        size_t old = b->size, size = random_size(w);
        if (old > 40000 && what < 900) /* within a unit of 64 KiB, or the next one */
            size = old - 30000 + conform_random(&w->rng) % 100000;
        b->at = quire_heap_realloc(w->heap, b->at, size);
        REQUIRE(b->at != NULL);
        b->size = old < size ? old : size;
        CHECK(conform_intact(b->at, b->size, b->seed), "%zu bytes made %zu", old, size);
        b->size = size;
        fill(w, b);
    }
}

static void steps(struct world *w, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        step(w);
}

/* Now and then all of it goes, or nearly all, or it grows by as much again. */
static void wave(struct world *w)
{
    uint64_t what = conform_random(&w->rng) % 3;

    if (what == 0) {
        quire_heap_reset(w->heap);
        memset(w->block, 0, sizeof(w->block));
    }
    for (int i = 0; i < BLOCKS && what > 0; i++) {
        struct block *b = &w->block[i];
        if (what == 1 && b->at == NULL) {
            b->size = 1 + conform_random(&w->rng) % 20000;
            b->at = quire_heap_alloc(w->heap, b->size);
            REQUIRE(b->at != NULL);
            fill(w, b);
        } else if (what == 2 && b->at != NULL && i % 16 != 0) {
            quire_heap_free(w->heap, b->at);
            b->at = NULL;
        }
    }
}

static void check_blocks(struct world *w)
{
    size_t bad = 0;

    for (int i = 0; i < BLOCKS; i++) {
        struct block *b = &w->block[i];
        if (b->at != NULL)
            bad += !conform_intact(b->at, b->size, b->seed) ||
                   quire_heap_usable_size(w->heap, b->at) < b->size ||
                   quire_heap_of(b->at) != w->heap;
    }
    CHECK(bad == 0, "%zu blocks differ", bad);
}

/* A heap, what it holds and its counters, to compare with later. */
struct then {
    struct block block[BLOCKS];
    struct quire_heap_stat st;
};

static void note(struct world *w, struct then *t)
{
    memcpy(t->block, w->block, sizeof(t->block));
    quire_heap_stat(w->heap, &t->st);
}

static void is_as_then(struct world *w, const struct then *t)
{
    struct quire_heap_stat st;

    memcpy(w->block, t->block, sizeof(t->block));
    check_blocks(w);
    quire_heap_stat(w->heap, &st);
    CHECK(st.live == t->st.live && st.live_bytes == t->st.live_bytes && st.held == t->st.held,
          "live %zu of %zu, %zu bytes of %zu, held %zu of %zu", st.live, t->st.live, st.live_bytes,
          t->st.live_bytes, st.held, t->st.held);
}

static void go_back(struct world *w, quire_snapshot_t *s, const struct then *t)
{
    REQUIRE(quire_snapshot_restore(s) == 0, "errno %d", errno);
    is_as_then(w, t);
}

static void rounds(struct world *w, int nr, uint64_t most)
{
    struct then *t = outside(sizeof(*t));
    quire_snapshot_t *s = take_to_go_back(w->heap);

    note(w, t);
    for (int r = 0; r < nr; r++) {
        w->rng += 1000003;
        if (conform_random(&w->rng) % 4 == 0)
            wave(w);
        steps(w, conform_random(&w->rng) % most);
        go_back(w, s, t);
    }
    CHECK(quire_snapshot_release(s) == 0);
    check_blocks(w);
    steps(w, 500);
    check_blocks(w);
    munmap(t, sizeof(*t));
}

static void run(const struct quire_heap_attr *attr, uint64_t seed, bool mappings)
{
    const char *more = getenv("SNAPSHOT_ROUNDS");
    int times = more != NULL ? atoi(more) : 1;
    struct world *w = new_world(attr, seed);

    w->mappings = mappings;
    rounds(w, 5, 300); /* from an empty heap */
    steps(w, 3 * BLOCKS);
    for (int i = 0; i < times; i++) {
        rounds(w, 12, 800);
        rounds(w, 40, 20);
    }
    end_world(w);
}

static void random_rounds(void)
{
    run(NULL, 1, true);
}

static void one_owner(void)
{
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SINGLE};

    run(&attr, 2, true);
}

static void saved_by_writers(void)
{
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SIGBUS};

    run(&attr, 3, true);
}

/* A user who has no other userfaultfd: all that the heap gets meanwhile is known to the one it has. */
static void without_privilege(void)
{
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SIGBUS};
    struct quire_heap_stat st;

    CHECK(setuid(65534) == 0);
    struct world *w = new_world(&attr, 4);
    quire_heap_stat(w->heap, &st);
    if (!st.sigbus)
        conform_skip("no userfaultfd for users");
    struct then *t = outside(2 * sizeof(*t));
    steps(w, BLOCKS);
    for (int i = 0; i < 10; i++) {
        quire_snapshot_t *s[2];
        for (int d = 0; d < 2; d++) {
            s[d] = take_to_go_back(w->heap);
            note(w, &t[d]);
            steps(w, 400);
        }
        for (int d = 1; d >= 0; d--) {
            go_back(w, s[d], &t[d]);
            steps(w, 100);
            CHECK(quire_snapshot_release(s[d]) == 0);
        }
    }
    munmap(t, 2 * sizeof(*t));
    end_world(w);
}

/* Cuts within cuts; each is gone back to, and goes, before the older ones are. */
static void nested(void)
{
    enum { DEEP = 5 };
    struct world *w = new_world(NULL, 5);
    struct then *t = outside(DEEP * sizeof(*t));
    quire_snapshot_t *s[DEEP];

    steps(w, 2 * BLOCKS);
    for (int round = 0; round < 6; round++) {
        for (int d = 0; d < DEEP; d++) {
            s[d] = take_to_go_back(w->heap);
            note(w, &t[d]);
            if (conform_random(&w->rng) % 3 == 0)
                wave(w);
            steps(w, 200);
            CHECK(d == 0 || (quire_snapshot_restore(s[d - 1]) == -1 && errno == EBUSY));
        }
        for (int d = DEEP - 1; d >= 0; d--) {
            bool back = conform_random(&w->rng) % 4 != 0;
            for (int again = 0; back && again < 3; again++) {
                steps(w, 150);
                go_back(w, s[d], &t[d]);
            }
            CHECK(quire_snapshot_release(s[d]) == 0);
            steps(w, back ? 30 : 0);
        }
        check_blocks(w);
    }
    munmap(t, DEEP * sizeof(*t));
    end_world(w);
}

/* Older ones go before newer ones. */
static void released_in_any_order(void)
{
    enum { DEEP = 4 };
    struct world *w = new_world(NULL, 6);
    struct then *t = outside(DEEP * sizeof(*t));
    quire_snapshot_t *s[DEEP];

    for (int round = 0; round < 12; round++) {
        for (int d = 0; d < DEEP; d++) {
            s[d] = take_to_go_back(w->heap);
            note(w, &t[d]);
            wave(w);
            steps(w, 200);
        }
        int last = (int)(conform_random(&w->rng) % DEEP); /* the one that stays */
        int first = (int)(conform_random(&w->rng) % DEEP);
        for (int i = 0; i < DEEP; i++) {
            int d = (first + i) % DEEP;
            if (d != last)
                CHECK(quire_snapshot_release(s[d]) == 0);
            steps(w, 50);
        }
        go_back(w, s[last], &t[last]);
        steps(w, 50);
        go_back(w, s[last], &t[last]);
        CHECK(quire_snapshot_release(s[last]) == 0);
    }
    munmap(t, DEEP * sizeof(*t));
    end_world(w);
}

static _Atomic bool stop;

/* Another heap that goes back as well, in a thread that comes and goes, beside malloc. */
static void *other_heap(void *arg)
{
    struct world *w = new_world(NULL, (uint64_t)(uintptr_t)arg);
    struct then *t = outside(sizeof(*t));

    w->mappings = false;
    steps(w, BLOCKS);
    while (!stop) {
        quire_snapshot_t *s = take_to_go_back(w->heap);
        note(w, t);
        for (int i = 0; i < 5; i++) {
            steps(w, 100);
            go_back(w, s, t);
        }
        CHECK(quire_snapshot_release(s) == 0);
        steps(w, 100);
    }
    munmap(t, sizeof(*t));
    end_world(w);
    return NULL;
}

static void *busy_malloc(void *arg)
{
    uint64_t rng = (uint64_t)(uintptr_t)arg;
    char *p[64] = {NULL};
    unsigned seed[64];
    size_t size[64];

    while (!stop) {
        unsigned i = (unsigned)(conform_random(&rng) % 64);

        if (p[i] != NULL)
            CHECK(conform_intact(p[i], size[i], seed[i]));
        free(p[i]);
        size[i] = 1 + conform_random(&rng) % (conform_random(&rng) % 16 == 0 ? 200000 : 2000);
        seed[i] = (unsigned)rng;
        p[i] = malloc(size[i]);
        conform_fill(p[i], size[i], seed[i]);
    }
    for (int i = 0; i < 64; i++)
        free(p[i]);
    return NULL;
}

/* Snapshots of everything come and go, and must show what was. */
static void *saves_all(void *arg)
{
    char *mine = malloc(300000), *was = outside(300000);
    unsigned n = 0;

    while (!stop) {
        conform_fill(mine, 300000, n);
        quire_snapshot_t *s = quire_snapshot_take(NULL, 0);
        REQUIRE(s != NULL, "errno %d", errno);
        conform_fill(mine, 300000, n + 1);
        CHECK(quire_snapshot_read(s, mine, was, 300000) == 300000 &&
              conform_intact(was, 300000, n++));
        quire_snapshot_release(s);
        usleep(2000);
    }
    free(mine);
    munmap(was, 300000);
    return arg;
}

static void beside(void *(*const *run_it)(void *), size_t nr, bool may_be_busy)
{
    struct world *w = new_world(NULL, 7);
    struct then *t = outside(sizeof(*t));
    pthread_t thread[4];
    int went = 0;

    stop = false;
    quire_snapshot_release(take_to_go_back(w->heap));
    for (size_t i = 0; i < nr; i++)
        REQUIRE(pthread_create(&thread[i], NULL, run_it[i], (void *)(i + 10)) == 0);
    steps(w, 2 * BLOCKS);
    for (int round = 0; round < 20; round++) {
        quire_snapshot_t *s = take_to_go_back(w->heap);
        note(w, t);
        for (int i = 0; i < 6; i++) {
            steps(w, 150);
            if (quire_snapshot_restore(s) != 0) { /* a newer one of everything */
                CHECK(may_be_busy && errno == EBUSY, "errno %d", errno);
                continue;
            }
            is_as_then(w, t);
            went++;
        }
        CHECK(quire_snapshot_release(s) == 0);
        check_blocks(w);
    }
    CHECK(went > 0, "%d", went);
    stop = true;
    for (size_t i = 0; i < nr; i++)
        pthread_join(thread[i], NULL);
    munmap(t, sizeof(*t));
    end_world(w);
}

static void beside_others(void)
{
    void *(*const others[])(void *) = {other_heap, busy_malloc, busy_malloc};

    beside(others, 3, false);
}

static void beside_saves(void)
{
    void *(*const others[])(void *) = {saves_all, busy_malloc};

    beside(others, 2, true);
}

/* fork: the child's heap goes on by itself; it cannot go back. */
static void in_a_child(void)
{
    struct world *w = new_world(NULL, 8);
    struct then *t = outside(sizeof(*t));

    steps(w, BLOCKS);
    quire_snapshot_t *s = take_to_go_back(w->heap);
    note(w, t);
    steps(w, 300);
    pid_t child = fork();
    if (child == 0) {
        steps(w, 500);
        bool stale = quire_snapshot_restore(s) == -1 && errno == ESTALE;
        quire_snapshot_release(s);
        steps(w, 500);
        end_world(w);
        _exit(stale ? 0 : 1);
    }
    steps(w, 300);
    go_back(w, s, t);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
          "status %x", status);
    quire_snapshot_release(s);
    munmap(t, sizeof(*t));
    end_world(w);
}

static const struct conform_case cases[] = {
    {"random rounds", random_rounds, 120},
    {"of a heap with one owner", one_owner, 120},
    {"of a heap whose writers save", saved_by_writers, 120},
    {"without privilege", without_privilege, 120},
    {"nested", nested, 120},
    {"released in any order", released_in_any_order, 120},
    {"beside other heaps, threads and malloc", beside_others, 120},
    {"beside snapshots of everything", beside_saves, 120},
    {"in a child", in_a_child, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
