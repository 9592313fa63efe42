/*
 * arena_block.c - see arena.h: where heaps get pages, and blocks that are no
 * objects: runs of pages, and mappings.
 *
 *   mapping   | page: struct q_arena_block |  the block ...          |
 *             base                   p, at a multiple of align
 *
 * free() finds no mapping that begins at p, so it refuses the block.
 */
#include <errno.h>
#include <string.h>

#include "base/msg.h"
#include "slab/arena_undo.h"
#include "slab/slub.h"
#include "zone/page_alloc.h"
#include "zone/special.h"
#include "zone/vmalloc.h"

#define MAGIC 0x7161726d61707073ull

static bool charge(struct q_arena *a, size_t pages)
{
    if (a->limit != 0 && pages > a->limit - q_min(a->pages, a->limit)) {
        a->failures++;
        return false;
    }
    a->pages += pages;
    return true;
}

/* What was charged is there. */
static void note_peak(struct q_arena *a)
{
    a->peak = q_max(a->peak, a->pages);
}

struct q_page *q_arena_alloc_run(struct q_arena *a, size_t nr, unsigned order, bool zero)
{
    q_gfp_t gfp = a->gfp | (zero ? Q_GFP_ZERO : 0);
    struct q_page *page;
    int error = ENOMEM;

    if (a->special != 0) {
        page = q_special_alloc((enum q_special)(a->special - 1), order, nr, zero, &error);
    } else if (a->policy.mode == Q_MPOL_DEFAULT) {
        page = q_alloc_run_aligned(gfp, nr, order);
    } else {
        struct q_mempolicy old = q_mempolicy_swap(a->policy);
        page = q_alloc_run_aligned(gfp, nr, order);
        a->policy = q_mempolicy_swap(old);
    }
    a->starved |= page == NULL && error == ENOMEM;
    return page;
}

struct q_page *q_arena_get_pages(struct q_arena *a, size_t nr, unsigned order, bool zero,
                                 enum q_owner_kind kind, void *info)
{
    nr = a->sigbus ? q_estate_round(nr) : nr;
    if (!charge(a, nr))
        return NULL;
    struct q_page *page =
        a->sigbus ? q_estate_get(a, nr, order, zero) : q_arena_alloc_run(a, nr, order, zero);
    if (page == NULL) {
        a->pages -= nr;
        a->failures++;
        return NULL;
    }
    note_peak(a);
    page->private = kind;
    page->lru.next = info;
    q_page_set_owned(page);
    return page;
}

void q_arena_put_pages(struct q_arena *a, struct q_page *page)
{
    a->pages -= page->nr;
    if (q_page_is_special(page)) {
        __atomic_store_n(&page->refcount, 0, __ATOMIC_RELAXED);
        q_special_free(page);
    } else if (a->sigbus) {
        q_estate_put(a, page);
    } else {
        q_unit_release(page);
    }
}

struct q_page *q_arena_page_of(const void *p)
{
    struct q_page *page = q_virt_to_page(p);

    return page != NULL ? page : q_special_virt_to_page(p);
}

char *q_arena_address_of(const struct q_page *page)
{
    return q_page_is_special(page) ? q_special_address(page) : q_page_address(page);
}

static size_t pages_of(size_t n)
{
    return q_align_up(n, q_page_size()) >> q_page_shift;
}

static void *new_run(struct q_arena *a, size_t n, size_t align, bool zero)
{
    size_t nr = pages_of(n);
    unsigned order = (unsigned)q_max(q_ceil_log2(q_max(align >> q_page_shift, 1)), q_slab_order());
    struct q_arena_block *b = q_inner_alloc(sizeof(*b));

    /* The special zones give blocks at multiples of their own length. */
    order = (unsigned)q_max(order, a->special != 0 ? q_ceil_log2(nr) : 0);
    if (b == NULL) {
        a->starved = true;
        return NULL;
    }
    b->page = q_arena_get_pages(a, nr, order, zero, Q_OWNER_ARENA_LARGE, b);
    if (b->page == NULL) {
        q_inner_free(b);
        return NULL;
    }
    b->arena = a;
    b->mark = (struct q_arena_mark){a->cuts, a->cuts};
    b->bytes = nr << q_page_shift;
    q_arena_link(a, Q_RUNS, &a->large, &b->list);
    return q_arena_address_of(b->page);
}

static void *map(struct q_arena *a, size_t bytes, size_t align, size_t *dirty)
{
    if (a->policy.mode == Q_MPOL_DEFAULT)
        return q_vmalloc(bytes, align, dirty);
    struct q_mempolicy old = q_mempolicy_swap(a->policy);
    void *p = q_vmalloc(bytes, align, dirty);

    a->policy = q_mempolicy_swap(old);
    return p;
}

static void *new_mapping(struct q_arena *a, size_t n, size_t align, bool zero)
{
    size_t front = q_max(align, q_page_size()), bytes = front + q_align_up(n, q_page_size()), dirty;

    if (a->special != 0 || !charge(a, bytes >> q_page_shift))
        return NULL;
    char *base = map(a, bytes, front, &dirty);
    if (base == NULL) {
        a->pages -= bytes >> q_page_shift;
        a->failures++;
        a->starved = true;
        return NULL;
    }
    note_peak(a);
    if (a->sigbus)
        q_arena_hook(base, bytes, true);
    char *p = base + front;
    struct q_arena_block *b = (struct q_arena_block *)(p - q_page_size());
    if (zero && dirty > front)
        memset(p, 0, q_min(bytes, dirty) - front);
    *b = (struct q_arena_block){.magic = MAGIC ^ (uintptr_t)b,
                                .arena = a,
                                .mark = {a->cuts, a->cuts},
                                .base = base,
                                .bytes = bytes - front};
    q_arena_link(a, Q_MAPPINGS, &a->huge, &b->list);
    return p;
}

void *q_arena_alloc_block(struct q_arena *a, size_t n, size_t align, bool zero)
{
    n = q_max(n, 1); /* a block of its own, whatever its alignment */
    void *p = q_max(n, align) <= q_max_block_size() ? new_run(a, n, align, zero)
                                                    : new_mapping(a, n, align, zero);

    if (p != NULL)
        a->live_bytes += q_align_up(n, q_page_size());
    return p;
}

static void free_mapping(struct q_arena *a, struct q_arena_block *b)
{
    char *base = b->base;
    size_t bytes = (size_t)((char *)b + q_page_size() + b->bytes - base);

    a->pages -= bytes >> q_page_shift;
    b->magic = 0;
    if (a->sigbus)
        q_arena_hook(base, bytes, false);
    q_vfree(base);
}

void q_arena_end_block(struct q_arena *a, struct q_arena_block *b)
{
    if (b->page == NULL) {
        free_mapping(a, b);
        return;
    }
    q_arena_put_pages(a, b->page);
    q_inner_free(b);
}

void q_arena_free_block(struct q_arena *a, struct q_arena_block *b)
{
    bool run = b->page != NULL;

    a->live_bytes -= b->bytes;
    q_arena_unlink(a, run ? Q_RUNS : Q_MAPPINGS, &b->list);
    if (!q_arena_keeps(a, &b->mark)) {
        q_arena_end_block(a, b);
        return;
    }
    b->kept = true;
    q_arena_link(a, run ? Q_RUNS : Q_MAPPINGS, run ? &a->kept_large : &a->kept_huge, &b->list);
}

static void free_list(struct q_arena *a, struct q_list *list)
{
    for (struct q_list *l = list->next, *next; l != NULL && l != list; l = next) {
        next = l->next;
        q_arena_free_block(a, q_container_of(l, struct q_arena_block, list));
    }
}

void q_arena_free_blocks(struct q_arena *a)
{
    free_list(a, &a->large);
    free_list(a, &a->huge);
}

/* A mapping that begins one page, or as much as its alignment asks for, before p. */
static struct q_arena_block *mapping_at(const char *p)
{
    const char *front = p - q_page_size();
    struct q_arena_block *b = (struct q_arena_block *)(uintptr_t)front;
    void *start = NULL;
    size_t size = 0;

    if (((uintptr_t)p & (q_page_size() - 1)) != 0)
        return NULL;
    if (q_vsize(front) == 0 && (!q_vfind(front, &start, &size) || (const char *)start > front))
        return NULL;
    return b->magic == (MAGIC ^ (uintptr_t)b) ? b : NULL;
}

struct q_arena_block *q_arena_block_at(const void *p)
{
    struct q_page *page = q_arena_page_of(p);

    if (page == NULL)
        return mapping_at(p);
    if (q_page_type_of(page) != Q_PAGE_RUN || !q_page_is_owned(page) ||
        page->private != Q_OWNER_ARENA_LARGE || q_arena_address_of(page) != (const char *)p)
        return NULL;
    return (struct q_arena_block *)(void *)page->lru.next;
}

static bool resize_run(struct q_arena *a, struct q_arena_block *b, size_t n)
{
    size_t nr = pages_of(n), have = b->page->nr;

    if (a->special != 0 || n > q_max_block_size() || q_arena_keeps(a, &b->mark))
        return nr << q_page_shift == b->bytes;
    if (a->sigbus) {
        if (nr > have || nr <= have / 2)
            return false;
    } else if (nr > have) {
        if (!charge(a, nr - have))
            return false;
        if (!q_grow_run(b->page, nr)) {
            a->pages -= nr - have;
            return false;
        }
        note_peak(a);
    } else if (nr < have) {
        q_shrink_run(b->page, nr);
        a->pages -= have - nr;
    }
    b->bytes = nr << q_page_shift;
    return true;
}

/* The kernel moves it, with the page before it; only where that is all that is before it. */
static bool resize_mapping(struct q_arena *a, struct q_arena_block *b, void **p, size_t n)
{
    size_t page = q_page_size(), bytes = q_align_up(n, page), have = b->bytes;

    if (b->base != (char *)b || a->sigbus || q_arena_keeps(a, &b->mark))
        return bytes == have;
    if (bytes > have && !charge(a, (bytes - have) >> q_page_shift))
        return false;
    q_arena_unlink(a, Q_MAPPINGS, &b->list);
    struct q_arena_block *now = q_vrealloc(b, page + bytes);
    if (now == NULL) {
        q_arena_link(a, Q_MAPPINGS, &a->huge, &b->list);
        a->pages -= bytes > have ? (bytes - have) >> q_page_shift : 0;
        return false;
    }
    note_peak(a);
    now->magic = MAGIC ^ (uintptr_t)now;
    now->base = (char *)now;
    now->bytes = bytes;
    q_arena_link(a, Q_MAPPINGS, &a->huge, &now->list);
    a->pages -= bytes < have ? (have - bytes) >> q_page_shift : 0;
    *p = (char *)now + page;
    return true;
}

bool q_arena_resize_block(struct q_arena *a, struct q_arena_block *b, void **p, size_t n)
{
    size_t have = b->bytes;
    bool done = b->page != NULL ? resize_run(a, b, n) : resize_mapping(a, b, p, n);

    if (done)
        a->live_bytes += q_align_up(n, q_page_size()) - have;
    return done;
}
