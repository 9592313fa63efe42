/*
 * caches.c - object caches and their objects, against a model: what they give, construct and take
 * back, of which sizes, and what they refuse.
 *
 * Their memory, and how they end, is in cache_memory.c; who shares them in cache_shared.c.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "quire/page.h"
#include "quire/quire.h"

#define OBJECTS 3000
#define STEPS 60000

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

static const struct conform_case cases[] = {
    {"random calls against a model", case_model, 0},
    {"large objects", case_large, 0},
    {"objects do not overlap", case_disjoint, 0},
    {"constructed once", case_constructor, 0},
    {"a constructor that allocates", case_nested_constructor, 0},
    {"wrong arguments", case_wrong_arguments, 0},
    {"a signal in the constructor", case_signal_in_constructor, 0},
    {"not malloc's", case_not_mallocs, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
