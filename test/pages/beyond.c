/*
 * beyond.c - a cache larger than the address space that is left: what 32-bit kernels need HIGHMEM
 * for. 6 GiB of pages, each with content of its own, in a process that may have 3 GiB of addresses:
 * a 32-bit one, or a 64-bit one that is not given more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/highmem.h"

#define GIB ((uint64_t)1 << 30)
#define ADDRESSES (3 * GIB)
#define CACHE (6 * GIB)
#define WANTED (8 * GIB) /* that the machine can spare */
#define ORDER 10u
#define LOOKS 200000

static struct quire_page **block;
static size_t page_size, nr_pages;

static size_t kib_of(const char *path, const char *name)
{
    char line[128];
    size_t n = 0;
    FILE *f = fopen(path, "r");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            n = strtoul(line + strlen(name), NULL, 10);
    if (f != NULL)
        fclose(f);
    return n;
}

/* Page i of the cache. */
static struct quire_page *page_at(size_t i)
{
    return quire_pfn_to_page(quire_page_to_pfn(block[i >> ORDER]) + (i & ((1u << ORDER) - 1)));
}

static uint64_t content(size_t i)
{
    return (i + 1) * 0x9e3779b97f4a7c15u;
}

/* What the i-th page holds at its start and its end, or new content. */
static bool look(size_t i, bool write)
{
    struct quire_page *page = page_at(i);
    /* Now by one kind of window, now by the other. */
    uint64_t *p = i % 7 == 0 ? quire_kmap(page) : quire_kmap_local(page);
    size_t last = page_size / sizeof(*p) - 1;

    REQUIRE(p != NULL, "page %zu, errno %d", i, errno);
    bool good = write ? p[0] == 0 && p[last] == 0 : p[0] == content(i) && p[last] == ~content(i);
    if (write) {
        p[0] = content(i);
        p[last] = ~content(i);
    }
    if (i % 7 == 0)
        quire_kunmap(page);
    else
        quire_kunmap_local(p);
    return good;
}

static void more_than_there_are_addresses(void)
{
    uint64_t state = 5;
    size_t bad = 0;

    if (getenv("QUIRE_BEYOND") == NULL)
        conform_skip("MemAvailable is below %zu GiB", (size_t)(WANTED / GIB));
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    nr_pages = (size_t)(CACHE / page_size);
    REQUIRE((block = calloc(nr_pages >> ORDER, sizeof(*block))) != NULL);
    /* So many addresses there are not. */
    CHECK(malloc(conform_opaque((size_t)ADDRESSES)) == NULL && errno == ENOMEM);
    for (size_t i = 0; i < nr_pages >> ORDER; i++)
        REQUIRE((block[i] = quire_alloc_pages(QUIRE_GFP_HIGHMEM, ORDER)) != NULL,
                "after %zu MiB, errno %d", (i << ORDER) * (page_size >> 10) >> 10, errno);
    for (size_t i = 0; i < nr_pages; i++)
        bad += !look(i, true);
    CHECK(bad == 0, "%zu pages were not zero", bad);
    for (size_t i = 0; i < nr_pages; i++)
        bad += !look(i, false);
    for (size_t i = 0; i < LOOKS; i++)
        bad += !look(conform_random(&state) % nr_pages, false);
    CHECK(bad == 0, "%zu looks found something else", bad);
    size_t addresses = kib_of("/proc/self/status", "VmPeak:");
    CHECK(addresses > 0 && addresses <= (size_t)(ADDRESSES >> 10), "%zu KiB", addresses);
    printf("# %zu MiB held by a %zu-bit process with at most %zu MiB of addresses\n",
           (size_t)(CACHE >> 20), 8 * sizeof(void *), addresses >> 10);
    for (size_t i = 0; i < nr_pages >> ORDER; i++)
        quire_free_pages(block[i], ORDER);
}

static const struct conform_case cases[] = {
    {"more_than_there_are_addresses", more_than_there_are_addresses, 800},
};

int main(int argc, char **argv)
{
    struct rlimit limit = {ADDRESSES, ADDRESSES};

    /* The limit comes before the program's start. */
    if (getenv("QUIRE_BEYOND") == NULL &&
        kib_of("/proc/meminfo", "MemAvailable:") >= (size_t)(WANTED >> 10)) {
        setenv("QUIRE_BEYOND", "1", 1);
        if (setrlimit(RLIMIT_AS, &limit) == 0)
            execv("/proc/self/exe", argv);
        unsetenv("QUIRE_BEYOND");
    }
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
