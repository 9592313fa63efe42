/*
 * objects.c - the objects of a cache that a snapshot shows: those that were live at the cut, with
 * what they held, whatever became of the cache.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

#include "quire/heap.h"
#include "quire/slab.h"
#include "steps.h"

enum { OBJECTS = 6000 };

struct object {
    uint64_t id, check;
    char room[72];
};

/* What the program holds, and held at the cut. Not in the heap. */
struct table {
    struct object *at[OBJECTS];
    uint64_t id[OBJECTS];
};

static uint64_t rng = 11, next_id = 1;

static void put_new(struct quire_cache *cache, struct table *t, int i)
{
    t->at[i] = quire_cache_alloc(cache);
    REQUIRE(t->at[i] != NULL);
    t->id[i] = next_id++;
    *t->at[i] = (struct object){.id = t->id[i], .check = ~t->id[i]};
}

/* n random changes: one goes, one comes, one is written to. */
static void change(struct quire_cache *cache, struct table *t, int n)
{
    while (n-- > 0) {
        int i = (int)(conform_random(&rng) % OBJECTS);

        if (t->at[i] == NULL) {
            put_new(cache, t, i);
        } else if (conform_random(&rng) % 3 == 0) {
            t->id[i] = t->at[i]->id = next_id++;
            t->at[i]->check = ~t->id[i];
        } else {
            quire_cache_free(cache, t->at[i]);
            t->at[i] = NULL;
        }
    }
}

/* Objects as they are shown, against a table: how many are there, and what differs. */
struct seen {
    const quire_snapshot_t *s;
    const struct table *then;
    const void *last;
    size_t nr, bad;
    size_t stop_at; /* 0: never */
};

static int by_address(const void *a, const void *b)
{
    const struct object *const *x = a, *const *y = b;

    return *x < *y ? -1 : *x > *y;
}

static int see(void *arg, const void *object)
{
    struct seen *seen = arg;
    struct object o;

    seen->bad += object <= seen->last;
    seen->last = object;
    seen->bad += quire_snapshot_read(seen->s, object, &o, sizeof(o)) != sizeof(o);
    const struct object *key = object;
    const struct object *const *found =
        bsearch(&key, seen->then->at, OBJECTS, sizeof(seen->then->at[0]), by_address);
    seen->bad += found == NULL || o.check != ~o.id;
    if (found != NULL)
        seen->bad += seen->then->id[found - (const struct object *const *)seen->then->at] != o.id;
    seen->nr++;
    return seen->nr == seen->stop_at;
}

/* The table at the cut, by address; ids go along. */
static size_t note(struct table *then, const struct table *now)
{
    size_t nr = 0;

    memcpy(then, now, sizeof(*then));
    for (int i = 0; i < OBJECTS; i++)
        nr += now->at[i] != NULL;
    qsort(then->at, OBJECTS, sizeof(then->at[0]), by_address);
    for (int i = 0; i < OBJECTS; i++)
        then->id[i] = then->at[i] != NULL ? then->at[i]->id : 0;
    return nr;
}

static void check_all(const quire_snapshot_t *s, const struct quire_cache *cache,
                      const struct table *then, size_t nr)
{
    struct seen seen = {.s = s, .then = then};

    CHECK(quire_snapshot_objects(s, cache, see, &seen) == 0, "errno %d", errno);
    CHECK(seen.nr == nr && seen.bad == 0, "%zu objects, should be %zu; %zu wrong", seen.nr, nr,
          seen.bad);
}

static void at_the_cut_by(unsigned flags)
{
    struct quire_cache *cache = quire_cache_create("things", sizeof(struct object), 0, 0, NULL);
    struct table *now = outside(sizeof(*now)),
                 *then[2] = {outside(sizeof(*now)), outside(sizeof(*now))};
    quire_snapshot_t *s[2];
    size_t nr[2];

    REQUIRE(cache != NULL);
    for (int round = 0; round < 8; round++) {
        for (int k = 0; k < 2; k++) {
            change(cache, now, round == 0 ? 3 * OBJECTS : 700);
            nr[k] = note(then[k], now);
            s[k] = take(flags);
        }
        change(cache, now, round % 2 == 0 ? 50 : 3 * OBJECTS);
        if (round == 5) /* most of them go, and slabs with them */
            for (int i = 0; i < OBJECTS; i++)
                if (now->at[i] != NULL) {
                    quire_cache_free(cache, now->at[i]);
                    now->at[i] = NULL;
                }
        quire_cache_shrink(cache);
        for (int k = 0; k < 2; k++)
            check_all(s[k], cache, then[k], nr[k]);
        CHECK(quire_snapshot_release(s[round % 2]) == 0);
        check_all(s[1 - round % 2], cache, then[1 - round % 2], nr[1 - round % 2]);
        CHECK(quire_snapshot_release(s[1 - round % 2]) == 0);
    }
    /* Also of a cache that is no more. */
    nr[0] = note(then[0], now);
    s[0] = take(flags);
    for (int i = 0; i < OBJECTS; i++)
        if (now->at[i] != NULL)
            quire_cache_free(cache, now->at[i]);
    REQUIRE(quire_cache_destroy(cache) == 0);
    check_all(s[0], cache, then[0], nr[0]);
    CHECK(quire_snapshot_release(s[0]) == 0);
}

static void at_the_cut(void)
{
    at_the_cut_by(0);
}

static void at_a_lazy_cut(void)
{
    many_blocks();
    at_the_cut_by(QUIRE_SNAPSHOT_LAZY);
}

static void by_holder(void)
{
    at_the_cut_by(QUIRE_SNAPSHOT_HOLDER);
}

/* --- among other threads --------------------------------------------------------------------- */

static struct quire_cache *shared;
static _Atomic bool stop;

static void *churn(void *arg)
{
    struct object *mine[300] = {NULL};
    uint64_t random = (uintptr_t)arg;

    while (!stop) {
        struct object **p = &mine[conform_random(&random) % 300];

        if (*p != NULL) {
            quire_cache_free(shared, *p);
            *p = NULL;
        } else {
            *p = quire_cache_alloc(shared);
            **p = (struct object){0};
        }
    }
    for (int i = 0; i < 300; i++)
        if (mine[i] != NULL)
            quire_cache_free(shared, mine[i]);
    return NULL;
}

/* Of the objects that are shown: those of this thread, each once. */
static int see_ours(void *arg, const void *object)
{
    struct seen *seen = arg;
    const struct object *key = object;

    seen->bad += object <= seen->last;
    seen->last = object;
    seen->nr +=
        bsearch(&key, seen->then->at, OBJECTS, sizeof(seen->then->at[0]), by_address) != NULL;
    return 0;
}

static void among_threads_with(size_t size, unsigned cache_flags)
{
    struct table *now = outside(sizeof(*now)), *then = outside(sizeof(*now));
    pthread_t thread[3];

    shared = quire_cache_create("shared", size, 0, cache_flags, NULL);
    REQUIRE(shared != NULL);
    for (int i = 0; i < OBJECTS; i += 8)
        put_new(shared, now, i);
    size_t nr = note(then, now);
    stop = false;
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_create(&thread[i], NULL, churn, (void *)(intptr_t)(i + 1)) == 0);
    for (int round = 0; round < 60; round++) {
        quire_snapshot_t *s = take(round % 8 == 7 ? QUIRE_SNAPSHOT_HOLDER : 0);
        struct seen seen = {.s = s, .then = then};
        CHECK(quire_snapshot_objects(s, shared, see_ours, &seen) == 0, "errno %d", errno);
        CHECK(seen.nr == nr && seen.bad == 0, "%zu of %zu, %zu out of order", seen.nr, nr,
              seen.bad);
        CHECK(quire_snapshot_release(s) == 0);
    }
    stop = true;
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
}

static void among_threads(void)
{
    among_threads_with(sizeof(struct object), 0);
    among_threads_with(9000, QUIRE_CACHE_POISON); /* few in a slab, and each call goes there */
}

/* Going back brings no lock back that was held at the cut. */
static void after_going_back(void)
{
    struct quire_cache *cache = quire_cache_create("back", sizeof(struct object), 0, 0, NULL);
    struct table *now = outside(sizeof(*now)), *then = outside(sizeof(*now));

    REQUIRE(cache != NULL);
    for (int i = 0; i < OBJECTS; i++)
        put_new(cache, now, i);
    quire_snapshot_t *plain = take(0), *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (s == NULL)
        conform_skip("nothing can be gone back to here");
    size_t nr = note(then, now);
    for (int round = 0; round < 3; round++) {
        struct table later = *now;
        change(cache, &later, 500);
        CHECK(quire_snapshot_restore(s) == 0, "errno %d", errno);
        check_all(s, cache, then, nr);
    }
    for (int i = 0; i < OBJECTS; i++)
        quire_cache_free(cache, now->at[i]);
    CHECK(quire_snapshot_release(s) == 0 && quire_snapshot_release(plain) == 0);
    CHECK(quire_cache_destroy(cache) == 0);
}

static void refused(void)
{
    struct quire_cache *cache = quire_cache_create("few", sizeof(struct object), 0, 0, NULL);
    struct table *now = outside(sizeof(*now)), *then = outside(sizeof(*now));
    struct seen seen = {.then = then, .stop_at = 7};

    REQUIRE(cache != NULL);
    change(cache, now, OBJECTS);
    size_t nr = note(then, now);
    quire_snapshot_t *s = take(0);
    seen.s = s;
    CHECK(nr > 7 && quire_snapshot_objects(s, cache, see, &seen) == -1 && errno == ECANCELED);
    CHECK(seen.nr == 7 && seen.bad == 0);
    struct quire_cache *later = quire_cache_create("later", 100, 0, 0, NULL);
    CHECK(quire_snapshot_objects(s, later, see, &seen) == -1 && errno == EINVAL, "made later");
    CHECK(quire_snapshot_objects(s, (void *)now->at[0], see, &seen) == -1 && errno != 0);
    CHECK(quire_snapshot_objects(s, NULL, see, &seen) == -1 && errno == EFAULT);
    CHECK(quire_snapshot_objects(NULL, cache, see, &seen) == -1 && errno == EINVAL);
    if (quire_snapshot_drop(s, (void *)UINTPTR_MAX) == 0)
        CHECK(quire_snapshot_objects(s, cache, see, &seen) == -1 && errno == EFAULT, "dropped");
    quire_snapshot_release(s);
    struct quire_heap *heap = quire_heap_create(NULL);
    if (heap != NULL && quire_heap_alloc(heap, 100) != NULL) {
        s = quire_snapshot_take(heap, 0);
        CHECK(s != NULL && quire_snapshot_objects(s, cache, see, &seen) == -1 && errno == EFAULT);
        quire_snapshot_release(s);
    }
}

static const struct conform_case cases[] = {
    {"at the cut", at_the_cut, 120},
    {"at a lazy cut", at_a_lazy_cut, 120},
    {"by a holder process", by_holder, 120},
    {"among threads", among_threads, 120},
    {"after going back", after_going_back, 120},
    {"refused", refused, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
