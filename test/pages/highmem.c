/*
 * highmem.c - pages without addresses, through the public interface: the windows that show them, in
 * threads and in handlers, too.
 *
 * Areas of several are in areas.c, the file that they lie in in highmem_file.c.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

#include "high.h"
#include "quire/quire.h"

static struct quire_page *secret(void)
{
    struct quire_page *page = quire_alloc_page(QUIRE_GFP_SECRET);

    if (page == NULL && (errno == EOPNOTSUPP || errno == ENOMEM))
        conform_skip("no memfd_secret here (errno %d)", errno);
    REQUIRE(page != NULL, "errno %d", errno);
    return page;
}

static void check_window(struct quire_page *page, char *p)
{
    REQUIRE(p != NULL, "errno %d", errno);
    strcpy(p, "seen");
    CHECK(faults(p - 1) && faults(p + page_bytes()));
    CHECK(quire_page_count(page) == 2, "%u", quire_page_count(page));
}

static void case_kmap(void)
{
    struct quire_page *page = high(3), *tail;

    CHECK(quire_page_address(page) == NULL && quire_compound_nr(page) == 8);
    CHECK(quire_pfn_to_virt(quire_page_to_pfn(page)) == NULL);
    char *p = quire_kmap(page);
    check_window(page, p);
    CHECK(quire_page_address(page) == p && quire_virt_to_page(p + 5) == page);
    CHECK(quire_kmap(page) == p && quire_page_count(page) == 3);
    quire_kunmap(page);
    CHECK(quire_page_address(page) == p && strcmp(p, "seen") == 0);
    tail = quire_pfn_to_page(quire_page_to_pfn(page) + 5);
    CHECK(quire_compound_head(tail) == page && quire_page_address(tail) == NULL);
    char *q = quire_kmap(tail);
    REQUIRE(q != NULL && q != p);
    CHECK(*q == 0);
    /* The owner lets go first: the windows keep it. */
    quire_free_pages(page, 3);
    CHECK(strcmp(p, "seen") == 0 && quire_page_count(page) == 2);
    quire_kunmap(tail);
    quire_kunmap(page);
    CHECK(quire_page_count(page) == 0 && quire_page_address(page) == NULL && faults(p));
}

static void case_local(void)
{
    struct quire_page *page[QUIRE_NR_KMAP_LOCAL + 1];
    char *at[QUIRE_NR_KMAP_LOCAL];

    for (int i = 0; i <= QUIRE_NR_KMAP_LOCAL; i++)
        page[i] = high(0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < QUIRE_NR_KMAP_LOCAL; i++) {
            at[i] = quire_kmap_local(page[(i + round) % QUIRE_NR_KMAP_LOCAL]);
            REQUIRE(at[i] != NULL);
            CHECK(round == 0 || at[i][0] == (i + round) % QUIRE_NR_KMAP_LOCAL);
            at[i][0] = (char)((i + round) % QUIRE_NR_KMAP_LOCAL);
        }
        errno = 0;
        CHECK(quire_kmap_local(page[QUIRE_NR_KMAP_LOCAL]) == NULL && errno == EBUSY);
        for (int i = QUIRE_NR_KMAP_LOCAL - 1; i >= 0; i--)
            quire_kunmap_local(at[i] + i);
    }
    char *p = quire_kmap_local(page[3]);
    check_window(page[3], p);
    quire_kunmap_local(p);
    for (int i = 0; i <= QUIRE_NR_KMAP_LOCAL; i++) {
        CHECK(quire_page_count(page[i]) == 1);
        quire_put_page(page[i]);
    }
}

static void case_fixmap(void)
{
    struct quire_page *a = high(0), *b = high(0);
    char *p = quire_fix_to_virt(4);

    REQUIRE(p != NULL);
    CHECK(faults(p) && quire_set_fixmap(4, a) == p);
    check_window(a, p);
    CHECK(quire_set_fixmap(4, b) == p && *p == 0);
    CHECK(quire_page_count(a) == 1 && quire_page_count(b) == 2);
    CHECK(quire_set_fixmap(4, NULL) == p && faults(p) && quire_page_count(b) == 1);
    CHECK(quire_fix_to_virt(4) == p && quire_fix_to_virt(5) != p);
    errno = 0;
    CHECK(quire_fix_to_virt(QUIRE_NR_FIXMAP) == NULL && errno == EINVAL);
    struct quire_page *low = quire_alloc_page(0);
    errno = 0;
    CHECK(quire_set_fixmap(4, low) == NULL && errno == EINVAL && quire_page_count(low) == 1);
    quire_put_page(low);
    quire_put_page(a);
    quire_put_page(b);
}

static void case_ordinary_pages(void)
{
    struct quire_page *page = quire_alloc_pages(0, 1);
    char *p = quire_page_address(page);

    CHECK(quire_kmap(page) == p && quire_kmap_local(page) == p && quire_page_count(page) == 1);
    quire_kunmap_local(p);
    quire_kunmap(page);
    errno = 0;
    CHECK(quire_vmap(&page, 1) == NULL && errno == EINVAL && quire_page_count(page) == 1);
    int fd;
    off_t offset;
    errno = 0;
    CHECK(quire_page_file(page, &fd, &offset) == -1 && errno == EINVAL);
    quire_free_pages(page, 1);
    errno = 0;
    CHECK(quire_get_free_page(QUIRE_GFP_HIGHMEM) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_alloc_pages_exact(1, QUIRE_GFP_SECRET) == NULL && errno == EINVAL);
}

static void case_secret(void)
{
    struct quire_page *page = secret();
    char *p = quire_kmap_local(page);
    int pair[2];

    REQUIRE(p != NULL, "errno %d", errno);
    CHECK(*p == 0 && quire_page_address(page) == NULL);
    strcpy(p, "secret");
    /* A program may use it, but the kernel does not read it on anybody's behalf by physical page. */
    REQUIRE(pipe(pair) == 0);
    struct iovec part = {p, 7};
    CHECK(vmsplice(pair[1], &part, 1, 0) == -1, "the kernel took a reference");
    quire_kunmap_local(p);
    CHECK(faults(p));
    p = quire_kmap(page);
    REQUIRE(p != NULL);
    CHECK(strcmp(p, "secret") == 0);
    quire_kunmap(page);
    quire_put_page(page);
    for (int i = 0; i < 20; i++) {
        page = secret();
        p = quire_kmap(page);
        REQUIRE(p != NULL);
        CHECK(*p == 0, "found '%s'", p);
        quire_kunmap(page);
        quire_put_page(page);
    }
}

static struct quire_page *shared[600];

static void *map_some(void *arg)
{
    uint64_t state = (uintptr_t)arg;

    for (int i = 0; i < 3000; i++) {
        unsigned at = (unsigned)(conform_random(&state) % 600);
        unsigned *p = i % 3 == 0 ? quire_kmap(shared[at]) : quire_kmap_local(shared[at]);

        REQUIRE(p != NULL, "errno %d", errno);
        CHECK(p[0] == at && p[1] == ~at);
        if (i % 3 == 0)
            quire_kunmap(shared[at]);
        else
            quire_kunmap_local(p);
    }
    /* What is left mapped at the end is unmapped when the windows serve another thread. */
    CHECK(quire_kmap_local(shared[0]) != NULL);
    return NULL;
}

static void case_threads(void)
{
    pthread_t thread[4];

    for (unsigned i = 0; i < 600; i++) {
        unsigned *p;
        shared[i] = high(0);
        REQUIRE((p = quire_kmap_local(shared[i])) != NULL);
        p[0] = i;
        p[1] = ~i;
        quire_kunmap_local(p);
    }
    for (int round = 0; round < 3; round++) {
        for (uintptr_t i = 0; i < 4; i++)
            REQUIRE(pthread_create(&thread[i], NULL, map_some, (void *)(i + 1)) == 0);
        for (int i = 0; i < 4; i++)
            pthread_join(thread[i], NULL);
    }
    /* Windows go with the heap of a thread, and heaps to the next thread of the same node. */
    unsigned left = conform_has_option("numa_fake") ? 12 : 4;
    CHECK(quire_page_count(shared[0]) <= 1 + left, "%u", quire_page_count(shared[0]));
    for (int i = 1; i < 600; i++) {
        CHECK(quire_page_count(shared[i]) == 1);
        quire_put_page(shared[i]);
    }
}

/* What handlers look up, and what they do with windows of their own. */
static struct quire_page *looked_up, *of_handler;
static char *looked_up_at;
static _Atomic int handled, wrong;

static void look_up(int number)
{
    int saved = errno;

    wrong += quire_page_address(looked_up) != looked_up_at;
    wrong += quire_virt_to_page(looked_up_at) != looked_up;
    int *p = quire_kmap_local(of_handler);
    if (p != NULL) {
        *p = -1;
        quire_kunmap_local(p);
    } else {
        wrong += errno != EAGAIN;
    }
    handled++;
    errno = saved;
}

static void case_signals(void)
{
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = look_up};
    struct quire_page *page[2] = {high(0), high(0)};
    int *seen[2], local;

    looked_up = high(0);
    of_handler = high(0);
    REQUIRE((looked_up_at = quire_kmap(looked_up)) != NULL);
    for (int i = 0; i < 2; i++)
        REQUIRE((seen[i] = quire_kmap(page[i])) != NULL);
    REQUIRE(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; handled < 3000; i++) {
        struct quire_page *large = i % 64 == 0 ? high(QUIRE_MAX_ORDER) : high(0);
        REQUIRE(quire_kmap(large) != NULL);
        CHECK(quire_virt_to_page(&local) == NULL && quire_page_address(looked_up) == looked_up_at);
        quire_kunmap(large);
        quire_put_page(large);
        int *p = quire_kmap_local(page[i % 2]);
        REQUIRE(p != NULL);
        *p = i;
        REQUIRE(*seen[i % 2] == i, "another page was written to");
        quire_kunmap_local(p);
        REQUIRE(quire_page_count(page[0]) == 2 && quire_page_count(page[1]) == 2);
    }
    REQUIRE(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(wrong == 0, "%d", wrong);
    CHECK(quire_page_count(of_handler) == 1);
}

static const struct conform_case cases[] = {
    {"kmap", case_kmap, 0},        {"kmap_local", case_local, 0},
    {"fixmap", case_fixmap, 0},    {"ordinary pages", case_ordinary_pages, 0},
    {"secrets", case_secret, 0},   {"threads", case_threads, 0},
    {"signals", case_signals, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
