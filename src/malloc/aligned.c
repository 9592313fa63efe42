/* aligned.c - allocation with alignment, sizes of objects, and freeing with a size. */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "malloc/malloc.h"
#include "malloc/reserve.h"
#include "quire/quire.h"

static bool power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* memalign(3) takes any alignment and rounds it up. */
static void *alloc_rounded(size_t align, size_t n)
{
    if (align > SIZE_MAX / 2 + 1) {
        errno = EINVAL;
        return NULL;
    }
    if (align > Q_REQUEST_MAX)
        return q_enomem();
    align = (size_t)1 << q_ceil_log2(q_max(align, 16));
    return q_alloc(n, align, false);
}

Q_PUBLIC void *memalign(size_t align, size_t n)
{
    return alloc_rounded(align, n);
}

Q_PUBLIC void *aligned_alloc(size_t align, size_t n)
{
    if (!power_of_two(align)) {
        errno = EINVAL;
        return NULL;
    }
    return alloc_rounded(align, n);
}

Q_PUBLIC int posix_memalign(void **out, size_t align, size_t n)
{
    int saved = errno;

    if (!power_of_two(align) || align % sizeof(void *) != 0)
        return EINVAL;
    void *p = alloc_rounded(align, n);
    errno = saved; /* POSIX returns the error instead */
    if (p == NULL)
        return ENOMEM;
    *out = p;
    return 0;
}

Q_PUBLIC void *valloc(size_t n)
{
    q_slub_init();
    return alloc_rounded(q_page_size(), n);
}

Q_PUBLIC void *pvalloc(size_t n)
{
    q_slub_init();
    if (n > Q_REQUEST_MAX)
        return q_enomem();
    return alloc_rounded(q_page_size(), q_align_up(n, q_page_size()));
}

Q_PUBLIC void *reallocarray(void *p, size_t nr, size_t size)
{
    size_t n;

    if (__builtin_mul_overflow(nr, size, &n))
        return q_enomem();
    return realloc(p, n);
}

Q_PUBLIC size_t malloc_usable_size(void *p)
{
    const struct q_slab *s = q_slab_guess(p);
    int64_t key;

    if (p == NULL)
        return 0;
    if (q_likely(q_slab_mine(s, p, &key)) && q_likely(((struct q_object *)p)->key != (uint64_t)key))
        return q_slab_class(s)->size;
    return q_usable(p, "malloc_usable_size");
}

/*
 * The size must be one that could have produced this object: not more than
 * it holds, and not so little that another class or fewer pages would have
 * been chosen. (realloc leaves an object where it is down to half its size,
 * and as it was where there is no memory for a smaller one.)
 */
static bool may_be_size(const void *p, size_t n, size_t have)
{
    if (n > have)
        return false;
    if (q_reserve_size(p) != 0 || __atomic_load_n(&q_shrink_failed, __ATOMIC_RELAXED))
        return true;
    return have <= Q_SMALL_MAX ? have <= 32 || n > have / 2 : q_align_up(n, q_page_size()) == have;
}

Q_PUBLIC void free_sized(void *p, size_t n)
{
    if (p == NULL)
        return;
    size_t have = q_usable(p, "free_sized");
    if (have == 0) {
        /* A large block, whose length cannot be asked for: free() leaves it to others as well. */
        if (q_interrupted())
            q_free_slow(p, "free_sized");
        return;
    }
    if (!may_be_size(p, n, have)) {
        q_misuse_size("free_sized", p, n, have);
        return;
    }
    q_free_slow(p, "free_sized");
}

Q_PUBLIC void free_aligned_sized(void *p, size_t align, size_t n)
{
    if (p == NULL)
        return;
    size_t have = q_usable(p, "free_aligned_sized");
    if (have == 0) {
        if (q_interrupted())
            q_free_slow(p, "free_aligned_sized");
        return;
    }
    if (n > have) {
        q_misuse_size("free_aligned_sized", p, n, have);
        return;
    }
    q_free_slow(p, "free_aligned_sized");
}

/* Removed from glibc's headers, not from old programs. */
Q_PUBLIC void cfree(void *p);
Q_PUBLIC void cfree(void *p)
{
    free(p);
}

Q_PUBLIC int quire_owns(const void *p)
{
    return q_size_of(p) != 0;
}
