/*
 * large.c - allocation by size and alignment, freeing with every check, and
 * realloc: everything behind the fast paths.
 */
#include "malloc/malloc.h"

#include <errno.h>
#include <string.h>

#include "base/msg.h"
#include "cow/map.h"
#include "malloc/reserve.h"
#include "malloc/shrink.h"
#include "slab/holes.h"
#include "zone/page_alloc.h"
#include "zone/page_ref.h"
#include "zone/vmalloc.h"

#define MAP_ON_GROWTH ((size_t)256 << 10)
#define RUN_GROWTH (2 * MAP_ON_GROWTH) /* where a run can grow in place; above it only by */
#define RUN_GROWTH_SHARE 8             /* a part of its length: by more it soon has to move */

bool q_shrink_failed;

void *q_enomem(void)
{
    errno = ENOMEM;
    return NULL;
}

static size_t pages_of(size_t n)
{
    return q_max(q_align_up(n, q_page_size()) >> q_page_shift, 1);
}

/* A run of pages at a multiple of align: a block of that order has it by nature. */
static void *alloc_run(size_t n, size_t align, bool zero)
{
    size_t nr = pages_of(n), least = align >> q_page_shift;
    q_gfp_t gfp = Q_GFP_MOVABLE | (zero ? Q_GFP_ZERO : 0) | (least <= 1 ? Q_GFP_ANYWHERE : 0);
    struct q_page *page = q_alloc_run_aligned(gfp, nr, q_ceil_log2(q_max(least, 1)));

    return page != NULL ? q_page_address(page) : NULL;
}

static void *alloc_mapping(size_t n, size_t align, bool zero)
{
    size_t dirty;
    void *p = q_vmalloc(n, align, &dirty);

    if (p != NULL && zero && dirty > 0)
        memset(p, 0, q_min(n, dirty));
    return p;
}

/* In a signal handler that interrupted the allocator. */
static void *alloc_interrupted(size_t n, size_t align, bool zero)
{
    void *p = q_reserve_alloc(n, align);

    if (p == NULL)
        return q_enomem();
    return zero ? memset(p, 0, n) : p;
}

Q_INLINE void *alloc_anywhere(size_t n, size_t align, bool zero)
{
    void *p;

    unsigned cls =
        align <= 16 && n <= Q_SMALL_MAX ? q_heap_class(q_heap, n) : q_class_aligned(n, align);
    if (cls < Q_NR_CLASSES) {
        p = q_slub_pop(cls);
        if (p != NULL && zero)
            memset(p, 0, n);
    } else {
        q_heap_get(); /* so that the thread's end is noticed from here on */
        p = q_max(n, align) <= q_max_block_size() ? alloc_run(n, align, zero) : NULL;
        if (p == NULL)
            p = alloc_mapping(n, align, zero);
    }
    return p;
}

Q_INLINE void *alloc_once(size_t n, size_t align, bool zero)
{
    q_enter();
    if (q_unlikely(q_heap == &q_heap_none))
        q_malloc_first();
    void *p = q_slub_init() ? alloc_anywhere(n, align, zero) : NULL;
    if (q_unlikely(q_any_postponed()))
        q_free_postponed();
    q_leave();
    return p;
}

/* It failed: again, as often as the program gives something up for it. */
static Q_COLD void *alloc_again(size_t n, size_t align, bool zero)
{
    unsigned tries = 0;
    void *p = NULL;

    while (p == NULL && q_memory_is_short(n, &tries))
        p = alloc_once(n, align, zero);
    return p != NULL ? p : q_enomem();
}

void *q_alloc(size_t n, size_t align, bool zero)
{
    if (q_unlikely(n > Q_REQUEST_MAX || align > Q_REQUEST_MAX))
        return q_enomem();
    if (q_interrupted())
        return alloc_interrupted(n, align, zero);
    void *p = alloc_once(n, align, zero);
    return q_likely(p != NULL) ? p : alloc_again(n, align, zero);
}

/* The head of malloc's run that begins exactly at p, or NULL. */
static struct q_page *run_at(const void *p)
{
    struct q_page *page = q_virt_to_page(p);

    if (page == NULL || q_page_type_of(page) != Q_PAGE_RUN || q_page_address(page) != p ||
        !q_page_is_plain(page))
        return NULL;
    return page;
}

void q_free_slow(void *p, const char *caller)
{
    int saved = errno;
    struct q_slab *s;
    struct q_page *run;
    bool ok = true;

    if (p == NULL)
        return;
    if (q_reserve_size(p) != 0) {
        q_reserve_free(p);
        return;
    }
    if (q_interrupted()) {
        q_free_later(p);
        return;
    }
    q_enter();
    if ((s = q_slab_of(p)) != NULL) {
        ok = q_slub_free(s, p) == Q_FREED;
    } else if ((run = run_at(p)) != NULL) {
        q_free_run(run);
    } else {
        ok = q_vfree(p) || q_mapped_free(p);
    }
    q_leave();
    if (!ok)
        q_misuse(caller, p);
    errno = saved;
}

/* Bytes usable at p; 0 where p is no live object. */
size_t q_size_of(const void *p)
{
    struct q_slab *s = q_slab_of(p);
    struct q_page *run;

    if (s != NULL) {
        size_t size = q_slab_class(s)->size, off = (size_t)((const char *)p - q_slab_start(s));
        uint32_t k = (uint32_t)(off / size);

        if (off % size != 0 || k >= s->carved)
            return 0;
        /* The key alone proves nothing, but without it there is nothing to look for. */
        bool suspect =
            q_slab_in_hole(s, off) || ((const struct q_object *)p)->key == q_slab_key(s, k);
        return suspect && q_slub_is_free(s, p) ? 0 : size;
    }
    if ((run = run_at(p)) != NULL)
        return (size_t)run->nr << q_page_shift;
    if (q_reserve_size(p) != 0)
        return q_reserve_size(p);
    if (q_interrupted())
        return 0; /* may be a large mapping, but its table is out of reach */
    q_enter();
    size_t size = q_vsize(p);
    q_leave();
    return size != 0 ? size : q_mapped_size(p);
}

size_t q_usable(const void *p, const char *caller)
{
    size_t size = q_size_of(p);

    if (q_unlikely(size == 0) && !q_interrupted())
        q_misuse(caller, p);
    return size;
}

/* Is a run that grows so far to become a mapping? */
static bool outgrows_runs(size_t have, size_t n)
{
    return n >= RUN_GROWTH && n > have + have / RUN_GROWTH_SHARE;
}

/*
 * Large blocks change their length where they are, or by moving page tables.
 * far: runs even if they should be mappings. NULL: copy instead.
 */
static void *resize_in_place(void *p, size_t n, bool far)
{
    struct q_page *run;

    if (n <= Q_SMALL_MAX)
        return NULL;
    if ((run = run_at(p)) != NULL) {
        size_t nr = pages_of(n);

        if (nr == run->nr)
            return p;
        if (nr < run->nr) {
            q_shrink_run(run, nr);
            return p;
        }
        if (!far && outgrows_runs((size_t)run->nr << q_page_shift, n))
            return NULL;
        return q_grow_run(run, nr) ? p : NULL;
    }
    return n >= MAP_ON_GROWTH / 2 ? q_vrealloc(p, n) : NULL;
}

/*
 * A new length without q_alloc(): where the block is, unless it is `fixed`; or
 * in a mapping of its own, since one that grew so far is likely to grow on,
 * and there that costs no copy and leaves nothing behind. *copy: it is to be
 * copied to what is returned. NULL: neither can be had.
 */
static void *resize(void *p, size_t have, size_t n, bool fixed, bool *copy)
{
    void *now = fixed ? NULL : resize_in_place(p, n, false);
    size_t dirty;

    *copy = now == NULL && n >= MAP_ON_GROWTH && n > have;
    if (*copy)
        now = q_vmalloc(n, 16, &dirty);
    if (now == NULL && !fixed) {
        now = resize_in_place(p, n, true);
        *copy = false;
    }
    return now;
}

void *q_realloc_slow(void *p, size_t n, const char *caller)
{
    if (p == NULL)
        return q_alloc(n, 16, false);
    if (n == 0) {
        q_free_slow(p, caller);
        return NULL;
    }
    size_t have = q_usable(p, caller);
    if (have == 0 || n > Q_REQUEST_MAX)
        return q_enomem();
    /* What cannot change its length where it is. */
    bool fixed = q_slab_of(p) != NULL || q_reserve_size(p) != 0 || q_mapped_holds(p), copy;
    if (fixed && n <= have && (n > have / 2 || have <= 32))
        return p;
    void *now = NULL;
    int saved = errno;
    if (!q_interrupted()) {
        q_enter();
        now = resize(p, have, n, fixed, &copy);
        q_leave();
        if (now != NULL && !copy)
            return now;
    }
    if (now == NULL)
        now = q_alloc(n, 16, false);
    if (now == NULL) {
        if (n > have)
            return NULL;
        errno = saved;
        __atomic_store_n(&q_shrink_failed, true, __ATOMIC_RELAXED);
        return p; /* shrinking never fails */
    }
    memcpy(now, p, q_min(have, n));
    q_free_slow(p, caller);
    return now;
}
