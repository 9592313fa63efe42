/* pages.c - the page interface against a model: what it gives, counts, splits and takes back. */
#include "quire/page.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/quire.h"

#define BLOCKS 200
#define STEPS 20000

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* One block as the test believes it to be. */
struct block {
    struct quire_page *page;
    size_t nr;
    unsigned refs, seed;
    bool by_order;
};

static struct block blocks[BLOCKS];
static uint64_t state = 7;

static unsigned below(unsigned n)
{
    return (unsigned)(conform_random(&state) % n);
}

static void check_block(const struct block *b)
{
    size_t align = page_bytes();
    char *addr = quire_page_address(b->page);

    REQUIRE(addr != NULL);
    while (align < b->nr * page_bytes())
        align *= 2;
    CHECK((uintptr_t)addr % align == 0, "%zu pages at %p", b->nr, (void *)addr);
    CHECK(quire_compound_nr(b->page) == b->nr);
    CHECK(quire_page_count(b->page) == b->refs);
    size_t i = below((unsigned)b->nr);
    struct quire_page *tail = quire_virt_to_page(addr + i * page_bytes() + 5);
    REQUIRE(tail != NULL);
    CHECK(quire_compound_head(tail) == b->page && quire_page_count(tail) == b->refs);
    CHECK(quire_page_to_pfn(tail) == quire_page_to_pfn(b->page) + i);
    CHECK(quire_pfn_to_page(quire_page_to_pfn(tail)) == tail);
    CHECK(conform_intact(addr, b->nr * page_bytes(), b->seed), "%zu pages at %p", b->nr,
          (void *)addr);
}

static void take(struct block *b, struct quire_page *page, size_t nr)
{
    static unsigned seed;

    REQUIRE(page != NULL, "errno %d", errno);
    *b = (struct block){.page = page, .nr = nr, .refs = 1, .seed = ++seed};
    conform_fill(quire_page_address(page), nr * page_bytes(), b->seed);
}

static bool all_zero(const char *p, size_t n)
{
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

static void alloc_some(struct block *b)
{
    static const quire_gfp_t kinds[] = {QUIRE_GFP_KERNEL, QUIRE_GFP_ZERO, QUIRE_GFP_MOVABLE,
                                        QUIRE_GFP_RECLAIMABLE | QUIRE_GFP_ZERO};
    quire_gfp_t gfp = kinds[below(4)];
    unsigned order = below(100) == 0 ? QUIRE_MAX_ORDER : below(6);
    struct quire_page *page;

    if (below(3) == 0) {
        size_t nr = 1 + below(70);
        char *p = quire_alloc_pages_exact(nr * page_bytes() - below(9), gfp);
        REQUIRE(p != NULL);
        CHECK((gfp & QUIRE_GFP_ZERO) == 0 || all_zero(p, nr * page_bytes()));
        take(b, quire_virt_to_page(p), nr);
        return;
    }
    page = below(2) ? quire_alloc_pages(gfp, order) : quire_alloc_pages_node(0, gfp, order);
    REQUIRE(page != NULL);
    CHECK((gfp & QUIRE_GFP_ZERO) == 0 || all_zero(quire_page_address(page), page_bytes() << order));
    take(b, page, (size_t)1 << order);
    b->by_order = true;
}

/* Drop one reference by one of the ways there are. */
static void drop(struct block *b)
{
    char *addr = quire_page_address(b->page);
    unsigned order = quire_get_order(b->nr * page_bytes());

    switch (below(b->by_order ? 3 : 2)) {
    case 0:
        quire_put_page(quire_virt_to_page(addr + below((unsigned)b->nr) * page_bytes()));
        break;
    case 1:
        if (b->by_order)
            quire_put_free_pages(addr, order);
        else
            quire_free_pages_exact(addr, b->nr * page_bytes());
        break;
    default:
        quire_free_pages(b->page, order);
        break;
    }
    if (--b->refs == 0) {
        CHECK(quire_page_count(b->page) == 0);
        b->page = NULL;
    }
}

/* A block of an order into single pages: the first stays in the model, the rest is put. */
static void split(struct block *b)
{
    size_t nr = b->nr;
    char *addr = quire_page_address(b->page);
    unsigned order = quire_get_order(nr * page_bytes());

    if (b->refs > 1) {
        errno = 0;
        CHECK(quire_split_page(b->page, order) == -1 && errno == EBUSY);
        return;
    }
    CHECK(quire_split_page(b->page, order) == 0);
    for (size_t i = nr; i-- > 0;) {
        struct quire_page *page = quire_virt_to_page(addr + i * page_bytes());
        CHECK(quire_compound_nr(page) == 1 && quire_page_count(page) == 1 &&
              quire_compound_head(page) == page);
        if (i > 0)
            quire_free_page(page);
    }
    take(b, b->page, 1);
    b->by_order = true;
}

static void case_model(void)
{
    for (size_t step = 0; step < STEPS; step++) {
        struct block *b = &blocks[below(BLOCKS)];

        if (b->page == NULL) {
            alloc_some(b);
            continue;
        }
        check_block(b);
        unsigned what = below(10);
        if (what < 2) {
            quire_get_page(b->page);
            b->refs++;
        } else if (what == 2 && b->by_order) {
            split(b);
        } else {
            drop(b);
        }
        if (what == 9) /* malloc's own pages come and go between them */
            free(malloc(below(1u << 20)));
    }
    for (size_t i = 0; i < BLOCKS; i++)
        while (blocks[i].page != NULL)
            drop(&blocks[i]);
}

/* Blocks that are held never overlap each other. */
static void case_disjoint(void)
{
    static char *at[1000];
    size_t n = 0;

    for (; n < 1000; n++) {
        at[n] = quire_get_free_page(QUIRE_GFP_KERNEL);
        REQUIRE(at[n] != NULL);
        memset(at[n], (int)(n & 0x7f) + 1, page_bytes());
    }
    for (size_t i = 0; i < n; i++) {
        CHECK(at[i][0] == (char)((i & 0x7f) + 1) && at[i][page_bytes() - 1] == at[i][0]);
        quire_put_free_page(at[i]);
    }
    char *zero = quire_get_zeroed_page(QUIRE_GFP_KERNEL);
    CHECK(zero != NULL && all_zero(zero, page_bytes()));
    quire_put_free_page(zero);
}

static void case_bulk(void)
{
    enum { NR = 3000 };
    static struct quire_page *pages[NR];
    struct quire_page *mine = quire_alloc_page(0);

    pages[5] = mine;
    REQUIRE(quire_alloc_pages_bulk(QUIRE_GFP_ZERO, NR, pages) == NR);
    CHECK(pages[5] == mine);
    for (size_t i = 0; i < NR; i++) {
        REQUIRE(pages[i] != NULL && quire_page_count(pages[i]) == 1);
        CHECK(i == 5 || all_zero(quire_page_address(pages[i]), page_bytes()));
        memset(quire_page_address(pages[i]), 1 + (int)(i % 100), page_bytes());
    }
    for (size_t i = 0; i < NR; i++)
        CHECK(*(char *)quire_page_address(pages[i]) == (char)(1 + i % 100), "entry %zu", i);
    CHECK(quire_alloc_pages_bulk(0, NR, pages) == NR);
    quire_get_page(pages[7]);
    struct quire_page *kept = pages[7];
    quire_free_pages_bulk(NR, pages);
    for (size_t i = 0; i < NR; i++)
        CHECK(pages[i] == NULL);
    CHECK(quire_page_count(kept) == 1 && quire_page_count(mine) == 0);
    quire_put_page(kept);
}

/* What is given back serves malloc, and the other way round. */
static void case_memory_comes_back(void)
{
    for (int round = 0; round < 3000; round++) {
        struct quire_page *page = quire_alloc_pages(0, QUIRE_MAX_ORDER);
        REQUIRE(page != NULL);
        memset(quire_page_address(page), 1, page_bytes());
        quire_put_page(page);
        void *p = malloc((page_bytes() << QUIRE_MAX_ORDER) / 2);
        REQUIRE(p != NULL);
        *(volatile char *)p = 1;
        free(p);
    }
    CHECK(conform_resident() < (size_t)128 << 20, "%zu resident", conform_resident());
}

static struct quire_page *shared;

static void *get_and_put(void *arg)
{
    for (int i = 0; i < 100000; i++) {
        quire_get_page(shared);
        quire_put_page(shared);
    }
    quire_put_page(shared);
    return arg;
}

static void case_threads_share(void)
{
    pthread_t thread[4];

    for (int round = 0; round < 5; round++) {
        shared = quire_alloc_pages(0, 3);
        REQUIRE(shared != NULL);
        for (int i = 0; i < 4; i++) {
            quire_get_page(shared);
            REQUIRE(pthread_create(&thread[i], NULL, get_and_put, NULL) == 0);
        }
        quire_put_page(shared);
        for (int i = 0; i < 4; i++)
            pthread_join(thread[i], NULL);
        CHECK(quire_page_count(shared) == 0);
    }
}

static void *churn(void *arg)
{
    struct quire_page *mine[32] = {NULL};
    uint64_t seed = (uintptr_t)arg;

    for (int i = 0; i < 20000; i++) {
        unsigned at = (unsigned)(conform_random(&seed) % 32), order = at % 5;

        if (mine[at] != NULL) {
            uintptr_t *word = quire_page_address(mine[at]);
            CHECK(word[0] == (uintptr_t)arg * 64 + at, "somebody else wrote here");
            quire_free_pages(mine[at], order);
            mine[at] = NULL;
        } else {
            REQUIRE((mine[at] = quire_alloc_pages(0, order)) != NULL);
            *(uintptr_t *)quire_page_address(mine[at]) = (uintptr_t)arg * 64 + at;
        }
    }
    for (unsigned at = 0; at < 32; at++)
        quire_free_pages(mine[at], at % 5);
    return NULL;
}

static void case_threads_churn(void)
{
    pthread_t thread[4];

    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&thread[i], NULL, churn, (void *)(i + 1)) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
}

static void case_wrong_arguments(void)
{
    struct quire_page *pages[2] = {NULL, NULL};
    size_t most = page_bytes() << QUIRE_MAX_ORDER;

#define FAILS(call, error)                                                                         \
    do {                                                                                           \
        errno = 0;                                                                                 \
        CHECK(!(call));                                                                            \
        CHECK(errno == (error), "errno %d", errno);                                                \
    } while (0)
    FAILS(quire_alloc_pages(0, QUIRE_MAX_ORDER + 1), EINVAL);
    FAILS(quire_alloc_pages(0, 64), EINVAL);
    FAILS(quire_alloc_pages(0, ~0u), EINVAL);
    FAILS(quire_alloc_pages(1u << 24, 0), EINVAL);
    FAILS(quire_alloc_page(1u << 31), EINVAL);
    FAILS(quire_get_free_pages(0, 11), EINVAL);
    FAILS(quire_get_zeroed_page(1u << 20), EINVAL);
    FAILS(quire_alloc_pages_exact(0, 0), EINVAL);
    FAILS(quire_alloc_pages_exact(most + 1, 0), EINVAL);
    FAILS(quire_alloc_pages_exact(SIZE_MAX, 0), EINVAL);
    FAILS(quire_alloc_pages_node(4711, 0, 0), ENXIO);
    FAILS(quire_alloc_pages_node(-2, 0, 0), ENXIO);
    FAILS(quire_alloc_pages_bulk(1u << 25, 2, pages), EINVAL);
    CHECK(pages[0] == NULL && pages[1] == NULL);
    CHECK(quire_alloc_pages_bulk(0, 0, NULL) == 0);
    errno = 77;
    quire_put_free_page(NULL);
    quire_put_free_pages(NULL, 3);
    quire_free_page(NULL);
    quire_free_pages(NULL, 3);
    quire_free_pages_exact(NULL, 1);
    quire_free_pages_bulk(2, pages);
    struct quire_page *page = quire_alloc_page(0);
    quire_put_page(page);
    CHECK(errno == 77);
}

static void case_lookups_of_anything(void)
{
    static const char constant[] = "constant";
    int local = 0;
    const void *strange[] = {NULL, &local, constant, (void *)1, (void *)-1, (void *)-4096};

    free(malloc(100));
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        CHECK(quire_virt_to_page(strange[i]) == NULL);
        CHECK(quire_virt_to_pfn(strange[i]) == QUIRE_BAD_PFN);
        CHECK(quire_page_count(strange[i]) == 0);
        CHECK(quire_compound_nr(strange[i]) == 0);
    }
    for (unsigned bit = 0; bit < 64; bit++)
        if (!quire_pfn_valid((size_t)1 << bit)) {
            CHECK(quire_pfn_to_page((size_t)1 << bit) == NULL);
            CHECK(quire_pfn_to_virt((size_t)1 << bit) == NULL);
        }
    CHECK(!quire_pfn_valid(QUIRE_BAD_PFN) && quire_pfn_to_page(QUIRE_BAD_PFN) == NULL);
    char *object = malloc(100);
    struct quire_page *page = quire_virt_to_page(object);
    CHECK(page != NULL && quire_page_count(page) == 0 && quire_compound_head(page) == NULL);
    free(object);
    CHECK(quire_get_order(0) == 0 && quire_get_order(1) == 0);
    CHECK(quire_get_order(page_bytes()) == 0 && quire_get_order(page_bytes() + 1) == 1);
    CHECK(quire_get_order(page_bytes() << 10) == 10 && quire_get_order(SIZE_MAX) > 10);
}

static void case_malloc_does_not_own_them(void)
{
    char *p = quire_get_free_pages(0, 2);

    REQUIRE(p != NULL);
    CHECK(!quire_owns(p));
    quire_put_free_pages(p, 2);
}

static void case_fork(void)
{
    struct quire_page *page = quire_alloc_pages(QUIRE_GFP_ZERO, 1);
    char *p = quire_page_address(page);

    strcpy(p, "parent");
    int pid = fork();
    if (pid == 0) {
        bool ok = quire_page_count(page) == 1 && strcmp(p, "parent") == 0;
        strcpy(p, "child");
        quire_put_page(page);
        _exit(ok && quire_page_count(page) == 0 && quire_alloc_page(0) != NULL ? 0 : 1);
    }
    CHECK(conform_child_ok(pid, "the child"));
    CHECK(quire_page_count(page) == 1 && strcmp(p, "parent") == 0);
    quire_put_page(page);
}

static struct quire_page *waiting[4096];
static volatile sig_atomic_t next_waiting, refused, odd;

/* Put one that is there, and ask for another, wherever the program just was. */
static void on_alarm(int sig)
{
    int saved = errno;

    if (next_waiting < 4096)
        quire_put_page(waiting[next_waiting++]);
    struct quire_page *page = quire_alloc_page(QUIRE_GFP_ZERO);
    if (page == NULL && errno == EAGAIN)
        refused++;
    else if (page == NULL || quire_page_count(page) != 1)
        odd++;
    quire_free_page(page);
    errno = saved;
    (void)sig;
}

static void case_signals(void)
{
    struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};

    REQUIRE(quire_alloc_pages_bulk(0, 4096, waiting) == 4096);
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; next_waiting < 2000 && i < 3000000; i++) {
        free(malloc(70000));
        quire_free_pages(quire_alloc_pages(0, 2), 2);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    free(malloc(70000)); /* what had to wait is freed now */
    CHECK(odd == 0 && next_waiting > 100, "%d of %d", (int)odd, (int)next_waiting);
    CHECK(refused > 0, "no signal came inside the allocator");
    for (int i = 0; i < next_waiting; i++)
        CHECK(quire_page_count(waiting[i]) == 0, "page %d", i);
    quire_free_pages_bulk(4096 - (size_t)next_waiting, waiting + next_waiting);
}

/* Under a limit (QUIRE_CONF=limit:...): ENOMEM at the end of it, and all is well afterwards. */
static void case_limit(void)
{
    static struct quire_page *pages[1 << 16];
    const char *conf = getenv("QUIRE_CONF");
    size_t n = 0;

    if (conf == NULL || strstr(conf, "limit:") == NULL)
        conform_skip("no limit is set");
    errno = 0;
    while (n < 1 << 16 && (pages[n] = quire_alloc_pages(0, 4)) != NULL)
        n++;
    CHECK(n > 100 && n < 1 << 16 && errno == ENOMEM, "%zu blocks, errno %d", n, errno);
    struct quire_page *more[3000] = {NULL};
    errno = 0;
    CHECK(quire_alloc_pages_bulk(0, 3000, more) < 3000 && errno == ENOMEM);
    quire_free_pages_bulk(3000, more);
    quire_free_pages_bulk(n, pages);
    REQUIRE((pages[0] = quire_alloc_pages(0, QUIRE_MAX_ORDER)) != NULL);
    quire_put_page(pages[0]);
}

/* Under numa_fake:3 every node serves, by its number. */
static void case_nodes(void)
{
    const char *conf = getenv("QUIRE_CONF");
    int nr = conf != NULL && strstr(conf, "numa_fake:3") != NULL ? 3 : 1;

    for (int node = 0; node < nr; node++) {
        struct quire_page *page = quire_alloc_pages_node(node, QUIRE_GFP_THISNODE, 2);
        REQUIRE(page != NULL);
        CHECK(quire_page_to_nid(page) == node, "%d, not %d", quire_page_to_nid(page), node);
        quire_put_page(page);
    }
    errno = 0;
    if (nr == 3)
        CHECK(quire_alloc_pages_node(3, 0, 0) == NULL && errno == ENXIO);
}

static const struct conform_case cases[] = {
    {"random calls against a model", case_model, 0},
    {"blocks do not overlap", case_disjoint, 0},
    {"bulk allocation", case_bulk, 0},
    {"memory comes back", case_memory_comes_back, 0},
    {"threads share a count", case_threads_share, 0},
    {"threads allocate at once", case_threads_churn, 0},
    {"wrong arguments", case_wrong_arguments, 0},
    {"look-ups of anything", case_lookups_of_anything, 0},
    {"malloc does not own pages", case_malloc_does_not_own_them, 0},
    {"fork copies", case_fork, 0},
    {"signal handlers put and ask", case_signals, 0},
    {"a limit ends in ENOMEM", case_limit, 0},
    {"nodes by number", case_nodes, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
