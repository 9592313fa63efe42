/* areas.c - pages in a row, and memory between guard pages: quire_vmap() and quire_vmalloc(). */
#include <string.h>

#include "high.h"
#include "quire/quire.h"

static void case_vmap(void)
{
    struct quire_page *page[20], *block = high(4), *list[40];

    for (int i = 0; i < 20; i++)
        page[i] = high(0);
    for (int i = 0; i < 40; i++)
        list[i] = i % 2 ? page[19 - i / 2]
                        : quire_pfn_to_page(quire_page_to_pfn(block) + (unsigned)i % 16);
    char *p = quire_vmap(list, 40);
    REQUIRE(p != NULL, "errno %d", errno);
    CHECK(faults(p - 1) && faults(p + 40 * page_bytes()));
    for (size_t i = 0; i < 40; i += 2)
        p[i * page_bytes()] = (char)(i % 16);
    for (size_t i = 1; i < 40; i += 2)
        p[i * page_bytes()] = (char)(50 + i);
    for (int i = 1; i < 40; i += 2) {
        char *q = quire_kmap_local(list[i]);
        REQUIRE(q != NULL);
        CHECK((size_t)*q == 50 + (size_t)i, "page %d: %d", i, *q);
        quire_kunmap_local(q);
    }
    CHECK(p[2 * page_bytes()] == p[18 * page_bytes()], "the same page twice");
    quire_free_pages(block, 4);
    for (int i = 0; i < 20; i++)
        quire_put_page(page[i]);
    CHECK(quire_page_count(block) == 20 && quire_page_count(page[3]) == 1);
    quire_vunmap(p);
    CHECK(quire_page_count(block) == 0 && quire_page_count(page[3]) == 0);
    errno = 0;
    CHECK(quire_vmap(list, 0) == NULL && errno == EINVAL);
}

static void case_vmalloc(void)
{
    size_t sizes[] = {1, page_bytes(), 3 * page_bytes() + 1, 20 << 20};
    char *at[4];

    for (int i = 0; i < 4; i++) {
        at[i] = quire_vmalloc(sizes[i]);
        REQUIRE(at[i] != NULL);
        size_t whole = (sizes[i] + page_bytes() - 1) / page_bytes() * page_bytes();
        CHECK(at[i][0] == 0 && memcmp(at[i], at[i] + 1, whole - 1) == 0);
        conform_fill(at[i], whole, (unsigned)i);
        CHECK(faults(at[i] - 1) && faults(at[i] + whole), "%zu bytes", sizes[i]);
        CHECK(!quire_owns(at[i]));
    }
    char text[20000];
    CHECK(quire_procfs("vmallocinfo", 0, text, sizeof(text)) > 0 && strstr(text, "quire_vmalloc"));
    for (int i = 3; i >= 0; i--) {
        CHECK(conform_intact(at[i], sizes[i], (unsigned)i));
        quire_vfree(at[i]);
        CHECK(faults(at[i]));
    }
    quire_vfree(NULL);
    quire_vunmap(NULL);
    errno = 0;
    CHECK(quire_vmalloc(0) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_vmalloc(SIZE_MAX) == NULL && errno == ENOMEM);
}

static const struct conform_case cases[] = {
    {"vmap", case_vmap, 0},
    {"vmalloc", case_vmalloc, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
