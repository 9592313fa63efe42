/*
 * numa_calls.c - the calls of quire/numa.h, checked by asking the kernel page by page: nodes by
 * number, policies, migration, heaps of a node, counters. As numa.c for machines with several
 * nodes.
 */
#include <malloc.h>
#include <stdio.h>

#include "nodes.h"
#include "quire/heap.h"

static void asked_by_number(void)
{
    unsigned long mask = 0;
    int a, b;

    need_two(&a, &b);
    run_on(a);
    CHECK(quire_nodes(&mask, 64) >= 2 && (mask >> a & 1) != 0 && (mask >> b & 1) != 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *p = quire_node_alloc(sizes[i], b);
        REQUIRE(p != NULL);
        memset(p, 1, sizes[i]);
        CHECK(pages_elsewhere(p, sizes[i], b) == 0, "%zu bytes", sizes[i]);
        CHECK(quire_node_of(p) == b);
        free(p);
        free(block_on(sizes[i], a));
    }
    errno = 0;
    CHECK(quire_node_alloc(100, 999) == NULL && errno == ENXIO);
}

/* By how many pages interleaving may miss: where the kernel interleaves huge pages, by one of them. */
static size_t huge_slack(void)
{
    char text[256];

    read_text("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text));
    return strstr(text, "[always]") != NULL ? 2 * MIB / page_size : 0;
}

static void policies(void)
{
    size_t on[MAX_NODES] = {0};
    int a, b;

    need_two(&a, &b);
    size_t n = 2048 * page_size; /* a mapping of its own, which the kernel interleaves */
    run_on(a);
    unsigned long only_b = 1ul << b, both = 1ul << a | 1ul << b;
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_PREFERRED, &only_b, 64) == 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(block_on(sizes[i], b));
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_BIND, &only_b, 64) == 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(block_on(sizes[i], b));
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_INTERLEAVE, &both, 64) == 0);
    char *p = malloc(n);
    memset(p, 1, n);
    count_pages(p, n, on);
    size_t slack = huge_slack(), half = n / page_size / 2;
    CHECK(on[a] + slack >= half && on[b] + slack >= half, "%zu and %zu pages", on[a], on[b]);
    free(p);
    memset(on, 0, sizeof(on));
    for (int i = 0; i < 64; i++) {
        memset(p = malloc(50000), 1, 50000);
        count_pages(p, 1, on);
    }
    CHECK(on[a] == 32 && on[b] == 32, "runs: %zu and %zu", on[a], on[b]);
    memset(on, 0, sizeof(on));
    for (int i = 0; i < 6000; i++) {
        memset(p = malloc(200), 1, 200);
        count_pages(p, 1, on);
    }
    CHECK(on[a] > 2000 && on[b] > 2000, "objects: %zu and %zu", on[a], on[b]);
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_DEFAULT, NULL, 0) == 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(block_on(sizes[i], a));
}

static void weighted_interleave(void)
{
    static const char root[] = "/sys/kernel/mm/mempolicy/weighted_interleave/node";
    size_t on[MAX_NODES] = {0};
    char path[96];
    int a, b;

    need_two(&a, &b);
    size_t n = 2048 * page_size;
    unsigned long both = 1ul << a | 1ul << b;
    if (quire_mempolicy_set(QUIRE_MPOL_WEIGHTED_INTERLEAVE, &both, 64) != 0) {
        CHECK(errno == ENOTSUP);
        conform_skip("this kernel has no weighted interleave");
    }
    snprintf(path, sizeof(path), "%s%d", root, a);
    REQUIRE(write_text(path, "3"));
    snprintf(path, sizeof(path), "%s%d", root, b);
    REQUIRE(write_text(path, "1"));
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_WEIGHTED_INTERLEAVE, &both, 64) == 0);
    char *p = malloc(n);
    memset(p, 1, n);
    count_pages(p, n, on);
    size_t slack = 4 * huge_slack(), quarter = n / page_size / 4;
    CHECK(on[a] + slack >= 3 * quarter && on[b] + slack >= quarter, "%zu and %zu pages", on[a],
          on[b]);
    memset(on, 0, sizeof(on));
    for (int i = 0; i < 64; i++) {
        memset(p = malloc(50000), 1, 50000);
        count_pages(p, 1, on);
    }
    CHECK(on[a] == 48 && on[b] == 16, "runs: %zu and %zu", on[a], on[b]);
}

static void migrate(void)
{
    static const size_t of[] = {100, 20000, 300000, 6 * MIB};
    int a, b;

    need_two(&a, &b);
    run_on(a);
    for (size_t i = 0; i < COUNT_OF(of); i++) {
        char *p = block_on(of[i], a);
        conform_fill(p, of[i], (unsigned)i);
        ssize_t moved = quire_migrate(p, of[i], b);
        CHECK(moved >= (ssize_t)(of[i] / page_size), "%zd pages moved, errno %d", moved, errno);
        CHECK(pages_elsewhere(p, of[i], b) == 0, "%zu bytes", of[i]);
        CHECK(conform_intact(p, of[i], (unsigned)i));
        free(p);
        malloc_trim(0);
        free(block_on(of[i], a)); /* what moved away came back, or was not used again */
    }
    char *p = malloc(100);
    errno = 0;
    CHECK(quire_migrate(p, 100, 999) == -1 && errno == ENXIO);
    CHECK(quire_migrate(p, 0, b) == -1 && errno == EINVAL);
}

/* Blocks that grew where they are begin anywhere: the last page alone is moved, and comes home. */
static void migrate_tails(void)
{
    char *p[16];
    size_t nr = 0;
    int a, b;

    need_two(&a, &b);
    run_on(a);
    /* Runs are longer than 32 KiB; from 256 KiB on, what cannot grow where it is gets a mapping. */
    size_t least = 32768 / page_size + 1, grown = least + 5;
    for (; nr < COUNT_OF(p) && (grown + nr) * page_size < MIB / 4; nr++) {
        p[nr] = malloc((least + nr) * page_size);
        p[nr] = realloc(p[nr], (grown + nr) * page_size);
        memset(p[nr], 1, (grown + nr) * page_size);
    }
    for (size_t i = 0; i < nr; i++) {
        char *last = p[i] + (grown + i - 1) * page_size;

        CHECK(quire_migrate(last, 1, b) == 1 && pages_elsewhere(last, 1, b) == 0);
        free(p[i]);
        CHECK(pages_elsewhere(last, 1, a) == 0, "%zu pages", grown + i);
    }
}

static void heaps_of_a_node(void)
{
    static const size_t of[] = {100, 20000, 300000, 20 * MIB};
    char *p[COUNT_OF(of)];
    int a, b;

    need_two(&a, &b);
    run_on(a);
    struct quire_heap_attr on_b = {.flags = QUIRE_HEAP_NODE, .node = b};
    struct quire_heap *h = quire_heap_create(&on_b);
    REQUIRE(h != NULL);
    CHECK(quire_heap_migrate(h, b) == 0, "it holds nothing yet");
    for (size_t i = 0; i < COUNT_OF(of); i++) {
        REQUIRE((p[i] = quire_heap_alloc(h, of[i])) != NULL);
        conform_fill(p[i], of[i], (unsigned)i);
        CHECK(pages_elsewhere(p[i], of[i], b) == 0, "%zu bytes", of[i]);
    }
    CHECK(quire_heap_migrate(h, a) > (ssize_t)(20 * MIB / page_size));
    for (size_t i = 0; i < COUNT_OF(of); i++) {
        CHECK(conform_intact(p[i], of[i], (unsigned)i));
        CHECK(pages_elsewhere(p[i], of[i], a) == 0, "%zu bytes", of[i]);
    }
    char *more = quire_heap_alloc(h, 200000);
    memset(more, 1, 200000);
    CHECK(pages_elsewhere(more, 200000, a) == 0);
    CHECK(quire_heap_migrate(h, 999) == -1 && errno == ENXIO);
    quire_heap_destroy(h);
    free(block_on(300000, a));
}

static void numastat(void)
{
    struct quire_node_stat s, t;
    int a, b;
    void *p[64];

    need_two(&a, &b);
    run_on(a);
    free(malloc(1));
    REQUIRE(quire_node_stat(a, &s, sizeof(s)) == 0);
    for (size_t i = 0; i < 64; i++)
        p[i] = malloc(100000);
    REQUIRE(quire_node_stat(a, &t, sizeof(t)) == 0);
    CHECK(t.numa_hit - s.numa_hit == 64 && t.local_node - s.local_node == 64);
    CHECK(t.numa_miss == 0 && t.numa_foreign == 0 && t.other_node == 0);
    CHECK(t.used_bytes - s.used_bytes >= 64 * 100000);
    REQUIRE(quire_node_stat(b, &s, sizeof(s)) == 0);
    for (size_t i = 0; i < 64; i++) {
        free(p[i]);
        p[i] = quire_node_alloc(100000, b);
    }
    REQUIRE(quire_node_stat(b, &t, sizeof(t)) == 0);
    CHECK(t.numa_hit - s.numa_hit == 64 && t.other_node - s.other_node == 64);
    CHECK(t.local_node == s.local_node);
}

static const struct conform_case cases[] = {
    {"asked_by_number", asked_by_number, 120},
    {"policies", policies, 120},
    {"weighted_interleave", weighted_interleave, 120},
    {"migrate", migrate, 120},
    {"migrate_tails", migrate_tails, 120},
    {"heaps_of_a_node", heaps_of_a_node, 120},
    {"numastat", numastat, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
