/*
 * wrong.c - wrong use of object caches, pools and heaps: each is answered by one line that names the function and
 * what the object is, and by abort(); or, with misuse:report, by the line alone, and nothing else is
 * harmed.
 */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/heap.h"
#include "quire/mempool.h"
#include "quire/page.h"
#include "quire/quire.h"
#include "quire/slab.h"

static struct quire_cache *cache, *other, *checked, *large, *gone;
static char *one, *two, *neighbour; /* live objects of cache, of other */

static bool reporting(void)
{
    const char *conf = getenv("QUIRE_CONF");

    return conf != NULL && strstr(conf, "misuse:report") != NULL;
}

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

/* Heaps. */
static struct quire_heap *heap, *heap2, *lone, *ended;
static char *mine, *theirs, *big, *huge; /* live blocks of heap, of heap2, of heap */

static void heap_twice(void)
{
    quire_heap_free(heap, mine);
    quire_heap_free(heap, mine);
}

static void heap_interior(void)
{
    quire_heap_free(heap, mine + 16);
}

static void heap_odd(void)
{
    quire_heap_free(heap, mine + 3);
}

static void heap_other(void)
{
    quire_heap_free(heap, theirs);
}

static void heap_other_size(void)
{
    quire_heap_usable_size(heap, theirs);
}

static void heap_mallocs(void)
{
    quire_heap_free(heap, malloc(100));
}

static void heap_foreign(void)
{
    quire_heap_free(heap, &heap);
}

static long far_off;

static void heap_far(void)
{
    quire_heap_free(heap, mine + far_off);
}

static void heap_objects(void)
{
    quire_heap_free(heap, two);
}

static void heap_big_interior(void)
{
    quire_heap_free(heap, big + 65536);
}

static void heap_big_twice(void)
{
    quire_heap_free(heap, big);
    quire_heap_free(heap, big);
}

static void heap_huge_twice(void)
{
    quire_heap_free(heap, huge);
    quire_heap_free(heap, huge);
}

static void heap_plain_free(void)
{
    free(mine);
}

static void heap_plain_free_big(void)
{
    free(big);
}

static void heap_plain_free_huge(void)
{
    free(huge);
}

static void heap_plain_realloc(void)
{
    free(realloc(mine, 1000));
}

static void heap_put_page(void)
{
    quire_put_page(quire_virt_to_page(mine));
}

static void heap_into_cache(void)
{
    quire_cache_free(cache, mine);
}

static void *use_lone(void *unused)
{
    return quire_heap_alloc(lone, 10);
}

static void heap_of_another_thread(void)
{
    pthread_t t;

    if (pthread_create(&t, NULL, use_lone, NULL) == 0)
        pthread_join(t, NULL);
}

static void heap_destroyed(void)
{
    quire_heap_alloc(ended, 10);
}

static void heap_destroyed_twice(void)
{
    quire_heap_destroy(ended);
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

static const struct wrong {
    const char *name, *function, *says;
    void (*run)(void);
} wrongs[] = {
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
    {"heap: twice", "quire_heap_free(0x", "already free", heap_twice},
    {"heap: interior", "quire_heap_free(0x", "inside a block of size 208 of heap 0x",
     heap_interior},
    {"heap: odd address", "quire_heap_free(0x", "inside a block of size 208 of heap 0x", heap_odd},
    {"heap: another's", "quire_heap_free(0x", "a live block of size 208 of heap 0x", heap_other},
    {"heap: size of another's", "quire_heap_usable_size(0x", "a live block of size 208",
     heap_other_size},
    {"heap: malloc's", "quire_heap_free(0x", "no block of any heap begins here", heap_mallocs},
    {"heap: foreign", "quire_heap_free(0x", "no block of any heap begins here", heap_foreign},
    {"heap: an object", "quire_heap_free(0x", "no block of any heap begins here", heap_objects},
    {"heap: inside a run", "quire_heap_free(0x", "no block of any heap begins here",
     heap_big_interior},
    {"heap: a run twice", "quire_heap_free(0x", "no block of any heap begins here", heap_big_twice},
    {"heap: a mapping twice", "quire_heap_free(0x", "no block of any heap begins here",
     heap_huge_twice},
    {"heap: free()", "free(0x", "a live block of size 208 of heap 0x", heap_plain_free},
    {"heap: free() of a run", "free(0x", "a live block of size 2", heap_plain_free_big},
    {"heap: free() of a mapping", "free(0x", "inside a live object", heap_plain_free_huge},
    {"heap: realloc()", "realloc(0x", "a live block of size 208 of heap 0x", heap_plain_realloc},
    {"heap: put of its page", "quire_put_page(0x", "of heap 0x", heap_put_page},
    {"heap: into a cache", "quire_cache_free(\"wrong\", ", "not an object of any cache",
     heap_into_cache},
    {"heap: another thread's", "quire_heap_alloc(0x", "the heap has another owner",
     heap_of_another_thread},
    {"heap: destroyed", "quire_heap_alloc(0x", "not a heap, or one that was destroyed",
     heap_destroyed},
    {"heap: destroyed twice", "quire_heap_destroy(0x", "not a heap, or one that was destroyed",
     heap_destroyed_twice},
    {"pool: twice", "quire_mempool_free(0x", "already free", pool_twice},
    {"pool: more than it gave", "quire_mempool_free(0x", "more elements than the pool gave",
     pool_too_many},
    {"pool: destroyed", "quire_mempool_free(0x", "not a pool, or one that was destroyed",
     pool_destroyed},
};

static void prepare(void)
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

/* Nothing but what was done wrong has changed. */
static bool unharmed(void)
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

static void run_one(const struct wrong *w)
{
    char text[2000];
    int fd[2], status;
    ssize_t n = 0, got;

    REQUIRE(pipe(fd) == 0);
    int pid = fork();
    if (pid == 0) {
        dup2(fd[1], 2);
        w->run();
        _exit(unharmed() && heaps_unharmed() ? 0 : 9);
    }
    close(fd[1]);
    while ((got = read(fd[0], text + n, sizeof(text) - 1 - (size_t)n)) > 0)
        n += got;
    close(fd[0]);
    text[n] = '\0';
    REQUIRE(waitpid(pid, &status, 0) == pid);
    if (reporting())
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %#x", w->name, status);
    else
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%s: status %#x", w->name,
              status);
    CHECK(strncmp(text, "quire: ", 7) == 0 && strstr(text, w->function) == text + 7 &&
              strstr(text, w->says) != NULL,
          "%s: said '%s'", w->name, text);
    CHECK(n > 0 && strchr(text, '\n') == text + n - 1, "%s: not one line: '%s'", w->name, text);
}

static void case_all(void)
{
    prepare();
    prepare_heaps();
    for (size_t i = 0; i < COUNT_OF(wrongs); i++)
        run_one(&wrongs[i]);
    CHECK(unharmed() && heaps_unharmed());
}

/* One of these shares its descriptor with a live block: whatever length the linear map has. */
static void case_far_addresses(void)
{
    static const struct wrong far = {"heap: far away", "quire_heap_free(0x",
                                     "no block of any heap begins here", heap_far};

    prepare();
    prepare_heaps();
    for (int bit = 33; bit < 47; bit++) {
        far_off = 1l << bit;
        run_one(&far);
        far_off = -far_off;
        run_one(&far);
    }
}

static const struct conform_case cases[] = {
    {"every wrong use is named", case_all, 120},
    {"addresses far away from heaps", case_far_addresses, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
