/*
 * heap_memory.c - heaps of one's own and memory: how much they hold, at a limit too, and that all
 * of it goes back.
 */
#include <string.h>
#include <unistd.h>

#include "heap.h"

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
    CHECK(sysconf(_SC_PAGESIZE) > 0);
}

static const struct conform_case cases[] = {
    {"a limit ends in ENOMEM", case_limit, 0},
    {"memory comes back", case_memory_comes_back, 0},
    {"small heaps are small", case_small_heaps, 0},
    {"many heaps", case_many_heaps, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
