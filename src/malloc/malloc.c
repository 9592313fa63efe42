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

#include "quire/quire.h"

Q_INLINE void *pop_chain(struct q_heap *heap, unsigned cls)
{
    struct q_object *o = heap->chain[cls];

    if (q_likely(o != NULL))
        heap->chain[cls] = o->next;
    return o;
}

static Q_NOINLINE void *malloc_refill(size_t n)
{
    void *p = q_slub_alloc(q_class_of(n));

    return q_likely(p != NULL) ? p : q_enomem();
}

/* Sizes above the table. */
static Q_NOINLINE void *malloc_large(size_t n)
{
    if (q_likely(n <= Q_SMALL_MAX)) {
        void *p = pop_chain(q_heap, q_class_of(n));
        return q_likely(p != NULL) ? p : malloc_refill(n);
    }
    return q_alloc(n, 16, false);
}

Q_INLINE void *malloc_fast(size_t n)
{
    struct q_heap *heap = q_heap;

    if (q_unlikely(n > Q_TABLE_MAX))
        return malloc_large(n);
    void *p = pop_chain(heap, heap->class_of[n]);
    return q_likely(p != NULL) ? p : malloc_refill(n);
}

Q_PUBLIC void *malloc(size_t n)
{
    return malloc_fast(n);
}

static Q_NOINLINE void free_slow(void *p)
{
    q_free_slow(p, "free");
}

Q_PUBLIC void free(void *p)
{
    struct q_slab *s = q_slab_guess(p);
    struct q_object *o = p;
    int64_t key;

    if (q_unlikely(!q_slab_mine(s, p, &key)) || q_unlikely(o->key == (uint64_t)key)) {
        free_slow(p);
        return;
    }
    o->next = s->freelist;
    o->key = (uint64_t)key;
    s->freelist = o;
    if (q_unlikely(--s->used == 0))
        q_slub_countdown(s);
}

/* Clear n bytes, rounded up to 16: the object has room. Up to 256 bytes without a call. */
Q_INLINE void *clear_small(void *p, size_t n)
{
    typedef long long vec __attribute__((vector_size(16), may_alias));
    vec *at = p, zero = {0, 0};

    if (n > 256)
        return memset(p, 0, n);
    for (vec *end = (vec *)((char *)p + ((n + 15) & ~(size_t)15)); at < end; at++)
        *at = zero;
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
    struct q_heap *heap = q_heap;
    size_t n;

    if (q_unlikely(__builtin_mul_overflow(nr, size, &n)))
        return q_enomem();
    if (q_unlikely(n > Q_TABLE_MAX))
        return calloc_slow(n);
    void *p = pop_chain(heap, heap->class_of[n]);
    if (q_unlikely(p == NULL))
        return calloc_slow(n);
    return clear_small(p, n);
}

Q_PUBLIC void *realloc(void *p, size_t n)
{
    struct q_slab *s = q_slab_guess(p);
    int64_t key;

    if (q_likely(p != NULL) && q_likely(q_slab_mine(s, p, &key)) &&
        q_likely(((struct q_object *)p)->key != (uint64_t)key)) {
        size_t have = q_slab_class(s)->size;

        /* Stay where it fits and does not leave more than half unused. */
        if (n <= have && n > have / 2)
            return p;
    }
    return q_realloc_slow(p, n, "realloc");
}
