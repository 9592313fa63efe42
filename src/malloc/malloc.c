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
#include "slab/refill.h"

/*
 * No short way: the thread has no heap yet (its tables say class 0 for every
 * size), or this is a signal handler inside the allocator, or the refill is
 * not the common one.
 */
static Q_NOINLINE void *malloc_slow(size_t n, size_t cls)
{
    struct q_heap *heap = q_heap;
    void *p;

    if (q_interrupted()) {
        p = q_reserve_alloc(n, 16);
        return p != NULL ? p : q_enomem();
    }
    if (q_unlikely(heap == &q_heap_none)) {
        q_enter(); /* there is no heap yet whose `busy` could say so */
        q_malloc_first();
        p = q_slub_alloc_slowly(q_heap_class(heap, n));
        q_leave();
    } else {
        p = q_slub_alloc_slowly((unsigned)cls);
    }
    if (q_unlikely(q_any_postponed()))
        q_free_postponed();
    /* Once more, with all that can be done before it fails. */
    return q_likely(p != NULL) ? p : q_alloc(n, 16, false);
}

/* The chain of class cls, which serves n bytes, is empty. */
static Q_NOINLINE void *malloc_refill(size_t n, size_t cls)
{
    void *p = q_likely(q_inside == 0) ? q_refill_quickly(q_heap, cls) : NULL;

    return q_likely(p != NULL) ? p : malloc_slow(n, cls);
}

/* Sizes above the larger table. */
static Q_NOINLINE void *malloc_large(size_t n)
{
    return q_alloc(n, 16, false);
}

/* The class that serves n bytes; n - 1 < Q_SMALL_MAX or n == 0. */
Q_INLINE size_t class_by_step(const struct q_heap *heap, size_t n)
{
    return heap->class_of_step[(n - 1) >> Q_TABLE_STEP_SHIFT];
}

Q_INLINE void *malloc_fast(size_t n)
{
    struct q_heap *heap = q_arch_not_returned(q_heap);
    size_t cls;

    if (q_unlikely(n > Q_TABLE_MAX)) {
        if (q_unlikely(n > Q_SMALL_MAX))
            return malloc_large(n);
        cls = class_by_step(heap, n);
    } else {
        cls = heap->class_of[n];
    }
    struct q_object **chain = &heap->chain[cls], *o = *chain;
    if (q_unlikely(o == NULL))
        return malloc_refill(n, cls);
    *chain = o->next;
    return o;
}

/* An object for n bytes, up to Q_SMALL_MAX, or NULL where that is rare work; errno stays as it is. */
Q_INLINE void *malloc_quietly(size_t n)
{
    struct q_heap *heap = q_arch_not_returned(q_heap);
    size_t cls = n > Q_TABLE_MAX ? class_by_step(heap, n) : heap->class_of[n];
    struct q_object **chain = &heap->chain[cls], *o = *chain;

    if (q_unlikely(o == NULL))
        return q_likely(!q_interrupted()) ? q_slub_alloc((unsigned)cls) : NULL;
    *chain = o->next;
    return o;
}

Q_PUBLIC void *malloc(size_t n)
{
    return malloc_fast(n);
}

static Q_NOINLINE void free_slow(void *p)
{
    if (q_unlikely(q_inside > 0) || !q_slub_free_quickly(q_heap, p))
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

typedef long long q_vec __attribute__((vector_size(16), may_alias, aligned(1)));

Q_INLINE void clear_16(char *p)
{
    *(q_vec *)p = (q_vec){0, 0};
}

Q_INLINE void clear_64(char *p)
{
    for (int i = 0; i < 64; i += 16)
        clear_16(p + i);
}

/*
 * Clear n bytes, at least 16: every object has as many. From both ends, so
 * that a few comparisons do for all lengths.
 */
Q_INLINE void *clear_small(void *object, size_t n)
{
    char *p = object, *end = p + n;

    if (n <= 16) {
        clear_16(p);
    } else if (n <= 32) {
        clear_16(p);
        clear_16(end - 16);
    } else if (n <= 64) {
        clear_16(p);
        clear_16(p + 16);
        clear_16(end - 32);
        clear_16(end - 16);
    } else if (n <= 128) {
        clear_64(p);
        clear_64(end - 64);
    } else {
        return memset(p, 0, n);
    }
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
    return clear_small(o, n);
}

Q_PUBLIC void *realloc(void *p, size_t n)
{
    struct q_slab *s = q_slab_guess(p);
    int64_t key;

    /* Some programs know no other way to allocate. */
    if (q_unlikely(p == NULL))
        return malloc_fast(n);
    if (q_likely(q_slab_mine(s, p, &key)) &&
        q_likely(((struct q_object *)p)->key != (uint64_t)key)) {
        size_t have = q_slab_class(s)->size;

        /* Stay where it fits and does not leave more than half unused. */
        if (n <= have && (n > have / 2 || (have <= 32 && n > 0)))
            return p;
        void *now = n - 1 < Q_SMALL_MAX ? malloc_quietly(n) : NULL;
        if (q_likely(now != NULL)) {
            memcpy(now, p, q_min(have, n));
            free(p);
            return now;
        }
    }
    return q_realloc_slow(p, n, "realloc");
}
