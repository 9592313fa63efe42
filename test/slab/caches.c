/* caches.c - object caches against a model: what they give, keep, construct, count and take back. */
#include "quire/slab.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/page.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

#define OBJECTS 3000
#define STEPS 60000

static uint64_t state = 11;

static size_t below(size_t n)
{
    return (size_t)(conform_random(&state) % n);
}

static struct quire_cache *make(size_t size, size_t align, unsigned flags)
{
    struct quire_cache *c = quire_cache_create("test", size, align, flags, NULL);

    REQUIRE(c != NULL, "size %zu, align %zu, flags %u, errno %d", size, align, flags, errno);
    return c;
}

static size_t live_of(struct quire_cache *c)
{
    struct quire_cache_stat st;

    quire_cache_stat(c, &st);
    return st.live;
}

static void end(struct quire_cache *c)
{
    CHECK(live_of(c) == 0, "%zu live", live_of(c));
    CHECK(quire_cache_destroy(c) == 0, "errno %d", errno);
}

/* The live objects as the test believes them to be. */
struct object {
    unsigned char *p;
    unsigned seed;
};

static void model(size_t size, size_t align, unsigned flags, size_t most, size_t steps)
{
    static struct object objects[OBJECTS];
    struct quire_cache *c = make(size, align, flags);
    size_t nr = 0;

    for (size_t step = 0; step < steps; step++) {
        bool grow = nr == 0 || (nr < most && below(2 * most) >= nr);
        struct object *o = &objects[grow ? nr : below(nr)];

        if (grow) {
            o->p = below(8) == 0 ? quire_cache_zalloc(c) : quire_cache_alloc(c);
            REQUIRE(o->p != NULL);
            CHECK((uintptr_t)o->p % (align != 0 ? align : 8) == 0, "%p", (void *)o->p);
            o->seed = (unsigned)step;
            conform_fill(o->p, size, o->seed);
            nr++;
        } else {
            CHECK(conform_intact(o->p, size, o->seed), "size %zu at %p", size, (void *)o->p);
            CHECK(quire_cache_owns(c, o->p) == 1);
            quire_cache_free(c, o->p);
            CHECK(quire_cache_owns(c, o->p) == 0);
            *o = objects[--nr];
        }
        if (step % 4096 == 0)
            CHECK(live_of(c) == nr, "%zu live, not %zu", live_of(c), nr);
    }
    while (nr > 0) {
        nr--;
        CHECK(conform_intact(objects[nr].p, size, objects[nr].seed));
        quire_cache_free(c, objects[nr].p);
    }
    end(c);
}

static void case_model(void)
{
    static const unsigned flags[] = {0,
                                     QUIRE_CACHE_HWALIGN,
                                     QUIRE_CACHE_TYPESAFE,
                                     QUIRE_CACHE_POISON,
                                     QUIRE_CACHE_RED_ZONE,
                                     QUIRE_CACHE_POISON | QUIRE_CACHE_RED_ZONE};

    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        model(1, 0, flags[i], OBJECTS, STEPS);
        model(24, 0, flags[i], OBJECTS, STEPS);
        model(64, 64, flags[i], OBJECTS, STEPS);
        model(200, 32, flags[i], OBJECTS, STEPS);
        model(1000, 0, flags[i], OBJECTS / 2, STEPS / 2);
        model(9000, 4096, flags[i], 200, 3000);
    }
}

/* Up to the largest block, in slabs of higher orders. */
static void case_large(void)
{
    size_t most = (size_t)sysconf(_SC_PAGESIZE) << QUIRE_MAX_ORDER;
    struct quire_cache_stat st;

    for (size_t size = 33000; size <= most && size < 5u << 20; size = size * 3 / 2) {
        model(size, 0, 0, 5, 40);
        struct quire_cache *c = make(size, 0, 0);
        quire_cache_stat(c, &st);
        CHECK(st.per_slab >= 1 && st.stride >= size, "%zu", size);
        end(c);
    }
    model(most, 65536, 0, 3, 12);
    CHECK(quire_cache_create("test", most + 1, 0, 0, NULL) == NULL && errno == EINVAL);
    CHECK(quire_cache_create("test", most, 0, QUIRE_CACHE_RED_ZONE, NULL) == NULL &&
          errno == EINVAL);
}

/* What is given at once does not overlap. */
static void case_disjoint(void)
{
    static char *p[OBJECTS];
    struct quire_cache *c = make(40, 0, 0);

    REQUIRE(quire_cache_alloc_bulk(c, OBJECTS, (void **)p) == 1);
    for (size_t i = 0; i < OBJECTS; i++)
        memset(p[i], (int)i, 40);
    for (size_t i = 0; i < OBJECTS; i++)
        for (size_t at = 0; at < 40; at++)
            REQUIRE(p[i][at] == (char)i, "object %zu", i);
    CHECK(live_of(c) == OBJECTS);
    for (size_t i = 0; i < OBJECTS; i += 3) {
        quire_cache_free(c, p[i]);
        p[i] = NULL;
    }
    quire_cache_free_bulk(c, OBJECTS, (void **)p);
    end(c);
}

static unsigned constructed;

struct made {
    uint64_t magic, uses;
    char rest[48];
};

static void construct(void *object)
{
    struct made *m = object;
    void *volatile other = malloc(100); /* it may allocate */

    free(other);
    m->magic = 0x600d;
    m->uses = 0;
    constructed++;
}

/* Once for each object, however often it is handed out; and nothing of it is overwritten between. */
static void case_constructor(void)
{
    struct quire_cache *c = quire_cache_create("made", sizeof(struct made), 0, 0, construct);
    struct made *m[100];
    uint64_t uses = 0;

    REQUIRE(c != NULL);
    constructed = 0;
    for (int round = 0; round < 1000; round++) {
        for (int i = 0; i < 100; i++) {
            REQUIRE((m[i] = quire_cache_alloc(c)) != NULL);
            REQUIRE(m[i]->magic == 0x600d, "round %d", round);
            m[i]->uses++;
        }
        for (int i = 0; i < 100; i++) {
            uses = m[i]->uses > uses ? m[i]->uses : uses;
            quire_cache_free(c, m[i]);
        }
    }
    CHECK(constructed >= 100 && constructed < 400, "%u", constructed);
    CHECK(uses > 100, "the most used of all was used %lu times", (unsigned long)uses);
    errno = 0;
    CHECK(quire_cache_zalloc(c) == NULL && errno == EINVAL);
    end(c);
}

/* A constructor that allocates from its own cache. */
static struct quire_cache *nested;
static void *kept[100000];
static size_t nr_kept;

static void construct_more(void *object)
{
    memset(object, 1, 64);
    if (nr_kept % 7 == 0 && nr_kept < 500) {
        nr_kept++;
        kept[nr_kept - 1] = quire_cache_alloc(nested);
    }
}

static void case_nested_constructor(void)
{
    void *p[2000];

    nested = quire_cache_create("nested", 64, 0, 0, construct_more);
    REQUIRE(nested != NULL);
    for (int i = 0; i < 2000; i++) {
        REQUIRE((p[i] = quire_cache_alloc(nested)) != NULL);
        nr_kept += nr_kept < 500 && i % 3 == 0;
    }
    CHECK(live_of(nested) >= 2001, "%zu", live_of(nested));
    quire_cache_free_bulk(nested, 2000, p);
    quire_cache_free_bulk(nested, 500, kept);
    end(nested);
}

/* Empty slabs go back without being asked; those of a typesafe cache only when asked. */
static void case_memory_comes_back(void)
{
    static void *p[20000];

    for (int typesafe = 0; typesafe < 2; typesafe++) {
        struct quire_cache *c = make(512, 0, typesafe ? QUIRE_CACHE_TYPESAFE : 0);
        struct quire_cache_stat st;

        REQUIRE(quire_cache_alloc_bulk(c, 20000, p) == 1);
        quire_cache_stat(c, &st);
        CHECK(st.slabs >= 20000 / 128 && st.bytes == st.slabs * 65536, "%zu slabs", st.slabs);
        for (int i = 0; i < 20000; i++)
            memset(p[i], i, 512);
        quire_cache_free_bulk(c, 20000, p);
        quire_cache_stat(c, &st);
        if (typesafe) {
            CHECK(st.slabs >= 20000 / 128, "%zu slabs", st.slabs);
            for (int i = 0; i < 20000; i++)
                CHECK(*(unsigned char *)p[i] == (unsigned char)i, "object %d changed", i);
        } else {
            CHECK(st.slabs <= 4, "%zu slabs", st.slabs);
        }
        CHECK(quire_cache_shrink(c) > 0);
        quire_cache_stat(c, &st);
        CHECK(st.slabs == 0 && st.cached == 0, "%zu slabs, %zu cached", st.slabs, st.cached);
        end(c);
    }
}

static void case_trim(void)
{
    struct quire_cache *c = make(512, 0, 0);
    struct quire_cache_stat st;

    quire_cache_free(c, quire_cache_alloc(c));
    quire_trim(0);
    quire_cache_stat(c, &st);
    CHECK(st.slabs == 0);
    end(c);
}

/* destroy says what was not freed, and leaves the cache as it was. */
static void case_leaks(void)
{
    struct quire_cache *c = make(48, 0, 0);
    char text[2000], first[40];
    int fd[2], saved = dup(2);
    void *p[20];

    REQUIRE(quire_cache_alloc_bulk(c, 20, p) == 1 && pipe(fd) == 0);
    dup2(fd[1], 2);
    errno = 0;
    int result = quire_cache_destroy(c), error = errno;
    dup2(saved, 2);
    close(fd[1]);
    ssize_t n = read(fd[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    snprintf(first, sizeof(first), "%p", p[0]);
    CHECK(result == -1 && error == EBUSY);
    CHECK(strstr(text, "quire_cache_destroy(") != NULL && strstr(text, "\"test\"") != NULL &&
              strstr(text, "20 objects are not free") != NULL && strstr(text, " ...\n") != NULL,
          "said '%s'", text);
    CHECK(strstr(text, first) != NULL, "%s is not in '%s'", first, text);
    CHECK(live_of(c) == 20);
    quire_cache_free_bulk(c, 20, p);
    end(c);
    CHECK(quire_cache_destroy(NULL) == 0);
}

static void refuse(const char *name, size_t size, size_t align, unsigned flags,
                   void (*ctor)(void *object))
{
    errno = 0;
    CHECK(quire_cache_create(name, size, align, flags, ctor) == NULL && errno == EINVAL,
          "name %s, size %zu, align %zu, flags %#x", name != NULL ? name : "(none)", size, align,
          flags);
}

static void case_wrong_arguments(void)
{
    refuse(NULL, 8, 0, 0, NULL);
    refuse("", 8, 0, 0, NULL);
    refuse("two words", 8, 0, 0, NULL);
    refuse("quote\"", 8, 0, 0, NULL);
    refuse("a-name-that-is-longer-than-it-may-be", 8, 0, 0, NULL);
    refuse("a", 0, 0, 0, NULL);
    refuse("a", (size_t)-1, 0, 0, NULL);
    refuse("a", 8, 3, 0, NULL);
    refuse("a", 8, 131072, 0, NULL);
    refuse("a", 8, 0, 1u << 20, NULL);
    refuse("a", 8, 0, QUIRE_CACHE_POISON, construct);
    refuse("a", 8, 0, QUIRE_CACHE_POISON | QUIRE_CACHE_TYPESAFE, NULL);
    struct quire_cache *c = quire_cache_create("a-name-as-long-as-it-may-be-abc", 8, 0, 0, NULL);
    REQUIRE(c != NULL && strlen(quire_cache_name(c)) == QUIRE_CACHE_NAME_MAX);
    CHECK(quire_cache_size(c) == 8);
    errno = 77;
    quire_cache_free(c, NULL);
    CHECK(errno == 77);
    CHECK(!quire_cache_owns(c, NULL) && !quire_cache_owns(c, &c) &&
          !quire_cache_owns(c, malloc(8)));
    end(c);
}

/* As many as there may be, and their numbers are used again. */
static void case_many_caches(void)
{
    static struct quire_cache *c[3000];
    size_t n = 0;

    while (n < 3000 && (c[n] = quire_cache_create("many", 32, 0, 0, NULL)) != NULL)
        n++;
    CHECK(n == 2048 && errno == ENOSPC, "%zu, errno %d", n, errno);
    for (size_t i = 0; i < n; i++) {
        void *p = quire_cache_alloc(c[i]);
        REQUIRE(p != NULL);
        CHECK(quire_cache_owns(c[i], p) && !quire_cache_owns(c[(i + 1) % n], p));
        quire_cache_free(c[i], p);
        quire_cache_shrink(c[i]); /* 64 KiB each are a lot under a limit */
    }
    for (size_t i = 0; i < n; i++)
        end(c[i]);
    for (int i = 0; i < 5000; i++) {
        struct quire_cache *one = make(16 + below(100), 0, 0);
        void *p = quire_cache_alloc(one);
        REQUIRE(p != NULL);
        quire_cache_free(one, p);
        end(one);
    }
}

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

static struct quire_cache *in_handler;
static volatile sig_atomic_t refused, served;

static void handler(int sig)
{
    void *volatile p = quire_cache_create("handler", 8, 0, 0, NULL);

    (void)sig;
    if (p == NULL && errno == EAGAIN)
        refused = refused + 1;
    else if (p != NULL && quire_cache_destroy(p) == 0)
        served = served + 1;
}

static void raise_within(void *object)
{
    memset(object, 0, 100);
    raise(SIGUSR1);
}

/* The constructor runs outside of the allocator: a handler that interrupts it may allocate. */
static void case_signal_in_constructor(void)
{
    signal(SIGUSR1, handler);
    in_handler = quire_cache_create("signals", 100, 0, 0, raise_within);
    REQUIRE(in_handler != NULL);
    void *p = quire_cache_alloc(in_handler);
    REQUIRE(p != NULL);
    CHECK(served > 0 && refused == 0, "%d served, %d refused", (int)served, (int)refused);
    quire_cache_free(in_handler, p);
    end(in_handler);
}

/* slabinfo names the cache, and counts it. */
static void case_slabinfo(void)
{
    static char text[1 << 16];
    struct quire_cache *c = quire_cache_create("conn-table", 100, 0, 0, NULL);
    void *p[100];
    unsigned live = 0, all = 0, size = 0;

    REQUIRE(c != NULL && quire_cache_alloc_bulk(c, 100, p) == 1);
    REQUIRE(quire_procfs("slabinfo", 0, text, sizeof(text)) > 0);
    const char *line = strstr(text, "\nconn-table ");
    REQUIRE(line != NULL);
    CHECK(sscanf(line, " conn-table %u %u %u", &live, &all, &size) == 3);
    CHECK(live == 100 && all >= 100 && size == 104, "%u of %u, size %u", live, all, size);
    REQUIRE(quire_procfs("slabinfo", QUIRE_PROCFS_JSON, text, sizeof(text)) > 0);
    CHECK(strstr(text, "{\"name\":\"conn-table\",\"active_objs\":100,") != NULL);
    quire_cache_free_bulk(c, 100, p);
    end(c);
    REQUIRE(quire_procfs("slabinfo", 0, text, sizeof(text)) > 0);
    CHECK(strstr(text, "conn-table") == NULL);
}

/* Under a limit (QUIRE_CONF=limit:...): ENOMEM at the end of it, bulk gives all or nothing. */
static void case_limit(void)
{
    static void *p[100000];
    const char *conf = getenv("QUIRE_CONF");
    struct quire_cache *c = make(4096, 0, 0);
    size_t n = 0;

    if (conf == NULL || strstr(conf, "limit:") == NULL)
        conform_skip("no limit is set");
    errno = 0;
    while (n < 100000 && (p[n] = quire_cache_alloc(c)) != NULL)
        n++;
    CHECK(n > 10000 && n < 20000 && errno == ENOMEM, "%zu objects, errno %d", n, errno);
    for (size_t i = 0; i < 100; i++)
        quire_cache_free(c, p[--n]);
    errno = 0;
    CHECK(quire_cache_alloc_bulk(c, 1000, p + n) == 0 && errno == ENOMEM && p[n] == NULL);
    CHECK(live_of(c) == n, "%zu live, not %zu", live_of(c), n);
    quire_cache_free_bulk(c, n, p);
    end(c);
}

/* An object is nobody else's: not malloc's, not the page interface's. */
static void case_not_mallocs(void)
{
    struct quire_cache *c = make(4096, 4096, 0);

    for (int i = 0; i < 100; i++) {
        void *p = quire_cache_alloc(c);
        REQUIRE(p != NULL);
        CHECK(!quire_owns(p));
        CHECK(quire_page_count(quire_virt_to_page(p)) == 0);
        CHECK(quire_compound_head(quire_virt_to_page(p)) == NULL);
        if (i % 2 == 0)
            quire_cache_free(c, p);
    }
    CHECK(live_of(c) == 50);
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
    {"random calls against a model", case_model, 0},
    {"large objects", case_large, 0},
    {"objects do not overlap", case_disjoint, 0},
    {"constructed once", case_constructor, 0},
    {"a constructor that allocates", case_nested_constructor, 0},
    {"memory comes back", case_memory_comes_back, 0},
    {"trim", case_trim, 0},
    {"leaks are named", case_leaks, 0},
    {"wrong arguments", case_wrong_arguments, 0},
    {"as many caches as there may be", case_many_caches, 0},
    {"threads that end", case_threads_end, 0},
    {"destroyed behind a thread", case_destroyed_behind_a_thread, 0},
    {"fork copies", case_fork, 0},
    {"a signal in the constructor", case_signal_in_constructor, 0},
    {"slabinfo", case_slabinfo, 0},
    {"a limit ends in ENOMEM", case_limit, 0},
    {"not malloc's", case_not_mallocs, 0},
    {"going back to a snapshot", case_rollback, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
