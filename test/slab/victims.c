/* victims.c - see victims.h. */
#include "victims.h"

#include <string.h>

struct quire_cache *cache, *other, *checked, *large, *gone;
char *one, *two, *neighbour;
struct quire_heap *heap, *heap2, *lone, *ended;
char *mine, *theirs, *big, *huge;

static void prepare_caches(void)
{
    cache = quire_cache_create("wrong", 96, 0, 0, NULL);
    other = quire_cache_create("other", 96, 0, 0, NULL);
    large = quire_cache_create("large", 100000, 0, 0, NULL);
    checked =
        quire_cache_create("checked", 100, 0, QUIRE_CACHE_RED_ZONE | QUIRE_CACHE_POISON, NULL);
    gone = quire_cache_create("gone", 96, 0, 0, NULL);
    REQUIRE(cache != NULL && other != NULL && large != NULL && checked != NULL && gone != NULL);
    one = quire_cache_alloc(cache);
    two = quire_cache_alloc(cache);
    neighbour = quire_cache_alloc(other);
    quire_cache_free(gone, quire_cache_alloc(gone));
    REQUIRE(one != NULL && two != NULL && neighbour != NULL && quire_cache_destroy(gone) == 0);
    conform_fill(two, 96, 3);
    conform_fill(neighbour, 96, 4);
}

static void prepare_heaps(void)
{
    heap = quire_heap_create(NULL);
    heap2 = quire_heap_create(NULL);
    ended = quire_heap_create(NULL);
    lone = quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SINGLE});
    REQUIRE(heap != NULL && heap2 != NULL && ended != NULL && lone != NULL);
    mine = quire_heap_alloc(heap, 200);
    big = quire_heap_alloc(heap, 200000);
    huge = quire_heap_alloc(heap, 20u << 20);
    theirs = quire_heap_alloc(heap2, 200);
    REQUIRE(mine != NULL && big != NULL && huge != NULL && theirs != NULL);
    conform_fill(theirs, 200, 5);
    quire_heap_destroy(ended);
}

void prepare(void)
{
    prepare_caches();
    prepare_heaps();
}

static bool caches_unharmed(void)
{
    void *p[500];
    struct quire_cache_stat st;

    if (quire_cache_alloc_bulk(cache, 500, p) != 1)
        return false;
    for (int i = 0; i < 500; i++)
        for (int j = 0; j < i; j++)
            if (p[i] == p[j] || p[i] == two)
                return false;
    quire_cache_free_bulk(cache, 500, p);
    quire_cache_stat(cache, &st);
    return conform_intact(two, 96, 3) && conform_intact(neighbour, 96, 4) &&
           quire_cache_owns(cache, two) && quire_cache_owns(other, neighbour) &&
           (st.live == 1 || st.live == 2);
}

static bool heaps_unharmed(void)
{
    struct quire_heap_stat st;
    char *p[300];

    for (int i = 0; i < 300; i++) {
        if ((p[i] = quire_heap_alloc(heap, 200)) == NULL || p[i] == p[i > 0 ? i - 1 : 1])
            return false;
        memset(p[i], i, 200);
    }
    for (int i = 0; i < 300; i++) {
        if (p[i][0] != (char)i || p[i][199] != (char)i)
            return false;
        quire_heap_free(heap, p[i]);
    }
    quire_heap_stat(heap, &st);
    return (st.live == 3 || st.live == 2) && conform_intact(theirs, 200, 5) &&
           quire_heap_of(theirs) == heap2;
}

bool unharmed(void)
{
    return caches_unharmed() && heaps_unharmed();
}
