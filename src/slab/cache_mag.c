/*
 * cache_mag.c - threads' magazines, and the ways around the fast paths of
 * cache.h.
 *
 * A table of magazines hangs off the thread's heap, so that it is adopted with
 * it: the next thread that gets the heap finds the magazines empty, but there.
 * A thread without a heap (after its last destructor), and all threads with a
 * checked cache, go to the slabs for every object.
 */
#include <string.h>

#include "base/msg.h"
#include "numa/topology.h"
#include "slab/cache.h"

#define FIRST_TABLE 16u

static bool has_magazine(const struct q_heap *heap, const struct q_cache *c)
{
    return c->id < heap->nr_mags && heap->mags[c->id] != &q_mag_none;
}

/* q_caches.lock held. */
static bool grow_table(struct q_heap *heap, uint32_t id)
{
    struct q_mag **old = heap->mags, **mags;
    uint32_t nr = FIRST_TABLE, have = heap->nr_mags;

    if (id < have)
        return true;
    while (nr <= id)
        nr *= 2;
    mags = q_inner_alloc(nr * sizeof(*mags));
    if (mags == NULL)
        return false;
    for (uint32_t i = 0; i < nr; i++)
        mags[i] = i < have ? old[i] : &q_mag_none;
    heap->mags = mags;
    /* In this order: the child of a fork in between finds as many entries as it believes. */
    atomic_signal_fence(memory_order_seq_cst);
    heap->nr_mags = nr;
    if (have > 0)
        q_inner_free(old);
    return true;
}

/* q_caches.lock held. */
static bool make_magazine(struct q_heap *heap, struct q_cache *c)
{
    uint32_t cap = 2 * c->batch;

    if (!grow_table(heap, c->id))
        return false;
    struct q_mag *mag = q_inner_alloc(sizeof(*mag) + (cap + 1) * sizeof(mag->e[0]));
    if (mag == NULL)
        return false;
    mag->top = mag->e;
    mag->last = mag->e + cap;
    mag->cache = c;
    heap->mags[c->id] = mag;
    return true;
}

/* The thread's magazine for c, made now if need be; NULL where it goes without. */
static struct q_mag *magazine(struct q_cache *c)
{
    struct q_heap *heap = (c->flags & Q_CACHE_CHECKED) == 0 ? q_heap_get() : NULL;

    if (heap == NULL)
        return NULL;
    if (q_unlikely(!has_magazine(heap, c))) {
        q_lock(&q_caches.lock);
        bool made = make_magazine(heap, c);
        q_unlock(&q_caches.lock);
        if (!made)
            return NULL;
    }
    return heap->mags[c->id];
}

/* Objects that were never handed out get what they begin life with. Without locks: it may call anything. */
static void construct(const struct q_cache *c, const struct q_mag_entry *e, uint64_t fresh)
{
    if (c->flags & Q_CACHE_CHECKED)
        for (uint64_t left = fresh; left != 0; left &= left - 1)
            q_check_fresh(c, e[__builtin_ctzll(left)].object);
    if (c->ctor == NULL || fresh == 0)
        return;
    q_leave();
    for (; fresh != 0; fresh &= fresh - 1)
        c->ctor(e[__builtin_ctzll(fresh)].object);
    q_enter();
}

/*
 * Into the magazine what it has room for (a constructor may have filled it),
 * the last first, so that they are popped in the order of their addresses. The
 * rest goes back.
 */
static void load(struct q_cache *c, struct q_mag *mag, const struct q_mag_entry *e, uint32_t n)
{
    for (; n > 0 && mag != NULL && mag->top != mag->last; n--) {
        mag->top[1] = e[n - 1];
        q_mag_set_top(mag, mag->top + 1);
    }
    q_cache_put(c, e, n);
}

void *q_cache_alloc_slow(struct q_cache *c, struct q_cache_fault *fault)
{
    struct q_mag_entry e[Q_MAG_MAX / 2];
    uint64_t fresh;
    struct q_mag *mag = magazine(c);
    void *p = mag != NULL ? q_cache_pop(c) : NULL;

    *fault = (struct q_cache_fault){.result = Q_CACHE_OK};
    if (p != NULL)
        return p;
    uint32_t n = q_cache_take(c, e, mag != NULL ? c->batch : 1, &fresh);
    if (n == 0) {
        fault->result = Q_CACHE_NO_MEMORY;
        return NULL;
    }
    construct(c, e, fresh);
    *e[0].state = Q_OBJ_LIVE;
    load(c, mag != NULL ? q_heap->mags[c->id] : NULL, e + 1, n - 1);
    if (c->flags & Q_CACHE_CHECKED)
        q_check_alloc(c, e[0].object, fault);
    return e[0].object;
}

/* Half of a full magazine back to the slabs: what was freed first. */
static void unload(struct q_cache *c, struct q_mag *mag, uint32_t n)
{
    q_cache_put(c, mag->e + 1, n);
    memmove(mag->e + 1, mag->e + 1 + n, (q_mag_nr(mag) - n) * sizeof(mag->e[0]));
    q_mag_set_top(mag, mag->top - n);
}

struct q_cache_slab *q_cache_slab_of(const void *p, size_t *k, size_t *offset)
{
    struct q_page *page = q_unit_page(p);

    if (page == NULL || page->private != Q_OWNER_CACHE)
        return NULL;
    struct q_cache_slab *s = q_unit_info(q_unit_of(p));
    size_t off = (size_t)((const char *)p - s->start) - s->cache->left;
    *k = off / s->cache->stride;
    *offset = off % s->cache->stride;
    return s;
}

static enum q_cache_result check(const struct q_cache *c, const void *p, uint8_t **state)
{
    size_t k, offset;
    struct q_cache_slab *s = q_cache_slab_of(p, &k, &offset);

    if (s == NULL)
        return Q_CACHE_NOT_OBJECT;
    if (s->cache != c)
        return Q_CACHE_OTHER;
    if (offset != 0 || k >= c->objs)
        return Q_CACHE_INTERIOR;
    *state = &s->state[k];
    if (**state == Q_OBJ_LIVE)
        return Q_CACHE_OK;
    return **state == Q_OBJ_NONE ? Q_CACHE_NEVER : Q_CACHE_TWICE;
}

void q_cache_free_slow(struct q_cache *c, void *p, struct q_cache_fault *fault)
{
    uint8_t *state = NULL;

    *fault = (struct q_cache_fault){.result = check(c, p, &state)};
    if (state == NULL || fault->result != Q_CACHE_OK)
        return;
    if (c->flags & Q_CACHE_CHECKED)
        q_check_free(c, p, fault);
    struct q_mag *mag = magazine(c);
    struct q_mag_entry e = {p, state};
    *state = Q_OBJ_IN_MAG;
    if (mag != NULL && mag->top == mag->last)
        unload(c, mag, c->batch);
    load(c, mag, &e, 1);
}

size_t q_cache_shrink(struct q_cache *c)
{
    size_t bytes = 0;

    if (has_magazine(q_heap, c)) {
        struct q_mag *mag = q_heap->mags[c->id];
        unload(c, mag, q_mag_nr(mag));
    }
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        bytes += q_cache_release_empty(c, &c->node[nid]);
    return bytes;
}

/* Give back what the magazines of a heap hold. q_caches.lock held, so that no cache goes meanwhile. */
static void unload_all(struct q_heap *heap)
{
    for (uint32_t id = 0; id < heap->nr_mags; id++) {
        struct q_mag *mag = heap->mags[id];

        if (mag->cache == NULL)
            continue;
        unload(mag->cache, mag, q_mag_nr(mag));
    }
}

void q_cache_thread_ends(struct q_heap *heap)
{
    if (heap->nr_mags == 0)
        return;
    q_enter();
    q_lock(&q_caches.lock);
    unload_all(heap);
    q_unlock(&q_caches.lock);
    q_leave();
}

/* What a thread was writing when we forked may be half an entry: those are lost. */
static void drop_torn(struct q_mag *mag)
{
    struct q_mag_entry *to = mag->e;

    for (const struct q_mag_entry *e = mag->e + 1; e <= mag->top; e++) {
        size_t k, offset;
        struct q_cache_slab *s = q_cache_slab_of(e->object, &k, &offset);

        if (s != NULL && s->cache == mag->cache && offset == 0 && &s->state[k] == e->state)
            *++to = *e;
    }
    mag->top = to;
}

void q_cache_adopt_magazines(void)
{
    for (uint32_t id = 1; id <= q_nr_heaps; id++) {
        struct q_heap *heap = q_heaps[id];

        if (heap == q_heap)
            continue;
        for (uint32_t i = 0; i < heap->nr_mags; i++)
            if (heap->mags[i]->cache != NULL)
                drop_torn(heap->mags[i]);
        unload_all(heap);
    }
}
