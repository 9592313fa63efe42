/* heaps.c - heaps of one's own against a model: blocks, limits, places, owners, and the end. */
#include "quire/heap.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

#define BLOCKS 1000

struct block {
    unsigned char *p;
    size_t size;
    unsigned seed;
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static bool has_conf(const char *what)
{
    const char *conf = getenv("QUIRE_CONF");

    return conf != NULL && strstr(conf, what) != NULL;
}

static struct quire_heap_stat stat_of(struct quire_heap *h)
{
    struct quire_heap_stat st;

    quire_heap_stat(h, &st);
    return st;
}

static size_t random_size(uint64_t *state, size_t most)
{
    uint64_t kind = conform_random(state) % 100;
    size_t n;

    if (kind < 75)
        n = conform_random(state) % 600;
    else if (kind < 95)
        n = conform_random(state) % 33000;
    else if (kind < 99)
        n = conform_random(state) % 300000;
    else
        n = conform_random(state) % (7u << 20);
    return n < most ? n : most;
}

static bool all_zero(const unsigned char *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p[i] != 0)
            return false;
    return true;
}

static void fill(struct block *b, uint64_t *state)
{
    b->seed = (unsigned)conform_random(state);
    conform_fill(b->p, b->size, b->seed);
}

static void make(struct quire_heap *h, struct block *b, uint64_t *state, size_t most)
{
    uint64_t how = conform_random(state) % 8;
    size_t align = 16;

    b->size = random_size(state, most);
    if (how == 0) {
        b->p = quire_heap_calloc(h, 1, b->size);
        CHECK(b->p == NULL || all_zero(b->p, b->size), "calloc of %zu bytes", b->size);
    } else if (how == 1) {
        align <<= conform_random(state) % 13;
        b->p = quire_heap_aligned(h, align, b->size);
    } else {
        b->p = quire_heap_alloc(h, b->size);
    }
    REQUIRE(b->p != NULL, "%zu bytes at %zu, errno %d", b->size, align, errno);
    CHECK((uintptr_t)b->p % align == 0, "%p", (void *)b->p);
    CHECK(quire_heap_usable_size(h, b->p) >= b->size);
    fill(b, state);
}

static void resize(struct quire_heap *h, struct block *b, uint64_t *state, size_t most)
{
    size_t size = 1 + random_size(state, most - 1), kept = size < b->size ? size : b->size;
    unsigned char *now = quire_heap_realloc(h, b->p, size);

    REQUIRE(now != NULL);
    CHECK(conform_intact(now, kept, b->seed), "from %zu to %zu", b->size, size);
    b->p = now;
    b->size = size;
    fill(b, state);
}

/* Random calls; then the heap is destroyed with what is left in it. */
static void model(const struct quire_heap_attr *attr, size_t most, int steps)
{
    static struct block blocks[BLOCKS];
    struct quire_heap *h = quire_heap_create(attr), *other = quire_heap_create(attr);
    uint64_t state = 21 + most;
    size_t nr = 0;

    REQUIRE(h != NULL && other != NULL, "errno %d", errno);
    void *foreign = quire_heap_alloc(other, 100);
    for (int step = 0; step < steps; step++) {
        uint64_t what = conform_random(&state) % 100;
        bool filling = step / 2000 % 2 == 0;

        if (what < (filling ? 55u : 30u) && nr < BLOCKS) {
            make(h, &blocks[nr++], &state, most);
        } else if (nr > 0) {
            struct block *b = &blocks[conform_random(&state) % nr];

            CHECK(conform_intact(b->p, b->size, b->seed), "%zu bytes at %p", b->size, (void *)b->p);
            CHECK(quire_heap_of(b->p) == h);
            if (what % 4 == 0) {
                resize(h, b, &state, most);
            } else {
                quire_heap_free(h, b->p);
                *b = blocks[--nr];
            }
        }
        if (step % 500 == 0) {
            size_t bytes = 0;
            struct quire_heap_stat st = stat_of(h);
            for (size_t i = 0; i < nr; i++)
                bytes += blocks[i].size;
            CHECK(st.live == nr && st.live_bytes >= bytes && st.held >= st.live_bytes &&
                      st.peak >= st.held,
                  "%zu live of %zu, %zu bytes of %zu, %zu held", st.live, nr, st.live_bytes, bytes,
                  st.held);
        }
    }
    for (size_t i = 0; i < nr; i++)
        CHECK(conform_intact(blocks[i].p, blocks[i].size, blocks[i].seed));
    CHECK(quire_heap_of(foreign) == other && !quire_owns(foreign));
    quire_heap_destroy(h);
    CHECK(stat_of(other).live == 1);
    quire_heap_destroy(other);
}

static void case_model(void)
{
    model(NULL, 7u << 20, 12000);
    model(NULL, 2000, 30000);
    model(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SINGLE}, 40000, 12000);
}

/* Memory below 4 GiB, and locked. */
static void case_zones(void)
{
    static const struct {
        quire_gfp_t gfp;
        const char *name;
    } zones[] = {{QUIRE_GFP_DMA32, "DMA32"}, {QUIRE_GFP_DMA, "DMA"}};

    for (size_t i = 0; i < COUNT_OF(zones); i++) {
        struct quire_heap_attr attr = {.gfp = zones[i].gfp};
        struct quire_heap *h = quire_heap_create(&attr);

        REQUIRE(h != NULL);
        void *p = quire_heap_alloc(h, 50), *q = quire_heap_alloc(h, 100000);
        if (p == NULL || q == NULL) {
            quire_heap_destroy(h);
            continue; /* no such memory for this process: too little may be locked */
        }
        if (attr.gfp == QUIRE_GFP_DMA32)
            CHECK((uintptr_t)p < 1ull << 32 && (uintptr_t)q < 1ull << 32, "%p %p", p, q);
        memset(q, 1, 100000);
        quire_heap_destroy(h);
        model(&attr, 3000, 4000);
    }
}

static void case_nodes(void)
{
    int nr = has_conf("numa_fake:3") ? 3 : 1;

    for (int node = 0; node < nr; node++) {
        struct quire_heap_attr attr = {.flags = QUIRE_HEAP_NODE | QUIRE_HEAP_BIND, .node = node};
        struct quire_heap *h = quire_heap_create(&attr);
        REQUIRE(h != NULL);
        for (size_t size = 16; size < 1u << 20; size *= 3) {
            void *p = quire_heap_alloc(h, size);
            REQUIRE(p != NULL);
            CHECK(quire_page_to_nid(quire_virt_to_page(p)) == node, "%zu bytes", size);
        }
        quire_heap_destroy(h);
    }
    errno = 0;
    CHECK(quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_NODE, .node = 77}) ==
              NULL &&
          errno == ENXIO);
}

/* ENOMEM at the limit, never above it, and all is well afterwards. */
static void case_limit(void)
{
    size_t limit = (size_t)4 << 20;
    struct quire_heap *h = quire_heap_create(&(struct quire_heap_attr){.limit = limit});
    static void *p[300000];
    size_t n = 0;

    REQUIRE(h != NULL);
    for (size_t size = 16; size < 8u << 20; size = size * 5 / 2) {
        errno = 0;
        for (n = 0; n < 300000 && (p[n] = quire_heap_alloc(h, size)) != NULL; n++)
            ;
        struct quire_heap_stat st = stat_of(h);
        CHECK(errno == ENOMEM && st.held <= limit && st.peak <= limit && st.failures > 0);
        if (size < limit / 10)
            CHECK(n * size > limit / 2, "%zu blocks of %zu bytes", n, size);
        if (n > 0) {
            /* Shrinking works, growing fails and changes nothing. */
            memset(p[0], 7, size);
            void *same = quire_heap_realloc(h, p[0], size / 2 + 1);
            CHECK(same != NULL && *(char *)same == 7);
            errno = 0;
            CHECK(quire_heap_realloc(h, same, limit + 1) == NULL && errno == ENOMEM);
            CHECK(*(char *)same == 7);
            p[0] = same;
        }
        while (n > 0)
            quire_heap_free(h, p[--n]);
        CHECK(stat_of(h).live == 0);
        quire_heap_reset(h);
        CHECK(stat_of(h).held == 0);
    }
    quire_heap_destroy(h);
    h = quire_heap_create(&(struct quire_heap_attr){.limit = 1});
    REQUIRE(h != NULL);
    errno = 0;
    CHECK(quire_heap_alloc(h, 1) == NULL && errno == ENOMEM);
    quire_heap_destroy(h);
}

/* What is freed can be had in other sizes, and what is empty goes back. */
static void case_memory_comes_back(void)
{
    struct quire_heap *h = quire_heap_create(NULL);
    static void *p[20000];
    size_t held = 0;

    REQUIRE(h != NULL);
    for (int round = 0; round < 12; round++) {
        size_t size = 24u << (round % 6);
        for (int i = 0; i < 20000 / (1 << round % 6); i++)
            REQUIRE((p[i] = quire_heap_alloc(h, size)) != NULL);
        held = stat_of(h).held > held ? stat_of(h).held : held;
        for (int i = 0; i < 20000 / (1 << round % 6); i++)
            quire_heap_free(h, p[i]);
        CHECK(stat_of(h).held <= 8u << 16, "%zu held", stat_of(h).held);
    }
    CHECK(held < 1u << 20, "%zu", held);
    quire_heap_destroy(h);
}

/* A heap of few objects of many sizes holds one chunk. */
static void case_small_heaps(void)
{
    struct quire_heap *h[200];

    for (int i = 0; i < 200; i++) {
        REQUIRE((h[i] = quire_heap_create(NULL)) != NULL);
        for (size_t size = 1; size < 800; size += 1 + size / 2)
            REQUIRE(quire_heap_alloc(h[i], size) != NULL);
        CHECK(stat_of(h[i]).held == 65536, "%zu", stat_of(h[i]).held);
    }
    for (int i = 0; i < 200; i++)
        quire_heap_destroy(h[i]);
}

static struct quire_heap *shared;

static void *churn(void *arg)
{
    uint64_t state = (uintptr_t)arg;
    struct block mine[50] = {{NULL, 0, 0}};

    for (int i = 0; i < 20000; i++) {
        struct block *b = &mine[conform_random(&state) % 50];

        if (b->p == NULL) {
            b->size = conform_random(&state) % 2000;
            REQUIRE((b->p = quire_heap_alloc(shared, b->size)) != NULL);
            fill(b, &state);
        } else {
            CHECK(conform_intact(b->p, b->size, b->seed), "%zu bytes", b->size);
            quire_heap_free(shared, b->p);
            b->p = NULL;
        }
    }
    return NULL;
}

static void case_threads(void)
{
    pthread_t t[4];

    REQUIRE((shared = quire_heap_create(NULL)) != NULL);
    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&t[i], NULL, churn, (void *)(i + 1)) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    CHECK(stat_of(shared).live <= 200);
    quire_heap_destroy(shared);
}

static void *use_handed_over(void *text)
{
    quire_heap_own(shared);
    CHECK(strcmp(text, "handed over") == 0);
    quire_heap_free(shared, text);
    CHECK(quire_heap_alloc(shared, 10) != NULL);
    quire_heap_destroy(shared);
    return NULL;
}

static void case_handed_over(void)
{
    pthread_t t;

    shared = quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SINGLE});
    REQUIRE(shared != NULL);
    char *text = quire_heap_strdup(shared, "handed over");
    REQUIRE(text != NULL && pthread_create(&t, NULL, use_handed_over, text) == 0);
    pthread_join(t, NULL);
}

static void case_wrong_arguments(void)
{
    static const struct quire_heap_attr wrong[] = {
        {.flags = 64},
        {.flags = QUIRE_HEAP_BIND},
        {.gfp = QUIRE_GFP_ZERO},
        {.gfp = QUIRE_GFP_DMA | QUIRE_GFP_DMA32},
        {.gfp = QUIRE_GFP_DMA32, .flags = QUIRE_HEAP_NODE},
    };
    struct quire_heap *h = quire_heap_create(NULL);

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        errno = 0;
        CHECK(quire_heap_create(&wrong[i]) == NULL && errno == EINVAL, "%zu", i);
    }
    REQUIRE(h != NULL);
    errno = 0;
    CHECK(quire_heap_aligned(h, 3, 8) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_heap_aligned(h, 0, 8) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_heap_alloc(h, conform_opaque((size_t)-1)) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(quire_heap_calloc(h, conform_opaque((size_t)1 << 40), 1u << 30) == NULL &&
          errno == ENOMEM);
    errno = 55;
    void *a = quire_heap_alloc(h, 0), *b = quire_heap_realloc(h, NULL, 0);
    CHECK(a != NULL && b != NULL && a != b);
    quire_heap_free(h, NULL);
    quire_heap_free(h, a);
    CHECK(quire_heap_realloc(h, b, 0) == NULL && stat_of(h).live == 0);
    CHECK(quire_heap_of(NULL) == NULL && quire_heap_of(&h) == NULL &&
          quire_heap_of(malloc(10)) == NULL && quire_heap_of(malloc(3000000)) == NULL);
    quire_heap_destroy(h);
    quire_heap_destroy(NULL);
    CHECK(errno == 55);
    void *huge = quire_heap_aligned(h = quire_heap_create(NULL), 8u << 20, 9u << 20);
    CHECK(huge != NULL && (uintptr_t)huge % (8u << 20) == 0);
    CHECK(quire_heap_of(huge) == h);
    memset(huge, 1, 9u << 20);
    CHECK((huge = quire_heap_realloc(h, huge, 20u << 20)) != NULL && ((char *)huge)[100000] == 1);
    quire_heap_destroy(h);
}

static void case_fork(void)
{
    char *text;

    REQUIRE((shared = quire_heap_create(NULL)) != NULL);
    REQUIRE((text = quire_heap_strdup(shared, "before")) != NULL);
    int pid = fork();
    if (pid == 0) {
        strcpy(text, "child");
        bool good = quire_heap_alloc(shared, 100000) != NULL && stat_of(shared).live == 2;
        quire_heap_destroy(shared);
        _exit(good ? 0 : 1);
    }
    conform_child_ok(pid, "the child");
    CHECK(strcmp(text, "before") == 0 && stat_of(shared).live == 1);
    quire_heap_destroy(shared);
}

/* Going back to a snapshot: heaps, too, are as they were. */
static void case_rollback(void)
{
    static struct block blocks[200];
    struct quire_heap *h = quire_heap_create(NULL);
    uint64_t state = 3;

    REQUIRE(h != NULL);
    for (int i = 0; i < 200; i++)
        make(h, &blocks[i], &state, 100000);
    size_t held = stat_of(h).held;
    quire_snapshot_t *snap = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (snap == NULL)
        conform_skip("no snapshot that can be gone back to, errno %d", errno);
    for (int round = 0; round < 10; round++) {
        struct quire_heap *late = quire_heap_create(NULL);
        REQUIRE(late != NULL && quire_heap_alloc(late, 1000) != NULL);
        for (int i = 0; i < 200; i += 1 + round)
            quire_heap_free(h, blocks[i].p);
        for (int i = 0; i < 300; i++)
            memset(quire_heap_alloc(h, (size_t)i * 100 + 1), 0xee, (size_t)i * 100 + 1);
        REQUIRE(quire_snapshot_restore(snap) == 0, "errno %d", errno);
        CHECK(stat_of(h).live == 200 && stat_of(h).held == held);
        for (int i = 0; i < 200; i++)
            CHECK(quire_heap_of(blocks[i].p) == h &&
                      conform_intact(blocks[i].p, blocks[i].size, blocks[i].seed),
                  "round %d, block %d", round, i);
    }
    REQUIRE(quire_snapshot_release(snap) == 0);
    quire_heap_destroy(h);
}

static void *overwrite(void *arg)
{
    uint64_t state = 77;

    for (int i = 0; i < 3000; i++) {
        struct block *b = &((struct block *)arg)[conform_random(&state) % 200];

        memset(b->p, i, b->size);
    }
    return NULL;
}

/* A snapshot of one heap: what was in it, whatever becomes of it; and nothing else. */
static void case_snapshot(unsigned flags)
{
    static struct block blocks[200], then[200];
    static unsigned char text[8u << 20];
    struct quire_heap *h = quire_heap_create(NULL), *other = quire_heap_create(NULL);
    uint64_t state = 4;
    pthread_t t;

    REQUIRE(h != NULL && other != NULL);
    errno = 0;
    CHECK(quire_snapshot_take(&state, flags) == NULL && errno == EINVAL);
    char *foreign = quire_heap_strdup(other, "foreign"), *mallocs = malloc(100);
    for (int i = 0; i < 200; i++)
        make(h, &blocks[i], &state, 7u << 20);
    memcpy(then, blocks, sizeof(then));
    quire_snapshot_t *snap = quire_snapshot_take(h, flags);
    if (snap == NULL)
        conform_skip("no snapshot can be taken, errno %d", errno);
    REQUIRE(pthread_create(&t, NULL, overwrite, blocks) == 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 200; i++) {
            REQUIRE(quire_snapshot_read(snap, then[i].p, text, then[i].size) ==
                        (ssize_t)then[i].size,
                    "block %d, errno %d", i, errno);
            CHECK(conform_intact(text, then[i].size, then[i].seed), "block %d of %zu", i,
                  then[i].size);
        }
        errno = 0;
        CHECK(quire_snapshot_read(snap, foreign, text, 8) < 0 && errno == EFAULT);
        CHECK(quire_snapshot_read(snap, mallocs, text, 8) < 0 && errno == EFAULT);
        if (round == 0) {
            pthread_join(t, NULL);
            quire_heap_destroy(h);
            for (int i = 0; i < 200; i++)
                make(other, &blocks[i], &state, 7u << 20);
        }
    }
    CHECK(quire_snapshot_release(snap) == 0);
    quire_heap_destroy(other);
}

/* What cannot be had leaves no trace; what has no size has a place of its own. */
static void case_extremes(void)
{
    struct quire_heap *h = quire_heap_create(NULL);
    char *small = quire_heap_alloc(h, 100), *p[40];
    size_t n = 0;

    REQUIRE(small != NULL);
    struct quire_heap_stat before = stat_of(h);
    CHECK(quire_heap_alloc(h, (size_t)1 << 60) == NULL);
    CHECK(stat_of(h).peak == before.peak, "peak %zu", stat_of(h).peak);
    for (size_t align = 16; align <= (size_t)16 << 20; align *= 2, n++) {
        p[n] = quire_heap_aligned(h, align, 0);
        REQUIRE(p[n] != NULL);
        CHECK((uintptr_t)p[n] % align == 0 && quire_heap_usable_size(h, p[n]) > 0, "align %zu",
              align);
        CHECK(quire_heap_of(p[n]) == h, "align %zu", align);
        *p[n] = (char)n;
    }
    for (size_t i = 0; i < n; i++) {
        CHECK(*p[i] == (char)i);
        quire_heap_free(h, p[i]);
    }
    quire_heap_free(h, small);
    CHECK(stat_of(h).live == 0 && stat_of(h).live_bytes == 0);
    quire_heap_destroy(h);
}

static void case_snapshot_by_protection(void)
{
    case_snapshot(0);
}

static void case_snapshot_by_holder(void)
{
    case_snapshot(QUIRE_SNAPSHOT_HOLDER);
}

/* Thousands of heaps, one after the other: nothing is left behind. */
static void case_many_heaps(void)
{
    size_t before = 0;

    for (int i = 0; i < 20000; i++) {
        struct quire_heap *h = quire_heap_create(NULL);
        REQUIRE(h != NULL);
        for (int k = 0; k < 30; k++)
            REQUIRE(quire_heap_alloc(h, (size_t)k * 50) != NULL);
        if (i % 100 == 0)
            REQUIRE(quire_heap_alloc(h, 100000 + 9000000 * (size_t)(i % 1000 == 0)) != NULL);
        quire_heap_destroy(h);
        if (i == 2000)
            before = conform_resident();
    }
    CHECK(conform_resident() < before + (4u << 20), "%zu, before %zu", conform_resident(), before);
    CHECK(page_bytes() > 0);
}

static const struct conform_case cases[] = {
    {"random calls against a model", case_model, 0},
    {"zones", case_zones, 0},
    {"nodes", case_nodes, 0},
    {"a limit ends in ENOMEM", case_limit, 0},
    {"memory comes back", case_memory_comes_back, 0},
    {"small heaps are small", case_small_heaps, 0},
    {"threads share a heap", case_threads, 0},
    {"a heap is handed over", case_handed_over, 0},
    {"wrong arguments", case_wrong_arguments, 0},
    {"sizes that are none, or too much", case_extremes, 0},
    {"fork copies", case_fork, 0},
    {"going back to a snapshot", case_rollback, 0},
    {"a snapshot of one heap", case_snapshot_by_protection, 0},
    {"the same by a holder", case_snapshot_by_holder, 0},
    {"many heaps", case_many_heaps, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
