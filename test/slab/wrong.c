/*
 * wrong.c - wrong use of object caches and pools: each is answered by one line that names the
 * function and what the object is (see ../conform/wrong.h). That of heaps is in wrong_heaps.c.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>

#include "../conform/wrong.h"
#include "quire/mempool.h"
#include "quire/page.h"
#include "victims.h"

static void twice(void)
{
    quire_cache_free(cache, one);
    quire_cache_free(cache, one);
}

static void twice_with_others_between(void)
{
    void *p[300];

    quire_cache_alloc_bulk(cache, 300, p);
    quire_cache_free(cache, one);
    quire_cache_free_bulk(cache, 300, p);
    quire_cache_free(cache, one);
}

static void twice_in_bulk(void)
{
    void *p[2] = {one, one};

    quire_cache_free_bulk(cache, 2, p);
}

static void *free_it(void *p)
{
    quire_cache_free(cache, p);
    return NULL;
}

static void there_and_here(void)
{
    pthread_t t;

    if (pthread_create(&t, NULL, free_it, one) == 0)
        pthread_join(t, NULL);
    quire_cache_free(cache, one);
}

static void interior(void)
{
    quire_cache_free(cache, two + 8);
}

static void never_handed_out(void)
{
    quire_cache_free(cache, (char *)((uintptr_t)two & ~(uintptr_t)65535) + 600 * 96);
}

static void another_cache(void)
{
    quire_cache_free(cache, neighbour);
}

static void mallocs(void)
{
    quire_cache_free(cache, malloc(96));
}

static void foreign(void)
{
    quire_cache_free(cache, &cache);
}

static void pages(void)
{
    quire_cache_free(cache, quire_get_free_pages(0, 4));
}

static void mapping_of_pages(void)
{
    quire_cache_free(cache, malloc(3000000));
}

static void plain_free(void)
{
    free(two);
}

static void plain_free_inside(void)
{
    free(two + 16);
}

static void plain_realloc(void)
{
    free(realloc(two, 500));
}

static void usable_size(void)
{
    malloc_usable_size(two);
}

static void put_page(void)
{
    quire_put_page(quire_virt_to_page(two));
}

static void destroyed(void)
{
    quire_cache_alloc(gone);
}

static void free_into_destroyed(void)
{
    quire_cache_free(gone, two);
}

static void destroyed_twice(void)
{
    quire_cache_destroy(gone);
}

static void overrun(void)
{
    char *p = quire_cache_alloc(checked);

    p[100] = 7;
    quire_cache_free(checked, p);
}

static void underrun(void)
{
    char *p = quire_cache_alloc(checked);

    p[-1] = 7;
    quire_cache_free(checked, p);
}

static void write_after_free(void)
{
    char *p = quire_cache_alloc(checked);

    quire_cache_free(checked, p);
    p[40] = 7;
    quire_cache_alloc(checked);
}

static void checked_twice(void)
{
    char *p = quire_cache_alloc(checked);

    quire_cache_free(checked, p);
    quire_cache_free(checked, p);
}

static void large_interior(void)
{
    char *p = quire_cache_alloc(large);

    quire_cache_free(large, p + 70000);
}

static void *nothing(void *unused)
{
    static char elements[2][64];
    static int given;

    (void)unused;
    return given < 2 ? elements[given++] : NULL;
}

static void ignore(void *element, void *unused)
{
    (void)element;
    (void)unused;
}

static void pool_twice(void)
{
    struct quire_mempool *pool = quire_mempool_create(2, nothing, ignore, NULL);
    void *p = quire_mempool_alloc(pool, 0), *q = quire_mempool_alloc(pool, 0);

    if (q == NULL)
        return;
    quire_mempool_free(pool, p);
    quire_mempool_free(pool, p);
}

static void pool_too_many(void)
{
    struct quire_mempool *pool = quire_mempool_create(2, nothing, ignore, NULL);
    void *p = quire_mempool_alloc(pool, 0);

    quire_mempool_free(pool, p);
    quire_mempool_free(pool, p);
}

static void *refuse(void *cache_of_one)
{
    static int given;

    return given++ < 1 ? quire_cache_alloc(cache_of_one) : NULL;
}

static void pool_destroyed(void)
{
    struct quire_mempool *pool = quire_mempool_create(1, refuse, ignore, other);

    quire_mempool_destroy(pool);
    quire_mempool_free(pool, one);
}

static const struct wrong wrongs[] = {
    {"twice", "quire_cache_free(\"wrong\", ", "already free", twice},
    {"twice, others between", "quire_cache_free(\"wrong\", ", "already free",
     twice_with_others_between},
    {"twice in a bulk", "quire_cache_free_bulk(\"wrong\", ", "already free", twice_in_bulk},
    {"there and here", "quire_cache_free(\"wrong\", ", "already free", there_and_here},
    {"interior", "quire_cache_free(\"wrong\", ", "inside a live object of cache \"wrong\" at 0x",
     interior},
    {"never handed out", "quire_cache_free(\"wrong\", ", "never handed out", never_handed_out},
    {"another cache", "quire_cache_free(\"wrong\", ", "a live object of cache \"other\"",
     another_cache},
    {"malloc's", "quire_cache_free(\"wrong\", ", "not an object of any cache", mallocs},
    {"foreign", "quire_cache_free(\"wrong\", ", "not an object of any cache", foreign},
    {"pages", "quire_cache_free(\"wrong\", ", "not an object of any cache", pages},
    {"a run", "quire_cache_free(\"wrong\", ", "not an object of any cache", mapping_of_pages},
    {"free()", "free(0x", "a live object of cache \"wrong\"", plain_free},
    {"free() inside", "free(0x", "inside a live object of cache \"wrong\"", plain_free_inside},
    {"realloc()", "realloc(0x", "a live object of cache \"wrong\"", plain_realloc},
    {"malloc_usable_size()", "malloc_usable_size(0x", "a live object of cache \"wrong\"",
     usable_size},
    {"put of its page", "quire_put_page(0x", "of cache \"wrong\"", put_page},
    {"destroyed", "quire_cache_alloc(0x", "not a cache, or one that was destroyed", destroyed},
    {"free into a destroyed one", "quire_cache_free(0x", "not a cache, or one that was destroyed",
     free_into_destroyed},
    {"destroyed twice", "quire_cache_destroy(0x", "not a cache, or one that was destroyed",
     destroyed_twice},
    {"overrun", "quire_cache_free(\"checked\", ", "written outside the object, at offset 100",
     overrun},
    {"underrun", "quire_cache_free(\"checked\", ", "written outside the object, at offset -1",
     underrun},
    {"write after free", "quire_cache_alloc(\"checked\", ",
     "written while it was free, at offset 40", write_after_free},
    {"twice, checked", "quire_cache_free(\"checked\", ", "already free", checked_twice},
    {"interior of a large one", "quire_cache_free(\"large\", ",
     "inside a live object of cache \"large\" at 0x", large_interior},
    {"pool: twice", "quire_mempool_free(0x", "already free", pool_twice},
    {"pool: more than it gave", "quire_mempool_free(0x", "more elements than the pool gave",
     pool_too_many},
    {"pool: destroyed", "quire_mempool_free(0x", "not a pool, or one that was destroyed",
     pool_destroyed},
};

static void case_all(void)
{
    prepare();
    wrongs_are_named(wrongs, COUNT_OF(wrongs), unharmed);
}

static const struct conform_case cases[] = {
    {"every wrong use is named", case_all, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
