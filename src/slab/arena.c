/* arena.c - see arena.h: objects, spans and chunks of heaps; heaps come and go. */
#include "slab/arena.h"

#include <errno.h>
#include <string.h>

#include "base/msg.h"
#include "slab/arena_undo.h"
#include "slab/slub.h"

#define ENOUGH_OBJS 4u
#define ROOMY_TRIES 4u /* chunks that are looked at for cells in a row, before a new one is made */

struct q_arenas q_arenas;

struct q_arena *q_arena_create(const struct q_arena_how *how)
{
    struct q_arena *a = q_inner_alloc(sizeof(*a));

    if (a == NULL)
        return NULL;
    a->single = how->single;
    a->sigbus = how->sigbus;
    a->special = how->special;
    a->gfp = how->gfp;
    a->policy = how->policy;
    a->owner = q_thread_pointer();
    a->limit = how->limit >> q_page_shift;
    if (how->limit != 0)
        a->limit = q_max(a->limit, 1);
    a->magic = Q_ARENA_MAGIC ^ (uintptr_t)a;
    q_lock(&q_arenas.lock);
    q_list_add_tail(&q_arenas.list, &a->list);
    q_arenas.nr++;
    a->serial = ++q_arenas.serial;
    q_unlock(&q_arenas.lock);
    return a;
}

int q_arena_enter_again(struct q_arena *a, uint64_t serial)
{
    int error = ESRCH;
    struct q_list *l;

    q_lock(&q_arenas.lock);
    for (l = q_arenas.list.next; l != NULL && l != &q_arenas.list && l != &a->list; l = l->next)
        ;
    if (l == &a->list && a->serial == serial)
        error = a->single && a->owner != q_thread_pointer() ? EPERM : 0;
    if (error == 0)
        q_arena_enter(a);
    q_unlock(&q_arenas.lock);
    return error;
}

/* --- bits: where live objects begin ---------------------------------------------------------- */

static size_t grain(const struct q_chunk *c, const void *p)
{
    return (size_t)((const char *)p - c->start) / Q_ARENA_GRAIN;
}

static bool is_live(const struct q_chunk *c, const void *p)
{
    size_t g = grain(c, p);

    return (c->live[g / 64] >> (g % 64) & 1) != 0 && (uintptr_t)p % Q_ARENA_GRAIN == 0;
}

static void flip_live(struct q_chunk *c, const void *p)
{
    size_t g = grain(c, p);

    c->live[g / 64] ^= 1ull << (g % 64);
}

/* --- chunks and spans ------------------------------------------------------------------------ */

static struct q_chunk *chunk_of(const void *p)
{
    struct q_page *page = q_arena_page_of((const void *)q_align_down((uintptr_t)p, Q_SLAB_SIZE));

    if (page == NULL || q_page_type_of(page) != Q_PAGE_RUN || !q_page_is_owned(page) ||
        page->private != Q_OWNER_ARENA)
        return NULL;
    return (struct q_chunk *)(void *)page->lru.next;
}

static struct q_chunk *new_chunk(struct q_arena *a)
{
    struct q_chunk *c = q_inner_alloc(sizeof(*c));
    unsigned order = q_slab_order();

    if (c == NULL) {
        a->starved = true;
        return NULL;
    }
    c->page = q_arena_get_pages(a, (size_t)1 << order, order, false, Q_OWNER_ARENA, c);
    if (c->page == NULL) {
        q_inner_free(c);
        return NULL;
    }
    if (a->special == 0)
        q_unit_claim(c->page, Q_OWNER_ARENA, a, c);
    c->arena = a;
    c->start = q_arena_address_of(c->page);
    c->mark = (struct q_arena_mark){a->cuts, a->cuts};
    c->free_cells = UINT16_MAX;
    q_arena_link(a, Q_CHUNKS, &a->chunks, &c->list);
    q_arena_link(a, Q_ROOMY, &a->roomy, &c->roomy);
    return c;
}

void q_arena_end_chunk(struct q_arena *a, struct q_chunk *c)
{
    q_arena_put_pages(a, c->page);
    q_inner_free(c);
}

/* Off all lists, its objects forgotten. Where one may go back, it stays the heap's. */
static void free_chunk(struct q_arena *a, struct q_chunk *c)
{
    if (!q_arena_keeps(a, &c->mark)) {
        q_arena_end_chunk(a, c);
        return;
    }
    c->free_cells = UINT16_MAX;
    memset(c->live, 0, sizeof(c->live));
    q_arena_link(a, Q_CHUNKS, &a->kept_chunks, &c->list);
}

/* A free stretch of `cells`, at a multiple of that; Q_ARENA_CELLS: none. */
static unsigned find_cells(const struct q_chunk *c, unsigned cells)
{
    unsigned mask = (1u << cells) - 1;

    for (unsigned at = 0; at < Q_ARENA_CELLS; at += cells)
        if ((c->free_cells >> at & mask) == mask)
            return at;
    return Q_ARENA_CELLS;
}

static struct q_chunk *chunk_with(struct q_arena *a, unsigned cells, unsigned *at)
{
    struct q_list *l = a->roomy.next;

    for (unsigned i = 0; i < ROOMY_TRIES && l != NULL && l != &a->roomy; i++, l = l->next) {
        struct q_chunk *c = q_container_of(l, struct q_chunk, roomy);

        *at = find_cells(c, cells);
        if (*at < Q_ARENA_CELLS)
            return c;
    }
    *at = 0;
    return new_chunk(a);
}

/* Four objects at least; twice as many for each span that the class has, up to a chunk. */
static unsigned cells_for(const struct q_arena_bin *bin, unsigned cls)
{
    size_t bytes = (size_t)q_classes[cls].size * ENOUGH_OBJS;
    unsigned order = q_ceil_log2(q_max((bytes + Q_ARENA_CELL - 1) / Q_ARENA_CELL, 1));

    return 1u << q_min(order + bin->nr_spans, 4);
}

static Q_NOINLINE struct q_arena_span *new_span(struct q_arena *a, unsigned cls)
{
    struct q_arena_bin *bin = &a->bin[cls];
    unsigned cells = cells_for(bin, cls), at;
    struct q_chunk *c = chunk_with(a, cells, &at);

    if (c == NULL)
        return NULL;
    if (q_arena_wants(a, c))
        q_arena_save_chunk(a, c);
    c->free_cells &= (uint16_t) ~(((1u << cells) - 1) << at);
    if (c->free_cells == 0)
        q_arena_unlink(a, Q_ROOMY, &c->roomy);
    memset(&c->span_of[at], (int)at, cells);
    struct q_arena_span *s = &c->span[at];
    *s = (struct q_arena_span){.cls = (uint8_t)cls,
                               .first = (uint8_t)at,
                               .cells = (uint8_t)cells,
                               .objs = (uint16_t)(cells * Q_ARENA_CELL / q_classes[cls].size)};
    q_arena_link(a, Q_SPANS, &bin->spans, &s->list);
    bin->nr_spans++;
    return s;
}

/* Whether it is all that the bin could serve from. */
static bool alone(const struct q_arena_bin *bin, const struct q_arena_span *s)
{
    return bin->spans.next == &s->list && s->list.next == &bin->spans;
}

/* An empty span goes, but for the last that the bin could serve from; an empty chunk, but for the last. */
static void free_span(struct q_arena *a, struct q_chunk *c, struct q_arena_span *s)
{
    struct q_arena_bin *bin = &a->bin[s->cls];

    if (alone(bin, s))
        return;
    q_arena_unlink(a, Q_SPANS, &s->list);
    bin->nr_spans--;
    if (c->free_cells == 0)
        q_arena_link(a, Q_ROOMY, &a->roomy, &c->roomy);
    c->free_cells |= (uint16_t)(((1u << s->cells) - 1) << s->first);
    s->cells = 0;
    if (c->free_cells != UINT16_MAX || (a->chunks.next == &c->list && c->list.next == &a->chunks))
        return;
    q_arena_unlink(a, Q_CHUNKS, &c->list);
    q_arena_unlink(a, Q_ROOMY, &c->roomy);
    free_chunk(a, c);
}

/* --- objects --------------------------------------------------------------------------------- */

/* free_object() calls nothing but as its last step, so it needs no registers saved. */
static void free_object(struct q_arena *a, struct q_chunk *c, struct q_arena_span *s, void *p);

static Q_COLD void free_after_saving(struct q_arena *a, struct q_chunk *c, struct q_arena_span *s,
                                     void *p)
{
    q_arena_save_chunk(a, c);
    free_object(a, c, s, p);
}

/* It has room again, or is empty; one of a single object is both. */
static Q_NOINLINE void span_turned(struct q_arena *a, struct q_chunk *c, struct q_arena_span *s,
                                   bool was_full)
{
    if (was_full)
        q_arena_link(a, Q_SPANS, &a->bin[s->cls].spans, &s->list);
    if (s->used == 0)
        free_span(a, c, s);
}

static void *alloc_object(struct q_arena *a, unsigned cls)
{
    struct q_arena_bin *bin = &a->bin[cls];
    struct q_arena_span *s = q_list_empty(&bin->spans)
                                 ? new_span(a, cls)
                                 : q_container_of(bin->spans.next, struct q_arena_span, list);

    if (q_unlikely(s == NULL))
        return NULL;
    struct q_chunk *c = q_container_of(s - s->first, struct q_chunk, span[0]);
    if (q_arena_wants(a, c))
        q_arena_save_chunk(a, c);
    struct q_object *o = s->free;
    if (o != NULL)
        s->free = o->next;
    else
        o = (struct q_object *)(c->start + s->first * Q_ARENA_CELL +
                                (size_t)s->carved++ * q_classes[cls].size);
    if (q_unlikely(++s->used == s->objs))
        q_arena_unlink(a, Q_SPANS, &s->list);
    flip_live(c, o);
    a->live_bytes += q_classes[cls].size;
    return o;
}

static void free_object(struct q_arena *a, struct q_chunk *c, struct q_arena_span *s, void *p)
{
    struct q_object *o = p;

    if (q_arena_wants(a, c)) {
        free_after_saving(a, c, s, p);
        return;
    }
    flip_live(c, p);
    o->next = s->free;
    s->free = o;
    a->live_bytes -= q_classes[s->cls].size;
    bool was_full = s->used-- == s->objs;
    if (q_unlikely(was_full) || (q_unlikely(s->used == 0) && !alone(&a->bin[s->cls], s)))
        span_turned(a, c, s, was_full);
}

void *q_arena_alloc(struct q_arena *a, size_t n, size_t align, bool zero)
{
    unsigned cls =
        align <= Q_ARENA_GRAIN && n <= Q_SMALL_MAX ? q_class_of(n) : q_class_aligned(n, align);
    void *p;

    if (q_unlikely(a->lost))
        return NULL;
    if (q_likely(cls < Q_NR_CLASSES)) {
        p = alloc_object(a, cls);
        if (zero && p != NULL)
            memset(p, 0, n);
    } else {
        p = q_arena_alloc_block(a, n, align, zero);
    }
    a->live += p != NULL;
    a->allocs += p != NULL;
    return p;
}

void q_arena_look(const void *p, struct q_arena_spot *spot)
{
    struct q_chunk *c = chunk_of(p);

    *spot = (struct q_arena_spot){.what = Q_ARENA_NONE};
    if (c == NULL) {
        spot->block = q_arena_block_at(p);
        if (spot->block != NULL) {
            spot->what = spot->block->kept ? Q_ARENA_FREE : Q_ARENA_LIVE;
            spot->arena = spot->block->arena;
            spot->bytes = spot->block->bytes;
        }
        return;
    }
    unsigned cell = (unsigned)((size_t)((const char *)p - c->start) / Q_ARENA_CELL);
    struct q_arena_span *s = &c->span[c->span_of[cell]];
    spot->arena = c->arena;
    spot->chunk = c;
    spot->span = s;
    spot->what = Q_ARENA_FREE;
    if ((c->free_cells >> cell & 1) != 0 || s->cells == 0)
        return;
    spot->bytes = q_classes[s->cls].size;
    size_t off = (size_t)((const char *)p - c->start) - s->first * Q_ARENA_CELL;
    if (is_live(c, p))
        spot->what = Q_ARENA_LIVE;
    else if (off % spot->bytes != 0)
        spot->what = Q_ARENA_INTERIOR;
}

bool q_arena_free_quickly(struct q_arena *a, void *p)
{
    const struct q_slab *unit = q_slab_guess(p);
    struct q_chunk *c = q_unit_info(unit);

    /* Any address may lead to the unit that lies at the same place of another window. */
    if (q_unlikely(q_unit_owner(unit) != a) ||
        q_unlikely((size_t)((char *)p - c->start) >= Q_SLAB_SIZE) || q_unlikely(!is_live(c, p)) ||
        q_unlikely(a->lost))
        return false;
    a->live--;
    free_object(a, c, &c->span[c->span_of[(size_t)((char *)p - c->start) / Q_ARENA_CELL]], p);
    return true;
}

void q_arena_free(struct q_arena *a, void *p, const struct q_arena_spot *spot)
{
    if (q_unlikely(a->lost))
        return;
    a->live--;
    if (spot->block != NULL)
        q_arena_free_block(a, spot->block);
    else
        free_object(a, spot->chunk, spot->span, p);
}

bool q_arena_resize(struct q_arena *a, void **p, size_t n, const struct q_arena_spot *spot)
{
    if (q_unlikely(a->lost))
        return false;
    if (spot->block != NULL)
        return n > Q_SMALL_MAX && q_arena_resize_block(a, spot->block, p, n);
    return n <= spot->bytes && (n > spot->bytes / 2 || spot->bytes <= 2 * Q_ARENA_GRAIN);
}

void q_arena_reset(struct q_arena *a)
{
    if (a->lost)
        return;
    q_arena_free_blocks(a);
    while (!q_list_empty(&a->chunks)) {
        struct q_chunk *c = q_container_of(a->chunks.next, struct q_chunk, list);

        q_arena_unlink(a, Q_CHUNKS, &c->list);
        free_chunk(a, c);
    }
    q_list_init(&a->roomy);
    memset(a->bin, 0, sizeof(a->bin));
    a->live = a->live_bytes = 0;
    q_assert(a->pages == 0 || a->cut != NULL);
}

void q_arena_destroy(struct q_arena *a)
{
    q_lock(&q_arenas.lock);
    a->magic = 0;
    q_list_del(&a->list);
    q_arenas.nr--;
    q_unlock(&q_arenas.lock);
    q_arena_enter(a); /* who releases a snapshot of it may have got here first */
    while (a->cut != NULL && !a->lost)
        q_arena_end_cut(a, a->cut);
    q_arena_leave(a);
    q_arena_reset(a);
    if (!a->lost)
        q_inner_free(a);
}

/* --- fork ------------------------------------------------------------------------------------ */

/* Whether the list can be walked. */
static bool listed;

static void each_lock(void (*fn)(struct q_lock *l))
{
    for (struct q_list *l = q_arenas.list.next; l != NULL && l != &q_arenas.list; l = l->next)
        fn(&q_container_of(l, struct q_arena, list)->lock);
}

static void take(struct q_lock *l)
{
    q_lock_for_fork(l, true);
}

static void take_or_leave(struct q_lock *l)
{
    q_lock_for_fork(l, false);
}

void q_arena_fork_prepare(bool patient)
{
    q_lock_for_fork(&q_arenas.lock, patient);
    listed = q_lock_is_mine(&q_arenas.lock);
    if (listed)
        each_lock(patient ? take : take_or_leave);
}

void q_arena_fork_parent(void)
{
    if (listed)
        each_lock(q_unlock_for_fork);
    q_unlock_for_fork(&q_arenas.lock);
}

void q_arena_fork_child(void)
{
    q_lock_after_fork(&q_arenas.lock);
    for (struct q_list *l = q_arenas.list.next; l != NULL && l != &q_arenas.list; l = l->next) {
        struct q_arena *a = q_container_of(l, struct q_arena, list);

        if (q_lock_after_fork(&a->lock))
            a->lost = true;
    }
}
