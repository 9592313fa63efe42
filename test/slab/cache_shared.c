/*
 * cache_shared.c - object caches that are not one thread's alone: threads that end, or live longer
 * than a cache; a child of fork; and going back to a snapshot.
 */
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

static struct quire_cache *shared;

static void *allocate_some(void *arg)
{
    void **p = arg;

    REQUIRE(quire_cache_alloc_bulk(shared, 1000, p) == 1);
    return NULL;
}

static void *free_some(void *arg)
{
    quire_cache_free_bulk(shared, 1000, arg);
    return NULL;
}

static void in_thread(void *(*body)(void *), void *arg)
{
    pthread_t t;

    REQUIRE(pthread_create(&t, NULL, body, arg) == 0);
    pthread_join(t, NULL);
}

/* What a thread held back is there for others when it has ended, and does not count as live. */
static void case_threads_end(void)
{
    void *p[1000];
    struct quire_cache_stat st;

    shared = make(100, 0, 0);
    for (int i = 0; i < 100; i++) {
        in_thread(allocate_some, p);
        CHECK(live_of(shared) == 1000);
        in_thread(free_some, p);
        quire_cache_stat(shared, &st);
        REQUIRE(st.live == 0 && st.cached == 0 && st.slabs < 10, "%zu live, %zu cached, %zu slabs",
                st.live, st.cached, st.slabs);
    }
    end(shared);
}

/* A cache goes while another thread that used it lives on, and the next gets its number. */
static pthread_barrier_t barrier;

static void *use_in_turn(void *arg)
{
    (void)arg;
    for (int i = 0; i < 200; i++) {
        pthread_barrier_wait(&barrier);
        void *p = quire_cache_alloc(shared);
        CHECK(quire_cache_owns(shared, p));
        quire_cache_free(shared, p);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void case_destroyed_behind_a_thread(void)
{
    pthread_t t;

    pthread_barrier_init(&barrier, NULL, 2);
    REQUIRE(pthread_create(&t, NULL, use_in_turn, NULL) == 0);
    for (int i = 0; i < 200; i++) {
        shared = make(16u << (i % 8), 0, 0);
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        end(shared);
    }
    pthread_join(t, NULL);
}

/* The child has copies of all, and what other threads held back is not lost to it. */
static void *hold_and_wait(void *arg)
{
    void *p[64];

    (void)arg;
    REQUIRE(quire_cache_alloc_bulk(shared, 64, p) == 1);
    quire_cache_free_bulk(shared, 64, p);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void case_fork(void)
{
    void *p[200];
    pthread_t t;
    struct quire_cache_stat st;

    shared = make(64, 0, 0);
    pthread_barrier_init(&barrier, NULL, 2);
    REQUIRE(quire_cache_alloc_bulk(shared, 200, p) == 1);
    REQUIRE(pthread_create(&t, NULL, hold_and_wait, NULL) == 0);
    pthread_barrier_wait(&barrier);
    quire_cache_stat(shared, &st);
    CHECK(st.cached >= 64);
    int pid = fork();
    if (pid == 0) {
        bool good = live_of(shared) == 200;
        quire_cache_free_bulk(shared, 200, p);
        quire_cache_shrink(shared);
        quire_cache_stat(shared, &st);
        good = good && st.live == 0 && st.cached == 0 && st.slabs == 0;
        _exit(good && quire_cache_destroy(shared) == 0 ? 0 : 1);
    }
    conform_child_ok(pid, "the child");
    pthread_barrier_wait(&barrier);
    pthread_join(t, NULL);
    CHECK(live_of(shared) == 200);
    quire_cache_free_bulk(shared, 200, p);
    end(shared);
}

/* Going back to a snapshot: objects, free ones and caches are as they were. */
static void case_rollback(void)
{
    static void *p[500], *more[2000];
    static char text[1 << 16];
    struct quire_cache *c = make(72, 0, 0);

    REQUIRE(quire_cache_alloc_bulk(c, 500, p) == 1);
    for (unsigned i = 0; i < 500; i++)
        conform_fill(p[i], 72, i);
    quire_snapshot_t *snap = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (snap == NULL)
        conform_skip("no snapshot that can be gone back to, errno %d", errno);
    for (int round = 0; round < 20; round++) {
        struct quire_cache *late = quire_cache_create("late", 200, 0, 0, NULL);
        REQUIRE(late != NULL && quire_cache_alloc_bulk(late, 300, more) == 1);
        quire_cache_free_bulk(c, 100 + (size_t)round, p);
        REQUIRE(quire_cache_alloc_bulk(c, 1500, more) == 1);
        memset(more[7], 1, 72);
        REQUIRE(quire_snapshot_restore(snap) == 0, "errno %d", errno);
        CHECK(live_of(c) == 500, "round %d: %zu live", round, live_of(c));
        for (unsigned i = 0; i < 500; i++)
            CHECK(quire_cache_owns(c, p[i]) && conform_intact(p[i], 72, i), "object %u", i);
        REQUIRE(quire_procfs("slabinfo", 0, text, sizeof(text)) > 0);
        CHECK(strstr(text, "\nlate ") == NULL && strstr(text, "\ntest ") != NULL);
    }
    REQUIRE(quire_snapshot_release(snap) == 0);
    REQUIRE(quire_cache_alloc_bulk(c, 2000, more) == 1);
    for (int i = 0; i < 2000; i++)
        memset(more[i], 0xee, 72);
    for (unsigned i = 0; i < 500; i++)
        CHECK(conform_intact(p[i], 72, i), "object %u was handed out twice", i);
    quire_cache_free_bulk(c, 2000, more);
    quire_cache_free_bulk(c, 500, p);
    end(c);
}

static const struct conform_case cases[] = {
    {"threads that end", case_threads_end, 0},
    {"destroyed behind a thread", case_destroyed_behind_a_thread, 0},
    {"fork copies", case_fork, 0},
    {"going back to a snapshot", case_rollback, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
