/* resize.c - realloc keeps contents over every range; usable bytes are usable; sized frees. */
#include "conform.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* Resizes a fresh block of `from` bytes to `to` and checks what must have survived. */
static void resize_once(size_t from, size_t to)
{
    unsigned char *p = malloc(from), *q;
    size_t common = from < to ? from : to;

    REQUIRE(p != NULL, "(size %zu)", from);
    conform_fill(p, from, 9);
    q = realloc(p, to);
    REQUIRE(q != NULL, "(%zu to %zu)", from, to);
    CHECK((uintptr_t)q % 16 == 0, "(%zu to %zu)", from, to);
    CHECK(malloc_usable_size(q) >= to, "(%zu to %zu)", from, to);
    CHECK(conform_intact(q, common, 9), "realloc from %zu to %zu lost contents", from, to);
    if (to > from) {
        memset(q + from, 0x5a, to - from);
        CHECK(conform_intact(q, common, 9));
    }
    free(q);
}

static void case_all_small_pairs(void)
{
    for (size_t from = 1; from <= 520; from += 7) {
        for (size_t to = 1; to <= 2000; to += 13) {
            resize_once(from, to);
            resize_once(to, from);
        }
    }
}

static void case_all_ranges(void)
{
    for (size_t from = 1; from <= 64u << 20; from *= 2) {
        size_t to[] = {from + 1,  from - 1,  2 * from, from / 2, from + from / 2,
                       from / 16, 16 * from, 1,        4096,     65536};

        for (size_t i = 0; i < COUNT_OF(to); i++) {
            if (to[i] != 0 && to[i] <= 64u << 20) {
                resize_once(from, to[i]);
                resize_once(from + 3, to[i]);
            }
        }
    }
}

static void case_growing_step_by_step(void)
{
    unsigned char *p = NULL;
    size_t have = 0;

    /* As a growing string or array does it, to 64 MiB, with neighbours that get in the way. */
    while (have < 64u << 20) {
        size_t want = have + have / 3 + 100;
        void *neighbour = malloc(want);

        p = realloc(p, want);
        REQUIRE(p != NULL && neighbour != NULL, "(size %zu)", want);
        conform_fill(p + have, want - have, (unsigned int)(have * 7 + (have >> 8)));
        free(neighbour);
        have = want;
    }
    /* The first step's bytes are still where they were. */
    CHECK(conform_intact(p, 100, 0));
    while (have > 1) {
        have -= have / 4 + 1;
        if (have != 0) {
            p = realloc(p, have);
            REQUIRE(p != NULL);
        }
        CHECK(conform_intact(p, have < 100 ? have : 100, 0), "shrunk to %zu", have);
    }
    free(p);
}

static void case_shrinking_gives_back(void)
{
    unsigned char *p = malloc(256u << 20);
    size_t full, after;

    REQUIRE(p != NULL);
    memset(p, 1, 256u << 20);
    full = conform_resident();
    p = realloc(p, 1u << 20);
    REQUIRE(p != NULL);
    after = conform_resident();
    CHECK(p[0] == 1 && p[(1u << 20) - 1] == 1);
    CHECK(after + (200u << 20) < full, "%zu resident before, %zu after shrinking 256 to 1 MiB",
          full, after);
    free(p);
}

static void case_usable_bytes_are_usable(void)
{
    enum { BLOCKS = 64 };
    unsigned char *blocks[BLOCKS];

    CHECK(malloc_usable_size(NULL) == 0);
    for (size_t size = 1; size <= 16u << 20; size += 1 + size / 9) {
        size_t count = size > 1u << 20 ? 3 : BLOCKS;

        /* Every usable byte is written before any is checked: they must not overlap. */
        for (size_t i = 0; i < count; i++) {
            blocks[i] = malloc(size);
            REQUIRE(blocks[i] != NULL);
            REQUIRE(malloc_usable_size(blocks[i]) >= size, "(size %zu)", size);
            CHECK(malloc_usable_size(blocks[i]) <= size + size / 2 + 4096,
                  "malloc(%zu) has %zu usable bytes", size, malloc_usable_size(blocks[i]));
            conform_fill(blocks[i], malloc_usable_size(blocks[i]), (unsigned int)i);
        }
        for (size_t i = 0; i < count; i++) {
            CHECK(conform_intact(blocks[i], malloc_usable_size(blocks[i]), (unsigned int)i),
                  "usable bytes of malloc(%zu) overlap", size);
            free(blocks[i]);
        }
    }
}

static void case_usable_bytes_survive_realloc(void)
{
    /* Growing within the usable size must not move or lose anything that was asked for. */
    for (size_t size = 1; size <= 1u << 20; size += 1 + size / 5) {
        unsigned char *p = malloc(size);
        size_t usable;

        REQUIRE(p != NULL);
        usable = malloc_usable_size(p);
        conform_fill(p, usable, 4);
        p = realloc(p, usable);
        REQUIRE(p != NULL);
        CHECK(conform_intact(p, usable, 4), "(size %zu, usable %zu)", size, usable);
        free(p);
    }
}

static void case_cfree(void)
{
    void (*old_free)(void *) = (void (*)(void *))dlsym(RTLD_DEFAULT, "cfree");

    if (old_free == NULL) {
        CHECK(!conform_expects_quire(), "cfree is missing");
        conform_skip("this allocator has no cfree");
    }
    for (size_t size = 1; size < 10u << 20; size *= 3) {
        void *p = malloc(size);

        REQUIRE(p != NULL);
        old_free(p);
    }
    old_free(NULL);
}

static void case_sized_frees(void)
{
    void (*free_sized)(void *, size_t);
    void (*free_aligned_sized)(void *, size_t, size_t);

    free_sized = (void (*)(void *, size_t))dlsym(RTLD_DEFAULT, "free_sized");
    free_aligned_sized =
        (void (*)(void *, size_t, size_t))dlsym(RTLD_DEFAULT, "free_aligned_sized");
    if (free_sized == NULL || free_aligned_sized == NULL) {
        CHECK(!conform_expects_quire(), "C23's sized frees are missing");
        conform_skip("this allocator has no free_sized");
    }
    free_sized(NULL, 0);
    free_sized(NULL, 100);
    free_aligned_sized(NULL, 64, 100);
    for (size_t size = 0; size < 20u << 20; size += 1 + size / 4) {
        void *p = malloc(size);

        REQUIRE(p != NULL);
        errno = 4711;
        free_sized(p, size);
        CHECK(errno == 4711);
        free_sized(calloc(1, size), size);
        /* A block that realloc padded is freed with the size asked for last. */
        free_sized(realloc(malloc(size + 1), size / 2 + 1), size / 2 + 1);
        free_sized(realloc(malloc(size / 2 + 1), size + 1), size + 1);
        for (size_t alignment = 16; alignment <= 1u << 21; alignment *= 8) {
            free_aligned_sized(aligned_alloc(alignment, size), alignment, size);
        }
        CHECK(errno == 4711);
    }
}

static const struct conform_case cases[] = {
    {"realloc between all small sizes", case_all_small_pairs, 0},
    {"realloc between all ranges up to 64 MiB", case_all_ranges, 0},
    {"realloc grows and shrinks step by step", case_growing_step_by_step, 0},
    {"shrinking a large block gives memory back", case_shrinking_gives_back, 0},
    {"usable bytes can be written", case_usable_bytes_are_usable, 0},
    {"usable bytes survive realloc", case_usable_bytes_survive_realloc, 0},
    {"cfree frees", case_cfree, 0},
    {"free_sized and free_aligned_sized free", case_sized_frees, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
