/*
 * wrong_heaps.c - wrong use of heaps: each is answered by one line that names the function and what
 * the block is (see ../conform/wrong.h).
 */
#include <pthread.h>
#include <stdlib.h>

#include "../conform/wrong.h"
#include "quire/page.h"
#include "victims.h"

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

static const struct wrong wrongs[] = {
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
};

static void case_all(void)
{
    prepare();
    wrongs_are_named(wrongs, COUNT_OF(wrongs), unharmed);
}

/* Farther than the heap reaches, and still a program's. */
#define FIRST_BIT (sizeof(long) > 4 ? 33 : 28)
#define LAST_BIT (sizeof(long) > 4 ? 47 : 31)

/* One of these shares its descriptor with a live block: whatever length the linear map has. */
static void case_far_addresses(void)
{
    static const struct wrong far = {"heap: far away", "quire_heap_free(0x",
                                     "no block of any heap begins here", heap_far};

    prepare();
    for (int bit = FIRST_BIT; bit < LAST_BIT; bit++) {
        far_off = 1l << bit;
        wrong_is_named(&far, unharmed);
        far_off = -far_off;
        wrong_is_named(&far, unharmed);
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
