/* heaps.c - the functions of quire/heap.h over src/slab/arena.h: arguments, errno, complaints. */
#include "malloc/heaps.h"

#include <errno.h>
#include <string.h>

#include "cow/sigbus.h"
#include "malloc/enter.h"
#include "malloc/shrink.h"
#include "numa/topology.h"
#include "quire/heap.h"
#include "zone/special.h"

#define ALL_FLAGS (QUIRE_HEAP_SINGLE | QUIRE_HEAP_NODE | QUIRE_HEAP_BIND | QUIRE_HEAP_SIGBUS)

static struct q_arena *inner(const struct quire_heap *heap)
{
    return (struct q_arena *)(uintptr_t)heap;
}

static bool fail(int error)
{
    errno = error;
    return false;
}

static void complain(const char *caller, const struct q_arena *a, const void *p, const char *what)
{
    char text[300];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "%s(%p, %p): ", caller, (const void *)a, p);
    if (what != NULL)
        q_buf_printf(&b, "%s", what);
    else
        q_describe_heap(&b, p);
    q_complain(text);
}

static bool begin(void)
{
    int error = q_call_begin();

    return error == 0 || fail(error);
}

static Q_NOINLINE bool refuse(const char *caller, const struct q_arena *a, const void *p)
{
    if (q_arena_valid(a) && q_interrupted())
        return fail(EAGAIN);
    complain(caller, a, p,
             q_arena_valid(a) ? "the heap has another owner"
                              : "not a heap, or one that was destroyed");
    return fail(EINVAL);
}

/* The same for a heap, which is locked then. That it exists says that all is set up. */
Q_INLINE bool begin_with(const char *caller, struct q_arena *a, const void *p)
{
    if (q_unlikely(!q_arena_valid(a)) || q_unlikely(a->single && a->owner != q_thread_pointer()) ||
        q_interrupted())
        return refuse(caller, a, p);
    q_enter();
    q_arena_enter(a);
    return true;
}

Q_INLINE void end_with(struct q_arena *a)
{
    q_arena_leave(a);
    q_call_end();
}

/* --- heaps ----------------------------------------------------------------------------------- */

/* 0 or an errno. */
static int read_attr(const struct quire_heap_attr *attr, struct q_arena_how *how)
{
    unsigned nid = 0;

    how->policy = q_mempolicy;
    if (attr == NULL)
        return 0;
    how->single = (attr->flags & QUIRE_HEAP_SINGLE) != 0;
    how->limit = attr->limit;
    if (attr->gfp != 0)
        how->special = 1 + (attr->gfp == QUIRE_GFP_DMA32 ? Q_SPECIAL_DMA32 : Q_SPECIAL_DMA);
    if ((attr->flags & ~ALL_FLAGS) != 0 ||
        (attr->gfp != 0 && attr->gfp != QUIRE_GFP_DMA32 && attr->gfp != QUIRE_GFP_DMA) ||
        (attr->gfp != 0 && (attr->flags & (QUIRE_HEAP_NODE | QUIRE_HEAP_SIGBUS)) != 0) ||
        (attr->flags & (QUIRE_HEAP_NODE | QUIRE_HEAP_BIND)) == QUIRE_HEAP_BIND)
        return EINVAL;
    if ((attr->flags & QUIRE_HEAP_NODE) == 0)
        return 0;
    while (nid < q_topology.nr_nodes && q_topology.kernel_id[nid] != attr->node)
        nid++;
    if (nid == q_topology.nr_nodes)
        return ENXIO;
    how->policy = q_mempolicy_of_nid(nid);
    if (attr->flags & QUIRE_HEAP_BIND)
        how->policy.mode = Q_MPOL_BIND;
    return 0;
}

Q_PUBLIC struct quire_heap *quire_heap_create(const struct quire_heap_attr *attr)
{
    struct q_arena_how how = {0};
    struct q_arena *a = NULL;
    unsigned tries = 0;
    int error;

    do {
        if (!begin())
            return NULL;
        error = read_attr(attr, &how);
        if (error == 0) {
            if (attr != NULL && (attr->flags & QUIRE_HEAP_SIGBUS) != 0)
                how.sigbus = q_bus_start();
            a = q_arena_create(&how);
            error = a == NULL ? ENOMEM : 0;
        }
        q_call_end();
    } while (error == ENOMEM && q_memory_is_short(sizeof(*a), &tries));
    if (error != 0)
        fail(error);
    return (struct quire_heap *)a;
}

Q_PUBLIC void quire_heap_destroy(struct quire_heap *heap)
{
    struct q_arena *a = inner(heap);
    int saved = errno;

    if (heap != NULL && begin_with("quire_heap_destroy", a, NULL)) {
        q_arena_leave(a); /* nobody else uses it */
        q_arena_destroy(a);
        q_call_end();
    }
    errno = saved;
}

Q_PUBLIC void quire_heap_reset(struct quire_heap *heap)
{
    int saved = errno;

    if (begin_with("quire_heap_reset", inner(heap), NULL)) {
        q_arena_reset(inner(heap));
        end_with(inner(heap));
    }
    errno = saved;
}

Q_PUBLIC void quire_heap_own(struct quire_heap *heap)
{
    if (q_arena_valid(inner(heap)))
        inner(heap)->owner = q_thread_pointer();
    else
        complain("quire_heap_own", inner(heap), NULL, "not a heap, or one that was destroyed");
}

/* --- blocks ---------------------------------------------------------------------------------- */

/* Whether the allocation that has just failed may do better with more memory; a is locked. */
static bool starved(struct q_arena *a)
{
    bool is = a->starved;

    a->starved = false;
    return is;
}

/* How much memory n bytes want: a chunk, or a block of their own. */
static size_t wants(size_t n, size_t align)
{
    return q_max(n, align) <= Q_SMALL_MAX ? Q_SLAB_SIZE : n;
}

/*
 * It failed, and a is still locked: again, as often as the program gives something up for it. Who
 * called is not passed on, which would cost the fast path: only a callback can make a heap invalid
 * or another's meanwhile.
 */
static Q_COLD void *alloc_again(struct q_arena *a, size_t n, size_t align, bool zero)
{
    bool more = starved(a);
    unsigned tries = 0;
    void *p = NULL;

    end_with(a);
    while (p == NULL && more && q_memory_is_short(wants(n, align), &tries)) {
        if (!begin_with("quire_heap_alloc", a, NULL))
            return NULL;
        p = q_arena_alloc(a, n, align, zero);
        more = p == NULL && starved(a);
        end_with(a);
    }
    return p != NULL ? p : q_enomem();
}

static void *alloc(const char *caller, struct q_arena *a, size_t n, size_t align, bool zero)
{
    if (q_unlikely(n > Q_REQUEST_MAX || align > Q_REQUEST_MAX))
        return q_enomem();
    if (!begin_with(caller, a, NULL))
        return NULL;
    void *p = q_arena_alloc(a, n, align, zero);
    if (q_unlikely(p == NULL))
        return alloc_again(a, n, align, zero);
    end_with(a);
    return p;
}

Q_PUBLIC void *quire_heap_alloc(struct quire_heap *heap, size_t size)
{
    return alloc("quire_heap_alloc", inner(heap), size, 16, false);
}

Q_PUBLIC void *quire_heap_calloc(struct quire_heap *heap, size_t nr, size_t size)
{
    size_t n;

    if (q_unlikely(__builtin_mul_overflow(nr, size, &n)))
        return q_enomem();
    return alloc("quire_heap_calloc", inner(heap), n, 16, true);
}

Q_PUBLIC void *quire_heap_aligned(struct quire_heap *heap, size_t align, size_t size)
{
    if (align == 0 || (align & (align - 1)) != 0) {
        fail(EINVAL);
        return NULL;
    }
    return alloc("quire_heap_aligned", inner(heap), size, q_max(align, 16), false);
}

Q_PUBLIC char *quire_heap_strdup(struct quire_heap *heap, const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = alloc("quire_heap_strdup", inner(heap), n, 16, false);

    return copy != NULL ? memcpy(copy, text, n) : NULL;
}

/* Find the live block of a, which is locked, at p; false, and nothing is locked, after complaining. */
static bool look(const char *caller, struct q_arena *a, const void *p, struct q_arena_spot *spot)
{
    q_arena_look(p, spot);
    if (q_likely(spot->what == Q_ARENA_LIVE && spot->arena == a))
        return true;
    end_with(a);
    complain(caller, a, p, NULL);
    return fail(EINVAL);
}

static bool begin_with_block(const char *caller, struct q_arena *a, const void *p,
                             struct q_arena_spot *spot)
{
    return begin_with(caller, a, p) && look(caller, a, p, spot);
}

Q_PUBLIC void quire_heap_free(struct quire_heap *heap, void *block)
{
    static const char caller[] = "quire_heap_free";
    struct q_arena *a = inner(heap);
    struct q_arena_spot spot;
    int saved = errno;

    if (block == NULL || !begin_with(caller, a, block))
        return;
    if (q_unlikely(!q_arena_free_quickly(a, block))) {
        if (!look(caller, a, block, &spot))
            return;
        q_arena_free(a, block, &spot);
    }
    end_with(a);
    errno = saved;
}

/* One try; NULL with errno set, or for a size of 0. *more: it may do better with more memory. */
static void *resize(const char *caller, struct q_arena *a, void *block, size_t size, bool *more)
{
    struct q_arena_spot spot;
    void *now = block;

    *more = false;
    if (!begin_with_block(caller, a, block, &spot))
        return NULL;
    if (size == 0) {
        q_arena_free(a, block, &spot);
        now = NULL;
    } else if (!q_arena_resize(a, &now, size, &spot)) {
        now = q_arena_alloc(a, size, 16, false);
        if (now != NULL) {
            memcpy(now, block, q_min(size, spot.bytes));
            q_arena_free(a, block, &spot);
        } else {
            *more = starved(a) && size > spot.bytes;
            now = size <= spot.bytes ? block : q_enomem(); /* shrinking never fails */
        }
    }
    end_with(a);
    return now;
}

Q_PUBLIC void *quire_heap_realloc(struct quire_heap *heap, void *block, size_t size)
{
    static const char caller[] = "quire_heap_realloc";
    unsigned tries = 0;
    bool more;
    void *now;

    if (block == NULL)
        return alloc(caller, inner(heap), size, 16, false);
    if (size > Q_REQUEST_MAX)
        return q_enomem();
    int saved = errno;
    do
        now = resize(caller, inner(heap), block, size, &more);
    while (more && q_memory_is_short(wants(size, 16), &tries));
    if (now != NULL)
        errno = saved;
    return now;
}

Q_PUBLIC size_t quire_heap_usable_size(struct quire_heap *heap, const void *block)
{
    struct q_arena_spot spot;

    if (block == NULL || !begin_with_block("quire_heap_usable_size", inner(heap), block, &spot))
        return 0;
    end_with(inner(heap));
    return spot.bytes;
}

Q_PUBLIC struct quire_heap *quire_heap_of(const void *block)
{
    struct q_arena_spot spot = {.what = Q_ARENA_NONE};
    int saved = errno;

    if (begin()) {
        q_arena_look(block, &spot);
        q_call_end();
    }
    errno = saved;
    return spot.what == Q_ARENA_LIVE ? (struct quire_heap *)spot.arena : NULL;
}

Q_PUBLIC void quire_heap_stat(struct quire_heap *heap, struct quire_heap_stat *st)
{
    struct q_arena *a = inner(heap);

    *st = (struct quire_heap_stat){0};
    if (!begin_with("quire_heap_stat", a, NULL))
        return;
    *st = (struct quire_heap_stat){.live = a->live,
                                   .live_bytes = a->live_bytes,
                                   .held = a->pages << q_page_shift,
                                   .peak = a->peak << q_page_shift,
                                   .limit = a->limit << q_page_shift,
                                   .allocs = a->allocs,
                                   .failures = a->failures,
                                   .sigbus = a->sigbus};
    end_with(a);
}

Q_PUBLIC ssize_t quire_heap_migrate(struct quire_heap *heap, int node)
{
    struct q_arena *a = inner(heap);

    if (!begin_with("quire_heap_migrate", a, NULL))
        return -1;
    unsigned nid = q_find_node(node);
    long ret = -ENXIO;
    if (nid < q_topology.nr_nodes)
        ret = a->special != 0 ? -EINVAL : q_arena_move(a, nid);
    end_with(a);
    if (ret >= 0)
        return ret;
    errno = (int)-ret;
    return -1;
}

void q_describe_heap(struct q_buf *b, const void *p)
{
    struct q_arena_spot spot;

    q_arena_look(p, &spot);
    switch (spot.what) {
    case Q_ARENA_LIVE:
        q_buf_printf(b, "a live block of size %zu of heap %p", spot.bytes,
                     (const void *)spot.arena);
        break;
    case Q_ARENA_FREE:
        q_buf_printf(b, "already free, or never handed out (memory of heap %p)",
                     (const void *)spot.arena);
        break;
    case Q_ARENA_INTERIOR:
        q_buf_printf(b, "inside a block of size %zu of heap %p", spot.bytes,
                     (const void *)spot.arena);
        break;
    default:
        q_buf_printf(b, "no block of any heap begins here");
    }
}
