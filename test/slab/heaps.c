/*
 * heaps.c - heaps of one's own and their blocks, against a model: what they give, of which sizes,
 * zones and nodes, and what they refuse.
 *
 * Their memory is in heap_memory.c; who shares them in heap_shared.c.
 */
#include <stdlib.h>
#include <string.h>

#include "heap.h"
#include "quire/page.h"
#include "quire/quire.h"

#define BLOCKS 1000

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
    int nr = conform_has_option("numa_fake:3") ? 3 : 1;

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
    CHECK(quire_heap_calloc(h, conform_opaque(SIZE_MAX / 2 / (1u << 23) + 1), 1u << 30) == NULL &&
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

/* What cannot be had leaves no trace; what has no size has a place of its own. */
static void case_extremes(void)
{
    struct quire_heap *h = quire_heap_create(NULL);
    char *small = quire_heap_alloc(h, 100), *p[40];
    size_t n = 0;

    REQUIRE(small != NULL);
    struct quire_heap_stat before = stat_of(h);
    CHECK(quire_heap_alloc(h, SIZE_MAX / 2 + 4097) == NULL);
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

static const struct conform_case cases[] = {
    {"random calls against a model", case_model, 0},
    {"zones", case_zones, 0},
    {"nodes", case_nodes, 0},
    {"wrong arguments", case_wrong_arguments, 0},
    {"sizes that are none, or too much", case_extremes, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
