/* layers_slab.c - objects of slabs and of named caches, and heaps of a program's own. */
#include "layers.h"

#include "slab/arena.h"
#include "slab/cache.h"
#include "slab/slab.h"
#include "slab/slub.h"

#define OBJECTS 1024

static void *take(size_t size)
{
    void *object = q_slub_pop(q_heap_class(q_heap, size));

    check(object != NULL, "no object");
    *(volatile char *)object = 1;
    return object;
}

static void give(void *object)
{
    struct q_slab *slab = q_slab_of(object);

    check(slab && q_slub_free(slab, object) == Q_FREED, "an object is not where it was");
}

static void object(struct shim *shim, size_t size)
{
    for (size_t n; (n = shim_next(shim));)
        while (n--)
            give(take(size));
}

static void objects(struct shim *shim, size_t size)
{
    static void *some[OBJECTS];

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= OBJECTS) {
            for (int i = 0; i < OBJECTS; i++)
                some[i] = take(size);
            for (int i = 0; i < OBJECTS; i++)
                give(some[i]);
        }
}

static struct q_cache *make_cache(size_t size)
{
    struct q_cache *c = NULL;

    check(q_cache_create("layers", size, 0, 0, NULL, &c) == 0, "no cache");
    return c;
}

static void *take_cached(struct q_cache *c)
{
    struct q_cache_fault fault;
    void *object = q_cache_pop(c);

    if (object == NULL)
        object = q_cache_alloc_slow(c, &fault);
    check(object != NULL, "no object");
    *(volatile char *)object = 1;
    return object;
}

static void give_cached(struct q_cache *c, void *object)
{
    struct q_cache_fault fault = {.result = Q_CACHE_OK};

    if (!q_cache_push(c, object))
        q_cache_free_slow(c, object, &fault);
    check(fault.result == Q_CACHE_OK, "an object is not the cache's");
}

static void end_cache(struct q_cache *c)
{
    struct q_leaks leaks;

    check(q_cache_destroy(c, &leaks), "objects are left");
}

static void cached(struct shim *shim, size_t size)
{
    struct q_cache *c = make_cache(size);

    for (size_t n; (n = shim_next(shim));)
        while (n--)
            give_cached(c, take_cached(c));
    end_cache(c);
}

static void many_cached(struct shim *shim, size_t size)
{
    static void *some[OBJECTS];
    struct q_cache *c = make_cache(size);

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= OBJECTS) {
            for (int i = 0; i < OBJECTS; i++)
                some[i] = take_cached(c);
            for (int i = 0; i < OBJECTS; i++)
                give_cached(c, some[i]);
        }
    end_cache(c);
}

static void arena(struct shim *shim, size_t size)
{
    struct q_arena_how how = {.single = true};
    struct q_arena *a = q_arena_create(&how);
    struct q_arena_spot spot;

    check(a != NULL, "no heap");
    for (size_t n; (n = shim_next(shim));)
        while (n--) {
            void *object = q_arena_alloc(a, size, 16, false);

            check(object != NULL, "no object");
            *(volatile char *)object = 1;
            q_arena_look(object, &spot);
            q_arena_free(a, object, &spot);
        }
    q_arena_destroy(a);
}

static void arenas(struct shim *shim, size_t blocks)
{
    struct q_arena_how how = {.single = true};

    for (size_t n; (n = shim_next(shim));)
        for (; n; n -= blocks) {
            struct q_arena *a = q_arena_create(&how);

            check(a != NULL, "no heap");
            for (size_t i = 0; i < blocks; i++) {
                void *object = q_arena_alloc(a, 16 + i * 193 % 512, 16, false);

                check(object != NULL, "no object");
                *(volatile char *)object = 1;
            }
            q_arena_destroy(a);
        }
}

void register_slab(void)
{
    static const size_t sizes[] = {16, 64, 1024, 16384, 0};

    each("object", object, sizes, 1);
    each("objects", objects, sizes, OBJECTS);
    each("cache", cached, sizes, 1);
    each("caches", many_cached, sizes, OBJECTS);
    each("arena", arena, sizes, 1);
    shim_register("arenas-50", arenas, 50, 50, 0);
    shim_register("arenas-10000", arenas, 10000, 10000, 0);
}
