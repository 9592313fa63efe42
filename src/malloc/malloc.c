/*
 * malloc.c - malloc, free, calloc, realloc: the fast paths.
 *
 * malloc pops an object off the thread's chain for the size; free pushes it
 * onto the freelist of its slab after the test that slab.h explains. Neither
 * writes anything shared. Everything rare (no heap yet, chain empty, not our
 * slab, wrong pointer) leaves by a tail call, so that these functions need
 * no stack frame. bench/golden holds their instruction counts.
 */
#include "malloc/malloc.h"

#include <stdlib.h>
#include <string.h>

#include "malloc/reserve.h"
#include "quire/quire.h"

/* The chain is empty, or the thread has no heap yet, whose table says nothing. */
static Q_NOINLINE void *malloc_refill(size_t n)
{
    struct q_heap *heap = q_heap;
    bool table = n <= Q_TABLE_MAX;
    void *p;

    if (q_interrupted()) {
        p = q_reserve_alloc(n, 16);
        return p != NULL ? p : q_enomem();
    }
    if (q_unlikely(heap == &q_heap_none)) {
        q_enter(); /* there is no heap yet whose `busy` could say so */
        q_malloc_first();
        p = q_slub_alloc(q_heap_class(heap, n));
        q_leave();
    } else {
        p = q_slub_alloc(table ? heap->class_of[n] : q_heap_class(heap, n));
    }
    if (q_unlikely(q_any_postponed()))
        q_free_postponed();
    return q_likely(p != NULL) ? p : q_enomem();
}

/* Sizes above the table. */
static Q_NOINLINE void *malloc_large(size_t n)
{
    if (q_unlikely(n > Q_SMALL_MAX))
        return q_alloc(n, 16, false);
    struct q_heap *heap = q_heap;
    struct q_object **chain = &heap->chain[q_heap_class(heap, n)], *o = *chain;
    if (q_unlikely(o == NULL))
        return malloc_refill(n);
    *chain = o->next;
    return o;
}

Q_INLINE void *malloc_fast(size_t n)
{
    struct q_heap *heap = q_arch_not_returned(q_heap);

    if (q_unlikely(n > Q_TABLE_MAX))
        return malloc_large(n);
    struct q_object **chain = &heap->chain[heap->class_of[n]], *o = *chain;
    if (q_unlikely(o == NULL))
        return malloc_refill(n);
    *chain = o->next;
    return o;
}

Q_PUBLIC void *malloc(size_t n)
{
    return malloc_fast(n);
}

static Q_NOINLINE void free_slow(void *p)
{
    q_free_slow(p, "free");
}

Q_INLINE void free_mine(struct q_slab *s, void *p, int64_t key)
{
    struct q_object *o = p;

    o->next = s->freelist;
    o->key = (uint64_t)key;
    s->freelist = o;
    if (q_unlikely(--s->used == 0))
        q_slub_countdown(s);
}

Q_PUBLIC void free(void *p)
{
    struct q_slab *s = q_slab_guess(p);
    int64_t key;

    if (q_unlikely(!q_slab_mine(s, p, &key)) ||
        q_unlikely(((struct q_object *)p)->key == (uint64_t)key)) {
        free_slow(p);
        return;
    }
    free_mine(s, p, key);
}

typedef long long q_vec __attribute__((vector_size(16), may_alias));

/*
 * Clear n bytes, rounded up to 16: the object has room. Up to 256 bytes
 * without a call, backwards so that one register counts and addresses.
 */
Q_INLINE void *clear_small(void *p, size_t n)
{
    q_vec zero = {0, 0};

    if (q_unlikely(n > 256))
        return memset(p, 0, n);
    ptrdiff_t at = (ptrdiff_t)((n - 1) & ~(size_t)15);
    do {
        *(q_vec *)((char *)p + at) = zero;
        at -= 16;
    } while (at >= 0);
    return p;
}

static Q_NOINLINE void *calloc_slow(size_t n)
{
    if (n > Q_SMALL_MAX)
        return q_alloc(n, 16, true);
    void *p = malloc_fast(n);
    return p != NULL ? memset(p, 0, n) : NULL;
}

Q_PUBLIC void *calloc(size_t nr, size_t size)
{
    struct q_heap *heap = q_arch_not_returned(q_heap);
    size_t n;

    if (q_unlikely(__builtin_mul_overflow(nr, size, &n)))
        return q_enomem();
    if (q_unlikely(n > Q_TABLE_MAX))
        return calloc_slow(n);
    struct q_object **chain = &heap->chain[heap->class_of[n]], *o = *chain;
    if (q_unlikely(o == NULL))
        return calloc_slow(n);
    *chain = o->next;
    return n != 0 ? clear_small(o, n) : o;
}

Q_PUBLIC void *realloc(void *p, size_t n)
{
    struct q_slab *s = q_slab_guess(p);
    int64_t key;

    if (q_likely(p != NULL) && q_likely(q_slab_mine(s, p, &key)) &&
        q_likely(((struct q_object *)p)->key != (uint64_t)key)) {
        size_t have = q_slab_class(s)->size;

        /* Stay where it fits and does not leave more than half unused. */
        if (n <= have && (n > have / 2 || (have <= 32 && n > 0)))
            return p;
        if (q_likely(n - 1 < Q_TABLE_MAX)) {
            void *now = malloc_fast(n);

            if (q_unlikely(now == NULL))
                return n <= have ? p : NULL;
            memcpy(now, p, q_min(have, n));
            free(p);
            return now;
        }
    }
    return q_realloc_slow(p, n, "realloc");
}
