/* aligned.c - memalign, posix_memalign, aligned_alloc, valloc and pvalloc. */
#include "conform.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMS = 3 };
static const char *const form_names[FORMS] = {"memalign", "posix_memalign", "aligned_alloc"};

static void *allocate(int form, size_t alignment, size_t size)
{
    void *block = NULL;

    switch (form) {
    case 0:
        return memalign(alignment, size);
    case 1:
        errno = posix_memalign(&block, alignment, size);
        return errno == 0 ? block : NULL;
    default:
        return aligned_alloc(alignment, size);
    }
}

static void case_every_alignment(void)
{
    size_t sizes[] = {0,    1,     8,     24,     100,      1000,           4096,
                      5000, 40000, 65536, 100000, 1u << 20, (2u << 20) + 1, 9u << 20};

    for (int form = 0; form < FORMS; form++) {
        for (size_t alignment = 8; alignment <= 64u << 20; alignment *= 2) {
            for (size_t i = 0; i < COUNT_OF(sizes); i++) {
                /* Two at once, so that luck with the first does not hide a mistake. */
                unsigned char *a = allocate(form, alignment, sizes[i]);
                unsigned char *b = allocate(form, alignment, sizes[i]);

                REQUIRE(a != NULL && b != NULL, "%s(%zu, %zu)", form_names[form], alignment,
                        sizes[i]);
                CHECK((uintptr_t)a % alignment == 0 && (uintptr_t)b % alignment == 0,
                      "%s(%zu, %zu) gave %p, %p", form_names[form], alignment, sizes[i], (void *)a,
                      (void *)b);
                CHECK(a != b);
                CHECK(malloc_usable_size(a) >= sizes[i]);
                if (sizes[i] != 0) {
                    size_t tail = sizes[i] < 5000 ? sizes[i] : 5000;

                    conform_fill(a, tail, 1);
                    conform_fill(b, tail, 2);
                    conform_fill(a + sizes[i] - tail, tail, 1);
                    conform_fill(b + sizes[i] - tail, tail, 2);
                    CHECK(conform_intact(a + sizes[i] - tail, tail, 1));
                    CHECK(conform_intact(b + sizes[i] - tail, tail, 2));
                }
                free(a);
                free(b);
            }
        }
    }
}

static void case_aligned_blocks_are_ordinary(void)
{
    /* realloc keeps their contents, in both directions, and may be asked more than once. */
    for (size_t alignment = 16; alignment <= 4u << 20; alignment *= 4) {
        size_t sizes[] = {10, 3000, 50, 200000, 5u << 20, 700};
        unsigned char *p = memalign(alignment, sizes[0]);
        size_t have = sizes[0];

        REQUIRE(p != NULL);
        conform_fill(p, have, 3);
        for (size_t i = 1; i < COUNT_OF(sizes); i++) {
            size_t common = have < sizes[i] ? have : sizes[i];

            p = realloc(p, sizes[i]);
            REQUIRE(p != NULL);
            CHECK(conform_intact(p, common, 3), "(alignment %zu, %zu to %zu)", alignment, have,
                  sizes[i]);
            have = sizes[i];
            conform_fill(p, have, 3);
        }
        free(p);
    }
}

static void case_bad_alignment(void)
{
    size_t bad[] = {0,  1,   2,    3,        sizeof(void *) - 1, 7, 9, 12, 24,
                    48, 100, 4097, SIZE_MAX, SIZE_MAX / 2 + 2};

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        void *mark = &bad, *block = mark;
        int error = posix_memalign(&block, conform_opaque(bad[i]), 64);

        CHECK(error == EINVAL, "posix_memalign with alignment %zu returned %d", bad[i], error);
        CHECK(block == mark, "posix_memalign changed the pointer though it failed");
    }
    /* memalign takes any number and rounds it up to a power of two. */
    for (size_t alignment = 0; alignment < 3000; alignment += 1 + alignment / 5) {
        void *block = memalign(alignment, 100);
        size_t power = 1;

        while (power < alignment) {
            power *= 2;
        }
        REQUIRE(block != NULL, "(memalign(%zu, 100))", alignment);
        CHECK((uintptr_t)block % power == 0, "memalign(%zu, 100) gave %p", alignment, block);
        free(block);
    }
    /* aligned_alloc of such a number either does the same or says EINVAL (C17 allows both). */
    errno = 0;
    {
        void *block = aligned_alloc(conform_opaque(48), 96);

        CHECK(block == NULL ? errno == EINVAL : (uintptr_t)block % 16 == 0);
        free(block);
    }
}

static void case_too_large(void)
{
    size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1, PTRDIFF_MAX,
                      SIZE_MAX / 2 + 1 + SIZE_MAX / 16};
    size_t alignments[] = {
        8, 16, 64, 4096, 1u << 21, SIZE_MAX / 2 / (1u << 23) + 1, SIZE_MAX / 4 + 1};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        for (size_t k = 0; k < COUNT_OF(alignments); k++) {
            size_t size = conform_opaque(sizes[i]), alignment = conform_opaque(alignments[k]);
            void *mark = &sizes, *block = mark;
            int error = posix_memalign(&block, alignment, size);

            CHECK(error == ENOMEM, "posix_memalign(%#zx, %#zx) returned %d", alignment, size,
                  error);
            CHECK(block == mark, "posix_memalign changed the pointer though it failed");
            errno = 0;
            CHECK(memalign(alignment, size) == NULL && errno == ENOMEM, "(%#zx, %#zx) errno %d",
                  alignment, size, errno);
            errno = 0;
            CHECK(aligned_alloc(alignment, size) == NULL && errno == ENOMEM,
                  "(%#zx, %#zx) errno %d", alignment, size, errno);
        }
        errno = 0;
        CHECK(valloc(conform_opaque(sizes[i])) == NULL && errno == ENOMEM, "(size %#zx) errno %d",
              sizes[i], errno);
        errno = 0;
        CHECK(pvalloc(conform_opaque(sizes[i])) == NULL && errno == ENOMEM, "(size %#zx) errno %d",
              sizes[i], errno);
    }
    /* Alignments that no address space can give, with a size that is harmless. */
    int widest = 8 * (int)sizeof(size_t) - 1;
    for (int bits = widest > 32 ? 48 : widest; bits <= widest; bits++) {
        void *mark = &sizes, *block = mark;
        size_t alignment = conform_opaque((size_t)1 << bits);
        int error = posix_memalign(&block, alignment, 1);

        CHECK(error == ENOMEM || error == EINVAL, "posix_memalign(1 << %d, 1) returned %d", bits,
              error);
        CHECK(block == mark);
        CHECK(memalign(alignment, 1) == NULL, "(alignment 1 << %d)", bits);
    }
}

static void case_pages(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t sizes[] = {0, 1, 100, page - 1, page, page + 1, 5 * page, 1000 * page + 3};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        size_t rounded = (sizes[i] + page - 1) / page * page;
        unsigned char *v = valloc(sizes[i]), *p = pvalloc(sizes[i]);

        REQUIRE(v != NULL && p != NULL, "(size %zu)", sizes[i]);
        CHECK((uintptr_t)v % page == 0 && (uintptr_t)p % page == 0, "(size %zu)", sizes[i]);
        CHECK(malloc_usable_size(v) >= sizes[i]);
        CHECK(malloc_usable_size(p) >= rounded, "pvalloc(%zu) has %zu usable bytes", sizes[i],
              malloc_usable_size(p));
        memset(v, 1, sizes[i]);
        memset(p, 2, rounded);
        free(v);
        free(p);
    }
}

static void case_many_aligned(void)
{
    /* Alignment must not cost a multiple of the memory: 2000 blocks of 4 KiB at 4 KiB. */
    static void *blocks[2000];
    size_t before = conform_resident(), grown;

    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        blocks[i] = memalign(4096, 4096);
        REQUIRE(blocks[i] != NULL);
        CHECK((uintptr_t)blocks[i] % 4096 == 0);
        memset(blocks[i], 1, 4096);
    }
    grown = conform_resident() - before;
    CHECK(grown < 4096 * COUNT_OF(blocks) * 3, "8 MB in aligned blocks took %zu bytes", grown);
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        free(blocks[i]);
    }
}

static const struct conform_case cases[] = {
    {"every alignment from 8 to 64 MiB", case_every_alignment, 0},
    {"aligned blocks can be reallocated and freed", case_aligned_blocks_are_ordinary, 0},
    {"alignments that are no power of two", case_bad_alignment, 0},
    {"aligned sizes that cannot be are ENOMEM", case_too_large, 0},
    {"valloc and pvalloc give whole pages", case_pages, 0},
    {"alignment wastes little", case_many_aligned, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
