/* pools.c - pools with a reserve, over an allocator that fails when the test says so. */
#include "quire/mempool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../conform/conform.h"

/* An allocator with so many elements to give. */
struct source {
    _Atomic long left, out;
};

static void *source_alloc(void *data)
{
    struct source *s = data;

    if (atomic_fetch_sub(&s->left, 1) <= 0) {
        atomic_fetch_add(&s->left, 1);
        return NULL;
    }
    atomic_fetch_add(&s->out, 1);
    return calloc(1, 64);
}

static void source_free(void *element, void *data)
{
    struct source *s = data;

    free(element);
    atomic_fetch_sub(&s->out, 1);
    atomic_fetch_add(&s->left, 1);
}

static struct quire_mempool_stat stat_of(struct quire_mempool *pool)
{
    struct quire_mempool_stat st;

    quire_mempool_stat(pool, &st);
    return st;
}

/* Random calls; reserve and elements in use are min_nr or more after each. */
static void case_model(void)
{
    struct source s = {.left = 1000};
    struct quire_mempool *pool = quire_mempool_create(5, source_alloc, source_free, &s);
    void *held[200];
    size_t nr = 0, min_nr = 5;
    uint64_t state = 3;

    REQUIRE(pool != NULL && s.out == 5);
    for (int step = 0; step < 100000; step++) {
        uint64_t what = conform_random(&state) % 100;

        if (what < 2) {
            s.left = what == 0 ? 0 : (long)(conform_random(&state) % 50);
        } else if (what < 3) {
            size_t to = 1 + conform_random(&state) % 20;
            bool could = to <= stat_of(pool).reserve || s.left >= 20;
            int result = quire_mempool_resize(pool, to);
            CHECK(result == 0 || (!could && errno == ENOMEM), "to %zu", to);
            min_nr = result == 0 ? to : min_nr;
        } else if (what < 52 && nr < 200) {
            size_t reserve = stat_of(pool).reserve;
            bool must = reserve > 0 || s.left > 0;
            held[nr] = quire_mempool_alloc(pool, QUIRE_MEMPOOL_NOWAIT);
            CHECK((held[nr] != NULL) == must, "step %d: reserve %zu, %ld left", step, reserve,
                  (long)s.left);
            if (held[nr] != NULL)
                memset(held[nr++], step, 64);
        } else if (nr > 0) {
            size_t i = conform_random(&state) % nr;
            CHECK(((char *)held[i])[0] == ((char *)held[i])[63]);
            quire_mempool_free(pool, held[i]);
            held[i] = held[--nr];
        }
        struct quire_mempool_stat st = stat_of(pool);
        CHECK(st.min_nr == min_nr && st.in_use == nr, "step %d", step);
        CHECK(st.reserve + nr >= min_nr && st.reserve + nr == (size_t)s.out,
              "step %d: reserve %zu, in use %zu, min %zu, out %ld", step, st.reserve, nr, min_nr,
              (long)s.out);
    }
    errno = 0;
    if (nr > 0)
        CHECK(quire_mempool_destroy(pool) == -1 && errno == EBUSY);
    while (nr > 0)
        quire_mempool_free(pool, held[--nr]);
    CHECK(quire_mempool_destroy(pool) == 0 && s.out == 0, "%ld are left", (long)s.out);
    CHECK(quire_mempool_destroy(NULL) == 0);
}

struct waiter {
    struct quire_mempool *pool;
    _Atomic int got;
};

static void *wait_in_thread(void *arg)
{
    struct waiter *w = arg;
    void *p = quire_mempool_alloc(w->pool, 0);

    atomic_store(&w->got, p != NULL);
    quire_mempool_free(w->pool, p);
    return NULL;
}

/* Nothing left: alloc waits, and a free ends that. */
static void case_waits(void)
{
    struct source s = {.left = 3};
    struct waiter w = {.pool = quire_mempool_create(3, source_alloc, source_free, &s)};
    struct timespec nap = {0, 20000000};
    pthread_t t[8];
    void *p[3];

    REQUIRE(w.pool != NULL);
    for (int i = 0; i < 3; i++)
        REQUIRE((p[i] = quire_mempool_alloc(w.pool, 0)) != NULL);
    errno = 0;
    CHECK(quire_mempool_alloc(w.pool, QUIRE_MEMPOOL_NOWAIT) == NULL && errno == ENOMEM);
    for (int i = 0; i < 8; i++)
        REQUIRE(pthread_create(&t[i], NULL, wait_in_thread, &w) == 0);
    while (stat_of(w.pool).waits < 8)
        nanosleep(&nap, NULL);
    CHECK(atomic_load(&w.got) == 0);
    quire_mempool_free(w.pool, p[0]);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    CHECK(atomic_load(&w.got) == 1);
    quire_mempool_free(w.pool, p[1]);
    quire_mempool_free(w.pool, p[2]);
    CHECK(quire_mempool_destroy(w.pool) == 0 && s.out == 0);
}

/* Nobody frees, but the allocator has something again. */
static void case_allocator_recovers(void)
{
    struct source s = {.left = 1};
    struct waiter w = {.pool = quire_mempool_create(1, source_alloc, source_free, &s)};
    struct timespec nap = {0, 20000000};
    pthread_t t;

    REQUIRE(w.pool != NULL);
    void *p = quire_mempool_alloc(w.pool, 0);
    REQUIRE(p != NULL && pthread_create(&t, NULL, wait_in_thread, &w) == 0);
    while (stat_of(w.pool).waits < 1)
        nanosleep(&nap, NULL);
    atomic_store(&s.left, 1);
    pthread_join(t, NULL);
    CHECK(atomic_load(&w.got) == 1);
    quire_mempool_free(w.pool, p);
    CHECK(quire_mempool_destroy(w.pool) == 0);
}

static struct quire_mempool *shared;
static _Atomic bool stop;

static void *use(void *arg)
{
    uint64_t state = (uintptr_t)arg;

    for (int i = 0; i < 20000; i++) {
        unsigned char mark = (unsigned char)conform_random(&state);
        unsigned char *p = quire_mempool_alloc(shared, 0);

        REQUIRE(p != NULL);
        memset(p, mark, 64);
        CHECK(p[0] == mark && p[63] == mark && p[32] == mark);
        quire_mempool_free(shared, p);
    }
    return NULL;
}

static void *resize(void *arg)
{
    uint64_t state = 9;

    (void)arg;
    while (!atomic_load(&stop))
        quire_mempool_resize(shared, 1 + conform_random(&state) % 6);
    return NULL;
}

/* Six threads with four elements among them, while the reserve grows and shrinks. */
static void case_threads(void)
{
    struct source s = {.left = 4};
    pthread_t t[6], r;

    shared = quire_mempool_create(2, source_alloc, source_free, &s);
    REQUIRE(shared != NULL && pthread_create(&r, NULL, resize, NULL) == 0);
    for (uintptr_t i = 0; i < 6; i++)
        REQUIRE(pthread_create(&t[i], NULL, use, (void *)(i + 1)) == 0);
    for (int i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    atomic_store(&stop, true);
    pthread_join(r, NULL);
    CHECK(s.out == (long)stat_of(shared).reserve && stat_of(shared).in_use == 0);
    CHECK(quire_mempool_destroy(shared) == 0 && s.out == 0);
}

static void case_kinds(void)
{
    struct quire_cache *cache = quire_cache_create("pool", 40, 0, 0, NULL);
    struct quire_mempool *objects = quire_mempool_create_cache(10, cache),
                         *blocks = quire_mempool_create_malloc(10, 5000);
    struct quire_cache_stat st;

    REQUIRE(cache != NULL && objects != NULL && blocks != NULL);
    quire_cache_stat(cache, &st);
    CHECK(st.live == 10, "%zu", st.live);
    void *o = quire_mempool_alloc(objects, 0), *b = quire_mempool_alloc(blocks, 0);
    REQUIRE(o != NULL && b != NULL);
    CHECK(quire_cache_owns(cache, o));
    memset(b, 1, 5000);
    quire_mempool_free(objects, o);
    quire_mempool_free(blocks, b);
    CHECK(quire_mempool_destroy(objects) == 0 && quire_mempool_destroy(blocks) == 0);
    CHECK(quire_cache_destroy(cache) == 0);
}

static void case_wrong_arguments(void)
{
    struct source s = {.left = 3};

    errno = 0;
    CHECK(quire_mempool_create(0, source_alloc, source_free, &s) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_mempool_create((size_t)-1, source_alloc, source_free, &s) == NULL &&
          errno == EINVAL);
    errno = 0;
    CHECK(quire_mempool_create(1, NULL, source_free, &s) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_mempool_create(4, source_alloc, source_free, &s) == NULL && errno == ENOMEM);
    CHECK(s.out == 0 && s.left == 3);
    errno = 0;
    CHECK(quire_mempool_create_malloc(1, 0) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_mempool_create_cache(1, NULL) == NULL && errno == EINVAL);
    struct quire_mempool *pool = quire_mempool_create(3, source_alloc, source_free, &s);
    REQUIRE(pool != NULL);
    errno = 0;
    CHECK(quire_mempool_alloc(pool, 8) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_mempool_resize(pool, 0) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(quire_mempool_resize(pool, 4) == -1 && errno == ENOMEM && stat_of(pool).min_nr == 3);
    errno = 99;
    void *p = quire_mempool_alloc(pool, 0);
    quire_mempool_free(pool, NULL);
    quire_mempool_free(pool, p);
    CHECK(errno == 99 && quire_mempool_destroy(pool) == 0);
}

static void case_fork(void)
{
    struct source s = {.left = 2};
    struct quire_mempool *pool = quire_mempool_create(2, source_alloc, source_free, &s);

    REQUIRE(pool != NULL);
    int pid = fork();
    if (pid == 0) {
        void *a = quire_mempool_alloc(pool, 0), *b = quire_mempool_alloc(pool, 0);
        bool good = a != NULL && b != NULL && !quire_mempool_alloc(pool, QUIRE_MEMPOOL_NOWAIT);
        quire_mempool_free(pool, a);
        quire_mempool_free(pool, b);
        _exit(good && quire_mempool_destroy(pool) == 0 ? 0 : 1);
    }
    conform_child_ok(pid, "the child");
    CHECK(stat_of(pool).reserve == 2 && quire_mempool_destroy(pool) == 0);
}

static const struct conform_case cases[] = {
    {"random calls against a model", case_model, 0},
    {"alloc waits for a free", case_waits, 0},
    {"alloc waits for the allocator", case_allocator_recovers, 0},
    {"threads share few elements", case_threads, 0},
    {"pools of a cache and of malloc's", case_kinds, 0},
    {"wrong arguments", case_wrong_arguments, 0},
    {"fork copies", case_fork, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
