/* contract.c - what malloc, calloc, realloc, reallocarray and free promise, at the edges too. */
#include "conform.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Sizes around every power of two up to 64 MiB, where classes, orders and layers change hands. */
static size_t edge_sizes[160];
static size_t edge_count;

static void make_edge_sizes(void)
{
    edge_count = 0;
    for (size_t power = 1; power <= 64u << 20; power *= 2) {
        size_t around[] = {power - 1, power, power + 1, power + power / 2};

        for (size_t i = 0; i < COUNT_OF(around); i++) {
            if (around[i] != 0 && around[i] <= 64u << 20 &&
                (edge_count == 0 || around[i] > edge_sizes[edge_count - 1])) {
                edge_sizes[edge_count++] = around[i];
            }
        }
    }
}

static void case_zero_sizes(void)
{
    void *blocks[64];

    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        blocks[i] = i % 4 == 0   ? malloc(0)
                    : i % 4 == 1 ? calloc(0, 8)
                    : i % 4 == 2 ? calloc(8, 0)
                                 : realloc(NULL, 0);
        REQUIRE(blocks[i] != NULL, "(form %zu)", i % 4);
        for (size_t k = 0; k < i; k++) {
            CHECK(blocks[k] != blocks[i], "two live blocks of size 0 share an address");
        }
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        free(blocks[i]);
    }
    free(NULL);
}

static void case_too_large(void)
{
    size_t sizes[] = {
        (size_t)PTRDIFF_MAX + 1,
        (size_t)PTRDIFF_MAX + 2,
        SIZE_MAX / 2 + 4096,
        SIZE_MAX - 4096,
        SIZE_MAX - 65536,
        SIZE_MAX - 63,
        SIZE_MAX - 15,
        SIZE_MAX - 1,
        SIZE_MAX,
        (size_t)PTRDIFF_MAX,
        (size_t)PTRDIFF_MAX - 4096,
        SIZE_MAX / 2 + 1 + SIZE_MAX / 16,
        SIZE_MAX - SIZE_MAX / 4,
    };
    char *keep = malloc(100);

    REQUIRE(keep != NULL);
    conform_fill(keep, 100, 1);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        size_t size = conform_opaque(sizes[i]);

        errno = 0;
        CHECK(malloc(size) == NULL, "(size %#zx)", size);
        CHECK(errno == ENOMEM, "(malloc(%#zx) left errno %d)", size, errno);
        errno = 0;
        CHECK(calloc(1, size) == NULL, "(size %#zx)", size);
        CHECK(errno == ENOMEM, "(calloc(1, %#zx) left errno %d)", size, errno);
        errno = 0;
        CHECK(calloc(size, 1) == NULL, "(size %#zx)", size);
        CHECK(errno == ENOMEM, "(calloc(%#zx, 1) left errno %d)", size, errno);
        errno = 0;
        CHECK(realloc(NULL, size) == NULL, "(size %#zx)", size);
        CHECK(errno == ENOMEM, "(realloc(NULL, %#zx) left errno %d)", size, errno);
        errno = 0;
        CHECK(realloc(keep, size) == NULL, "(size %#zx)", size);
        CHECK(errno == ENOMEM, "(realloc(p, %#zx) left errno %d)", size, errno);
        CHECK(conform_intact(keep, 100, 1), "a realloc that failed changed the block");
    }
    free(keep);
}

/* Its square is the first number that size_t does not have. */
#define HALF_BITS ((size_t)1 << 4 * sizeof(size_t))

static void case_product_overflow(void)
{
    size_t pairs[][2] = {
        {SIZE_MAX, 2},
        {2, SIZE_MAX},
        {SIZE_MAX / 2 + 1, 2},
        {2, SIZE_MAX / 2 + 1},
        {HALF_BITS, HALF_BITS},
        {SIZE_MAX / 16 + 1, 16},
        {16, SIZE_MAX / 16 + 1},
        {65537, SIZE_MAX / 65536},
        {SIZE_MAX, SIZE_MAX},
        {PTRDIFF_MAX, 2},
        {(size_t)PTRDIFF_MAX / 2 + 1, 2},
    };
    char *keep = malloc(40);

    REQUIRE(keep != NULL);
    conform_fill(keep, 40, 2);
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        size_t n = conform_opaque(pairs[i][0]), size = conform_opaque(pairs[i][1]);

        errno = 0;
        CHECK(calloc(n, size) == NULL, "(%#zx x %#zx)", n, size);
        CHECK(errno == ENOMEM, "(calloc(%#zx, %#zx) left errno %d)", n, size, errno);
        errno = 0;
        CHECK(reallocarray(keep, n, size) == NULL, "(%#zx x %#zx)", n, size);
        CHECK(errno == ENOMEM, "(reallocarray(p, %#zx, %#zx) left errno %d)", n, size, errno);
        CHECK(conform_intact(keep, 40, 2), "a reallocarray that failed changed the block");
    }
    keep = reallocarray(keep, 100, 40);
    REQUIRE(keep != NULL);
    CHECK(malloc_usable_size(keep) >= 4000);
    CHECK(conform_intact(keep, 40, 2));
    CHECK(reallocarray(keep, 0, 40) == NULL, "reallocarray to 0 frees, as realloc does");
    keep = reallocarray(NULL, 3, 5);
    REQUIRE(keep != NULL);
    CHECK(malloc_usable_size(keep) >= 15);
    free(keep);
}

static void case_realloc_to_zero(void)
{
    size_t sizes[] = {1, 16, 100, 4096, 70000, 300000, 3u << 20, 40u << 20};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        size_t before;

        CHECK(realloc(malloc(sizes[i]), conform_opaque(0)) == NULL, "(from size %zu)", sizes[i]);
        /* It frees: doing it again and again must not grow the process. */
        before = conform_resident();
        for (int round = 0; round < 200; round++) {
            char *p = malloc(sizes[i]);

            REQUIRE(p != NULL);
            p[0] = 1;
            p[sizes[i] - 1] = 1;
            CHECK(realloc(p, conform_opaque(0)) == NULL);
        }
        CHECK(conform_resident() < before + sizes[i] + (2u << 20),
              "realloc(p, 0) of %zu bytes leaks", sizes[i]);
    }
}

static void case_alignment(void)
{
    long page = sysconf(_SC_PAGESIZE);

    make_edge_sizes();
    for (size_t i = 0; i < edge_count; i++) {
        void *several[8];

        for (size_t k = 0; k < COUNT_OF(several); k++) {
            several[k] = k % 2 == 0 ? malloc(edge_sizes[i]) : calloc(1, edge_sizes[i]);
            REQUIRE(several[k] != NULL, "(size %zu)", edge_sizes[i]);
            CHECK((uintptr_t)several[k] % _Alignof(max_align_t) == 0, "(size %zu)", edge_sizes[i]);
        }
        for (size_t k = 0; k < COUNT_OF(several); k++) {
            free(several[k]);
        }
    }
    if (!conform_expects_quire()) {
        return;
    }
    /* quire's own promise: a power of two is aligned to itself, up to the page size. */
    for (size_t size = 16; size <= 4u << 20; size *= 2) {
        void *several[40];
        size_t want = size < (size_t)page ? size : (size_t)page;

        for (size_t k = 0; k < COUNT_OF(several); k++) {
            several[k] = malloc(size);
            CHECK((uintptr_t)several[k] % want == 0, "(malloc(%zu) gave %p)", size, several[k]);
        }
        for (size_t k = 0; k < COUNT_OF(several); k++) {
            free(several[k]);
        }
    }
}

static void case_calloc_clears(void)
{
    make_edge_sizes();
    for (size_t i = 0; i < edge_count; i++) {
        size_t size = edge_sizes[i];
        int rounds = size > 1u << 20 ? 3 : 12;

        for (int round = 0; round < rounds; round++) {
            unsigned char *dirty = malloc(size), *other = malloc(size), *clean;

            REQUIRE(dirty != NULL && other != NULL, "(size %zu)", size);
            memset(dirty, 0xff, malloc_usable_size(dirty));
            memset(other, 0xff, malloc_usable_size(other));
            free(dirty);
            if (round % 2 == 0) {
                free(other);
                other = NULL;
            }
            clean = calloc(round % 3 == 0 ? 1 : size, round % 3 == 0 ? size : 1);
            REQUIRE(clean != NULL, "(size %zu)", size);
            CHECK(clean[0] == 0 && memcmp(clean, clean + 1, size - 1) == 0,
                  "calloc of %zu bytes gave dirty memory", size);
            free(clean);
            free(other);
        }
    }
}

static void case_errno_kept_by_free(void)
{
    make_edge_sizes();
    for (size_t i = 0; i < edge_count; i++) {
        void *plain = malloc(edge_sizes[i]);
        void *aligned = memalign(65536, edge_sizes[i]);

        REQUIRE(plain != NULL && aligned != NULL);
        errno = 4711;
        free(plain);
        CHECK(errno == 4711, "free of %zu bytes left errno %d", edge_sizes[i], errno);
        free(aligned);
        CHECK(errno == 4711, "free of %zu aligned bytes left errno %d", edge_sizes[i], errno);
        free(NULL);
        CHECK(errno == 4711);
    }
}

static void case_live_blocks_do_not_overlap(void)
{
    enum { SLOTS = 3000, STEPS = 150000 };
    static struct {
        unsigned char *block;
        size_t size;
        unsigned int seed;
    } slots[SLOTS];
    uint64_t state = 42;

    for (int step = 0; step < STEPS; step++) {
        size_t which = conform_random(&state) % SLOTS;
        uint64_t dice = conform_random(&state) % 1000;
        /* Mostly small, a few around a page, now and then a large one. */
        size_t size = 1 + conform_random(&state) % (dice < 900   ? 600
                                                    : dice < 990 ? 9000
                                                    : dice < 999 ? 100000
                                                                 : 2000000);

        if (slots[which].block != NULL) {
            REQUIRE(conform_intact(slots[which].block, slots[which].size, slots[which].seed),
                    "the block of %zu bytes at %p was overwritten (step %d)", slots[which].size,
                    (void *)slots[which].block, step);
            free(slots[which].block);
        }
        slots[which].block = dice % 7 == 0 ? memalign((size_t)16 << dice % 9, size) : malloc(size);
        REQUIRE(slots[which].block != NULL);
        slots[which].size = size;
        slots[which].seed = (unsigned int)step;
        conform_fill(slots[which].block, size, (unsigned int)step);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        if (slots[i].block != NULL) {
            CHECK(conform_intact(slots[i].block, slots[i].size, slots[i].seed));
            free(slots[i].block);
        }
    }
}

static const struct conform_case cases[] = {
    {"size 0 gives unique blocks", case_zero_sizes, 0},
    {"sizes that cannot be are NULL and ENOMEM", case_too_large, 0},
    {"products that overflow are NULL and ENOMEM", case_product_overflow, 0},
    {"realloc(p, 0) frees and returns NULL", case_realloc_to_zero, 0},
    {"blocks are aligned", case_alignment, 0},
    {"calloc clears", case_calloc_clears, 0},
    {"free keeps errno", case_errno_kept_by_free, 0},
    {"live blocks do not overlap", case_live_blocks_do_not_overlap, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
