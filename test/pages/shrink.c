/*
 * shrink.c - shrinkers as such: their interface, and their callbacks, beside threads and fork.
 *
 * What they are for is in shortage.c.
 */
#include <pthread.h>
#include <unistd.h>

#include "pieces.h"
#include "quire/movable.h"

static quire_shrinker_t *self;

static size_t scan_wrongly(void *arg, size_t bytes)
{
    errno = 0;
    CHECK(quire_shrinker_unregister(self) == -1 && errno == EDEADLK);
    CHECK(quire_shrink(1 << 20) == 0, "asked again inside a callback");
    return scan(arg, bytes);
}

/* Where another shrinker takes the place of one as soon as its last callback has ended. */
static _Atomic int in_scan, ended, gone;

static size_t count_some(void *arg)
{
    return PIECE;
}

static size_t scan_slowly(void *arg, size_t bytes)
{
    in_scan = 1;
    usleep(300);
    return 0;
}

static void *shrink_then_register(void *arg)
{
    quire_shrink(PIECE);
    quire_shrinker_t *next = quire_shrinker_register("next", count_some, scan_slowly, NULL);
    REQUIRE(next != NULL);
    for (int i = 0; i < 5000 && !gone; i++)
        usleep(1000);
    CHECK(gone, "still waits, for another's callbacks to end");
    CHECK(quire_shrinker_unregister(next) == 0);
    ended = 1;
    return NULL;
}

static void case_place_taken(void)
{
    for (int round = 0; round < 500; round++) {
        pthread_t t;
        quire_shrinker_t *s = quire_shrinker_register("x", count_some, scan_slowly, NULL);

        REQUIRE(s != NULL);
        in_scan = ended = gone = 0;
        REQUIRE(pthread_create(&t, NULL, shrink_then_register, NULL) == 0);
        while (!in_scan)
            usleep(20);
        CHECK(quire_shrinker_unregister(s) == 0);
        gone = 1;
        pthread_join(t, NULL);
        REQUIRE(ended);
    }
}

/* Two threads are in the callback when one of them forks: the child has only that one. */
static _Atomic bool waits, may_go;
static __thread bool forks;
static quire_shrinker_t *both;
static int forked;

static size_t scan_and_fork(void *arg, size_t bytes)
{
    if (forks) {
        forked = fork();
    } else {
        waits = true;
        while (!may_go)
            usleep(1000);
    }
    return 0;
}

static void *shrink_and_wait(void *arg)
{
    quire_shrink(PIECE);
    return arg;
}

static void case_fork(void)
{
    pthread_t t;

    both = quire_shrinker_register("both", count_some, scan_and_fork, NULL);
    REQUIRE(both != NULL && pthread_create(&t, NULL, shrink_and_wait, NULL) == 0);
    while (!waits)
        usleep(100);
    forks = true;
    quire_shrink(PIECE);
    if (forked == 0) {
        alarm(20); /* for what it would wait for is not there */
        _exit(quire_shrinker_unregister(both) == 0 && quire_shrink(PIECE) == 0 ? 0 : 1);
    }
    CHECK(forked > 0 && conform_child_ok(forked, "the child"));
    may_go = true;
    pthread_join(t, NULL);
    CHECK(quire_shrinker_unregister(both) == 0);
}

static void case_interface(void)
{
    quire_shrinker_t *s[QUIRE_NR_SHRINKERS];

    errno = 0;
    CHECK(quire_shrinker_register("x", NULL, scan, NULL) == NULL && errno == EINVAL);
    CHECK(quire_shrinker_unregister(NULL) == 0);
    for (int i = 0; i < QUIRE_NR_SHRINKERS; i++)
        REQUIRE((s[i] = quire_shrinker_register("x", count, scan, &cache)) != NULL);
    errno = 0;
    CHECK(quire_shrinker_register("x", count, scan, &cache) == NULL && errno == ENOSPC);
    for (int i = 0; i < QUIRE_NR_SHRINKERS; i++)
        CHECK(quire_shrinker_unregister(s[i]) == 0);
    errno = 0;
    CHECK(quire_shrinker_unregister(s[3]) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(quire_shrinker_unregister((quire_shrinker_t *)&cache) == -1 && errno == EINVAL);
    self = quire_shrinker_register("x", count, scan_wrongly, &cache);
    fill_cache(100);
    CHECK(quire_shrink(0) == 0 && cache.nr == 100);
    CHECK(quire_shrink(10 * PIECE) == 10 * PIECE && cache.nr == 90);
    quire_movable_t *h = quire_movable_alloc(4 * PIECE, QUIRE_MOVABLE_DISCARDABLE);
    CHECK(quire_shrink(PIECE) >= PIECE && cache.nr == 90, "what is discardable goes first");
    int lost = 0;
    CHECK(quire_movable_pin(h, &lost) != NULL && lost);
    quire_movable_unpin(h);
    quire_movable_free(h);
    CHECK(quire_shrinker_unregister(self) == 0 && quire_shrink(PIECE) == 0);
}

static const struct conform_case cases[] = {
    {"the interface", case_interface, 0},
    {"a place that is taken again at once", case_place_taken, 60},
    {"a fork in a callback", case_fork, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
