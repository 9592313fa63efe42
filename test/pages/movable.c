/* movable.c - movable and discardable memory through the public interface. */
#include "quire/movable.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
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

static quire_movable_t *make(size_t bytes, unsigned flags, unsigned seed)
{
    quire_movable_t *h = quire_movable_alloc(bytes, flags);
    char *p;

    REQUIRE(h != NULL, "errno %d", errno);
    REQUIRE((p = quire_movable_pin(h, NULL)) != NULL);
    conform_fill(p, bytes, seed);
    quire_movable_unpin(h);
    return h;
}

static void case_basics(void)
{
    size_t sizes[] = {1, page_bytes(), 3 * page_bytes() + 5, page_bytes() << QUIRE_MAX_ORDER};

    for (unsigned i = 0; i < 4; i++) {
        quire_movable_t *h = make(sizes[i], i % 2 ? QUIRE_MOVABLE_ZERO : 0, i);
        size_t whole = (sizes[i] + page_bytes() - 1) / page_bytes() * page_bytes();
        int lost = 7;

        CHECK(quire_movable_size(h) == whole);
        char *p = quire_movable_pin(h, &lost);
        REQUIRE(p != NULL);
        CHECK(lost == 0 && conform_intact(p, sizes[i], i) && (uintptr_t)p % page_bytes() == 0);
        CHECK(quire_movable_pin(h, NULL) == p);
        CHECK(quire_page_count(quire_virt_to_page(p)) == 0, "not a page of the page interface");
        quire_compact();
        CHECK(conform_intact(p, sizes[i], i), "a pinned run moved");
        quire_movable_unpin(h);
        quire_movable_unpin(h);
        quire_movable_free(h);
    }
    quire_movable_free(NULL);
    errno = 0;
    CHECK(quire_movable_alloc(0, 0) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_movable_alloc((page_bytes() << QUIRE_MAX_ORDER) + 1, 0) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_movable_alloc(1, 64) == NULL && errno == EINVAL);
}

/* Holes all over; after compaction every content is there, and whole pageblocks are free. */
static void case_compact(void)
{
    enum { NR = 6000 };
    static quire_movable_t *h[NR];
    static char *at[NR];
    size_t moved = 0;

    for (unsigned i = 0; i < NR; i++) {
        h[i] = make(page_bytes(), 0, i);
        at[i] = quire_movable_pin(h[i], NULL);
        quire_movable_unpin(h[i]);
    }
    for (unsigned i = 0; i < NR; i++)
        if (i % 8 != 0)
            quire_movable_free(h[i]);
    size_t freed = quire_compact();
    CHECK(freed >= 2 << 20 || page_bytes() > 4096, "%zu bytes", freed);
    for (unsigned i = 0; i < NR; i += 8) {
        int lost;
        char *p = quire_movable_pin(h[i], &lost);
        CHECK(!lost && conform_intact(p, page_bytes(), i));
        moved += p != at[i];
        quire_movable_unpin(h[i]);
        quire_movable_free(h[i]);
    }
    CHECK(moved > 0);
}

/* Under limit:64M: what is discardable goes before malloc fails, and the next pin says so. */
static void case_discarded(void)
{
    enum { NR = 200 };
    static quire_movable_t *h[NR];
    const char *conf = getenv("QUIRE_CONF");
    unsigned lost_some = 0;

    if (conf == NULL || strstr(conf, "limit:64M") == NULL)
        conform_skip("no limit is set");
    for (unsigned i = 0; i < NR; i++)
        h[i] = make(64 * 1024, i < 20 ? 0 : QUIRE_MOVABLE_DISCARDABLE, i);
    char *pinned = quire_movable_pin(h[30], NULL);
    char *large = malloc(54 << 20);
    CHECK(large != NULL, "what may be dropped stood in the way");
    CHECK(conform_intact(pinned, 64 * 1024, 30));
    quire_movable_unpin(h[30]);
    free(large);
    quire_trim(0);
    for (unsigned i = 0; i < NR; i++) {
        int lost;
        char *p = quire_movable_pin(h[i], &lost);
        REQUIRE(p != NULL, "errno %d", errno);
        if (lost)
            CHECK(i >= 20 && p[0] == 0 && memcmp(p, p + 1, 64 * 1024 - 1) == 0);
        else
            CHECK(conform_intact(p, 64 * 1024, i));
        lost_some += (unsigned)lost;
        quire_movable_unpin(h[i]);
        CHECK(quire_movable_pin(h[i], &lost) == p && !lost, "it is said once");
        quire_movable_unpin(h[i]);
        quire_movable_free(h[i]);
    }
    CHECK(lost_some > 0 && lost_some < NR - 20);
}

static void case_strict(void)
{
    quire_movable_t *h = make(page_bytes(), QUIRE_MOVABLE_STRICT, 3);
    char *p = quire_movable_pin(h, NULL);
    int status;

    quire_movable_unpin(h);
    int pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit(*(volatile char *)p & 0);
    }
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status %#x", status);
    p = quire_movable_pin(h, NULL);
    CHECK(conform_intact(p, page_bytes(), 3));
    quire_movable_unpin(h);
    quire_movable_free(h);
    void *again = malloc(200000);
    REQUIRE(again != NULL);
    memset(again, 1, 200000);
    free(again);
}

static void case_fork(void)
{
    quire_movable_t *h = make(page_bytes(), 0, 5);
    int pid = fork();

    if (pid == 0) {
        char *p = quire_movable_pin(h, NULL);
        bool ok = conform_intact(p, page_bytes(), 5);
        memset(p, 0, page_bytes());
        quire_movable_unpin(h);
        quire_compact();
        quire_movable_free(h);
        _exit(ok ? 0 : 1);
    }
    CHECK(conform_child_ok(pid, "the child"));
    char *p = quire_movable_pin(h, NULL);
    CHECK(conform_intact(p, page_bytes(), 5));
    quire_movable_unpin(h);
    quire_movable_free(h);
}

/* Handles are outside of what a snapshot puts back: refused where that would matter. */
static void case_going_back(void)
{
    quire_movable_t *before = make(page_bytes(), 0, 1);
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);

    if (s == NULL)
        conform_skip("no snapshot to go back to here (errno %d)", errno);
    char *p = quire_movable_pin(before, NULL);
    memset(p, 9, page_bytes());
    quire_movable_unpin(before);
    CHECK(quire_snapshot_restore(s) == 0, "errno %d", errno);
    p = quire_movable_pin(before, NULL);
    CHECK(conform_intact(p, page_bytes(), 1));
    quire_movable_unpin(before);
    quire_movable_t *since = make(page_bytes(), 0, 2);
    errno = 0;
    CHECK(quire_snapshot_restore(s) == -1 && errno == EBUSY);
    p = quire_movable_pin(since, NULL);
    CHECK(conform_intact(p, page_bytes(), 2));
    quire_movable_unpin(since);
    quire_snapshot_release(s);
    quire_movable_free(since);
    quire_movable_free(before);
}

static quire_movable_t *shared[64];
static _Atomic int done;

static void *use(void *arg)
{
    uint64_t state = (uintptr_t)arg;

    for (int i = 0; i < 20000; i++) {
        unsigned at = (unsigned)(conform_random(&state) % 64);
        int lost;
        unsigned *p = quire_movable_pin(shared[at], &lost);

        REQUIRE(p != NULL);
        CHECK(p[at] == at && p[at + 64] == ~at && !lost);
        quire_movable_unpin(shared[at]);
    }
    done++;
    return NULL;
}

static void case_threads(void)
{
    pthread_t thread[3];
    quire_movable_t *holes[400];

    for (unsigned i = 0; i < 400; i++)
        holes[i] = make(2 * page_bytes(), 0, i);
    for (unsigned i = 0; i < 64; i++) {
        shared[i] = quire_movable_alloc(page_bytes(), 0);
        unsigned *p = quire_movable_pin(shared[i], NULL);
        REQUIRE(p != NULL);
        p[i] = i;
        p[i + 64] = ~i;
        quire_movable_unpin(shared[i]);
    }
    for (uintptr_t i = 0; i < 3; i++)
        REQUIRE(pthread_create(&thread[i], NULL, use, (void *)(i + 1)) == 0);
    for (unsigned i = 0; done < 3; i = (i + 1) % 400) {
        quire_movable_free(holes[i]);
        quire_compact();
        holes[i] = make(2 * page_bytes(), 0, i);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
}

static const struct conform_case cases[] = {
    {"alloc, pin, unpin, free", case_basics, 0},
    {"compaction", case_compact, 0},
    {"discarded at the limit", case_discarded, 0},
    {"strict", case_strict, 0},
    {"fork", case_fork, 0},
    {"going back", case_going_back, 0},
    {"threads while others compact", case_threads, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
