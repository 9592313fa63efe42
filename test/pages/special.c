/* special.c - pages of the zones DMA32 and DMA through the public interface. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/page.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static bool is_low(const void *p)
{
    return p != NULL && (uintptr_t)p <= UINT32_MAX;
}

static bool all_zero(const char *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* KiB of a line in /proc/self/status. */
static size_t status_kib(const char *name)
{
    char line[200];
    size_t kib = 0;
    FILE *file = fopen("/proc/self/status", "re");

    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtoul(line + strlen(name) + 1, NULL, 10);
    if (file != NULL)
        fclose(file);
    return kib;
}

/* Whether there is room below 4 GiB; a sanitizer or a debugger may have taken it. */
static struct quire_page *low(quire_gfp_t gfp, unsigned order)
{
    struct quire_page *page = quire_alloc_pages(gfp | QUIRE_GFP_DMA32, order);

    if (page == NULL && errno == ENOMEM)
        conform_skip("no room below 4 GiB");
    REQUIRE(page != NULL, "errno %d", errno);
    return page;
}

static void case_low(void)
{
    for (unsigned order = 0; order <= QUIRE_MAX_ORDER; order++) {
        struct quire_page *page = low(QUIRE_GFP_ZERO, order);
        char *p = quire_page_address(page);
        size_t len = page_bytes() << order;

        CHECK(is_low(p) && is_low(p + len - 1) && ((uintptr_t)p & (len - 1)) == 0, "%p", (void *)p);
        CHECK(all_zero(p, len), "order %u", order);
        conform_fill(p, len, order);
        CHECK(quire_virt_to_page(p + len - 1) != NULL &&
              quire_compound_head(quire_virt_to_page(p + len - 1)) == page);
        CHECK(quire_pfn_to_page(quire_page_to_pfn(page)) == page);
        CHECK(quire_virt_to_pfn(p) == quire_page_to_pfn(page));
        CHECK(quire_pfn_to_virt(quire_page_to_pfn(page)) == p);
        CHECK(quire_page_count(page) == 1 && quire_compound_nr(page) == (size_t)1 << order);
        CHECK(quire_page_to_nid(page) == -1 && !quire_owns(p));
        quire_get_page(page);
        quire_put_page(page);
        CHECK(conform_intact(p, len, order));
        quire_free_pages(page, order);
        CHECK(quire_page_count(page) == 0);
    }
}

static void case_by_address(void)
{
    quire_free_page(low(0, 0));
    void *exact = quire_alloc_pages_exact(5 * page_bytes() - 3, QUIRE_GFP_DMA32 | QUIRE_GFP_ZERO);
    void *one = quire_get_zeroed_page(QUIRE_GFP_DMA32);
    void *four = quire_get_free_pages(QUIRE_GFP_DMA32, 2);
    struct quire_page *bulk[50] = {NULL};

    CHECK(is_low(exact) && is_low(one) && is_low(four));
    CHECK(all_zero(exact, 5 * page_bytes()) && all_zero(one, page_bytes()));
    CHECK(quire_alloc_pages_bulk(QUIRE_GFP_DMA32, 50, bulk) == 50);
    for (int i = 0; i < 50; i++)
        CHECK(is_low(quire_page_address(bulk[i])) && quire_compound_nr(bulk[i]) == 1);
    quire_free_pages_bulk(50, bulk);
    quire_free_pages_exact(exact, 5 * page_bytes() - 3);
    quire_put_free_page(one);
    quire_put_free_pages(four, 2);
    struct quire_page *page = low(0, 3);
    CHECK(quire_split_page(page, 3) == 0 && quire_compound_nr(page) == 1);
    for (size_t i = 0; i < 8; i++)
        quire_put_page(quire_pfn_to_page(quire_page_to_pfn(page) + i));
}

static void refuse(quire_gfp_t gfp, unsigned order, int error)
{
    errno = 0;
    CHECK(quire_alloc_pages(gfp, order) == NULL && errno == error, "flags %#x, order %u: errno %d",
          gfp, order, errno);
}

static void case_wrong_arguments(void)
{
    refuse(QUIRE_GFP_DMA32 | QUIRE_GFP_DMA, 0, EINVAL);
    refuse(QUIRE_GFP_DMA32 | QUIRE_GFP_MOVABLE, 0, EINVAL);
    refuse(QUIRE_GFP_DMA | QUIRE_GFP_RECLAIMABLE, 0, EINVAL);
    refuse(QUIRE_GFP_DMA32 | QUIRE_GFP_THISNODE, 0, EINVAL);
    refuse(QUIRE_GFP_DMA32, QUIRE_MAX_ORDER + 1, EINVAL);
    refuse(QUIRE_GFP_DMA, ~0u, EINVAL);
    refuse(1u << 31 | QUIRE_GFP_DMA32, 0, EINVAL);
    errno = 0;
    CHECK(quire_alloc_pages_node(77, QUIRE_GFP_DMA32, 0) == NULL && errno == ENXIO);
    errno = 0;
    CHECK(quire_alloc_pages_exact(0, QUIRE_GFP_DMA32) == NULL && errno == EINVAL);
}

/* Memory that was freed is not resident, but for a little. */
static void case_memory_comes_back(void)
{
    struct quire_page *pages[16];
    size_t before = 0;

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 16; i++) {
            pages[i] = low(0, 8);
            memset(quire_page_address(pages[i]), 1, page_bytes() << 8);
        }
        CHECK(round == 0 || conform_resident() > before + 15 * (page_bytes() << 8) - (2 << 20));
        for (int i = 0; i < 16; i++)
            quire_free_pages(pages[i], 8);
        if (round == 0)
            before = conform_resident();
        else
            CHECK(conform_resident() < before + (2 << 20));
    }
    struct quire_page *page = low(0, 0);
    memset(quire_page_address(page), 1, page_bytes());
    quire_put_page(page);
    CHECK(quire_trim(0) >= page_bytes());
}

static void *churn(void *arg)
{
    uint64_t state = (uintptr_t)arg;
    struct quire_page *mine[32] = {NULL};

    for (int i = 0; i < 20000; i++) {
        unsigned at = (unsigned)(conform_random(&state) % 32), order = at % 4;

        if (mine[at] != NULL) {
            CHECK(*(uintptr_t *)quire_page_address(mine[at]) == ((uintptr_t)arg ^ at));
            quire_free_pages(mine[at], order);
            mine[at] = NULL;
        } else if ((mine[at] = quire_alloc_pages(QUIRE_GFP_DMA32, order)) != NULL) {
            *(uintptr_t *)quire_page_address(mine[at]) = (uintptr_t)arg ^ at;
        }
    }
    for (unsigned at = 0; at < 32; at++)
        if (mine[at] != NULL)
            quire_free_pages(mine[at], at % 4);
    return NULL;
}

static void case_threads(void)
{
    pthread_t thread[4];

    quire_put_page(low(0, 0));
    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&thread[i], NULL, churn, (void *)((i + 1) * 7919)) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
}

static void case_fork(void)
{
    struct quire_page *page = low(0, 1);
    char *p = quire_page_address(page);

    strcpy(p, "parent");
    int pid = fork();
    if (pid == 0) {
        bool ok = strcmp(p, "parent") == 0;
        strcpy(p, "child");
        quire_free_pages(page, 1);
        struct quire_page *own = quire_alloc_pages(QUIRE_GFP_DMA32 | QUIRE_GFP_ZERO, 4);
        ok = ok && own != NULL && all_zero(quire_page_address(own), page_bytes() << 4);
        _exit(ok ? 0 : 1);
    }
    CHECK(conform_child_ok(pid, "the child"));
    CHECK(strcmp(p, "parent") == 0 && quire_page_count(page) == 1);
    quire_free_pages(page, 1);
}

static struct quire_page *locked(unsigned order)
{
    struct quire_page *page = quire_alloc_pages(QUIRE_GFP_DMA, order);

    if (page == NULL && (errno == ENOMEM || errno == EPERM))
        conform_skip("the limit on locked memory is too low");
    REQUIRE(page != NULL, "errno %d", errno);
    return page;
}

/* The kernel counts it as locked for as long as it is held, page by page. */
static void case_locked(void)
{
    size_t kib = page_bytes() / 1024, before = status_kib("VmLck:");
    struct quire_page *a = locked(2), *b = locked(0);

    CHECK(status_kib("VmLck:") == before + 5 * kib, "%zu", status_kib("VmLck:"));
    memset(quire_page_address(a), 1, 4 * page_bytes());
    quire_free_pages(a, 2);
    CHECK(status_kib("VmLck:") == before + kib);
    a = quire_alloc_pages(QUIRE_GFP_DMA, 2);
    REQUIRE(a != NULL);
    CHECK(all_zero(quire_page_address(a), 4 * page_bytes()), "freed memory is gone");
    quire_free_pages(a, 2);
    quire_put_page(b);
    CHECK(status_kib("VmLck:") == before);
}

/* An ordinary user with a limit of eight pages. */
static void with_limit(void)
{
    struct rlimit limit = {8 * page_bytes(), 8 * page_bytes()}, none = {0, 0};
    struct quire_page *page[9];
    int n = 0;

    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0 || (geteuid() == 0 && setuid(65534) != 0))
        conform_skip("cannot become an ordinary user");
    while (n < 9 && (page[n] = quire_alloc_page(QUIRE_GFP_DMA)) != NULL)
        n++;
    CHECK(n == 8 && errno == ENOMEM, "%d pages, errno %d", n, errno);
    quire_put_page(page[--n]);
    page[n] = quire_alloc_page(QUIRE_GFP_DMA);
    REQUIRE(page[n] != NULL);
    for (int i = 0; i <= n; i++)
        quire_put_page(page[i]);
    REQUIRE(setrlimit(RLIMIT_MEMLOCK, &none) == 0);
    refuse(QUIRE_GFP_DMA, 0, EPERM);
    REQUIRE((page[0] = quire_alloc_page(0)) != NULL);
}

/* Going back leaves these zones as they are, and the sum under the limit right. */
static void case_going_back(void)
{
    struct quire_page *before = low(0, 2);
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);

    if (s == NULL)
        conform_skip("no snapshot to go back to here (errno %d)", errno);
    struct quire_page *since = low(0, 3);
    char *old = quire_page_address(before), *new = quire_page_address(since);
    conform_fill(new, page_bytes() << 3, 4);
    strcpy(old, "since");
    REQUIRE(quire_snapshot_restore(s) == 0, "errno %d", errno);
    CHECK(strcmp(old, "since") == 0 && conform_intact(new, page_bytes() << 3, 4));
    CHECK(quire_page_count(since) == 1);
    quire_free_pages(since, 3);
    quire_free_pages(before, 2);
    quire_snapshot_release(s);
}

static const struct conform_case cases[] = {
    {"addresses below 4 GiB", case_low, 0},
    {"by address, exact, in bulk, split", case_by_address, 0},
    {"wrong arguments", case_wrong_arguments, 0},
    {"memory comes back", case_memory_comes_back, 0},
    {"threads", case_threads, 0},
    {"fork copies", case_fork, 0},
    {"going back leaves them", case_going_back, 0},
    {"locked pages", case_locked, 0},
    {"a limit on locked memory", with_limit, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
