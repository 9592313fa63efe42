/* cache.c - see cache.h: caches come and go, and what there is to know of them. */
#include "slab/cache.h"

#include <errno.h>
#include <string.h>

#include "base/msg.h"
#include "numa/topology.h"
#include "zone/page_alloc.h"

#define MAGIC 0x71636163686573ull
#define MAG_BYTES ((size_t)16 << 10) /* of objects, at most, in a magazine */
#define LEAST_STRIDE 8u
#define RED_ZONE 16u
#define WASTE_SHARE 8u /* of a slab: less is little */

struct q_caches q_caches;
struct q_mag q_mag_none = {.top = q_mag_none.e, .last = q_mag_none.e, .e = {{NULL, NULL}}};

bool q_cache_valid(const struct q_cache *c)
{
    return c != NULL && ((uintptr_t)c & 7) == 0 && q_cache_was_valid(c, c);
}

bool q_cache_was_valid(const struct q_cache *then, const struct q_cache *c)
{
    return then->magic == (MAGIC ^ (uintptr_t)c);
}

void q_caches_each_lock(void (*fn)(struct q_lock *l))
{
    for (struct q_list *l = q_caches.list.next; l != NULL && l != &q_caches.list; l = l->next)
        for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
            fn(&q_container_of(l, struct q_cache, list)->node[nid].lock);
}

void q_caches_lock(void)
{
    q_lock(&q_caches.lock);
    q_caches_each_lock(q_lock);
}

void q_caches_unlock(void)
{
    q_caches_each_lock(q_unlock);
    q_unlock(&q_caches.lock);
}

/* Names stand in slabinfo, whose columns are separated by blanks, and in JSON. */
static bool good_name(const char *name)
{
    size_t n = 0;

    if (name == NULL)
        return false;
    for (; name[n] != '\0'; n++)
        if (n >= Q_CACHE_NAME - 1 || name[n] <= ' ' || name[n] > '~' || name[n] == '"' ||
            name[n] == '\\')
            return false;
    return n > 0;
}

static bool good_flags(unsigned flags, bool ctor)
{
    if ((flags & ~(Q_CACHE_HWALIGN | Q_CACHE_TYPESAFE | Q_CACHE_CHECKED)) != 0)
        return false;
    /* What poison writes into a free object is what the others promise to leave alone. */
    return (flags & Q_CACHE_POISON) == 0 || (!ctor && (flags & Q_CACHE_TYPESAFE) == 0);
}

/*
 * Of the alignment that a type of this size may need. With HWALIGN, as in the
 * kernel: a small object need not have a cache line of its own, but must not
 * straddle two.
 */
static uint32_t alignment(size_t size, size_t align, unsigned flags)
{
    size_t line = Q_CACHELINE;

    while (size <= line / 2)
        line /= 2;
    align = q_max(align, size % 16 == 0 ? 16 : 8);
    return (uint32_t)(flags & Q_CACHE_HWALIGN ? q_max(align, line) : align);
}

static size_t waste(size_t stride, unsigned order)
{
    size_t bytes = q_page_size() << order;

    return bytes < stride ? SIZE_MAX : bytes % stride;
}

/* The smallest order that wastes little; else the one that wastes the smallest part. */
static unsigned slab_order(size_t stride)
{
    unsigned best = Q_MAX_ORDER;

    for (unsigned order = Q_MAX_ORDER + 1; order-- > q_slab_order();) {
        size_t bytes = q_page_size() << order, lost = waste(stride, order);

        if (lost <= bytes / WASTE_SHARE ||
            (lost != SIZE_MAX && lost << (best - order) <= waste(stride, best)))
            best = order;
    }
    return best;
}

static void set_sizes(struct q_cache *c, size_t size, size_t align)
{
    size_t stride = q_max(size, LEAST_STRIDE);

    c->size = (uint32_t)size;
    c->align = alignment(size, align, c->flags);
    if (c->flags & Q_CACHE_RED_ZONE) {
        c->left = (uint32_t)q_max(c->align, RED_ZONE);
        stride = c->left + size + RED_ZONE;
    }
    c->stride = (uint32_t)q_align_up(stride, c->align);
    c->order = slab_order(c->stride);
    c->objs = (uint32_t)((q_page_size() << c->order) / c->stride);
    c->mult = UINT64_MAX / c->stride + 1; /* ceil(2^64 / stride): stride is at least 2 */
    c->limit = (uint64_t)c->objs * (c->mult * c->stride); /* mod 2^64 the product is the excess */
    c->batch = (uint32_t)q_max(q_min(MAG_BYTES / c->stride, Q_MAG_MAX) / 2, 1);
}

/* q_caches.lock held. */
static bool take_id(struct q_cache *c)
{
    for (uint32_t id = 0; id < Q_MAX_CACHES; id++) {
        if (q_caches.ids[id / 64] >> (id % 64) & 1)
            continue;
        q_caches.ids[id / 64] |= 1ull << (id % 64);
        c->id = id;
        return true;
    }
    return false;
}

int q_cache_create(const char *name, size_t size, size_t align, unsigned flags,
                   void (*ctor)(void *), struct q_cache **out)
{
    struct q_cache *c;

    align = q_max(align, 1);
    if (!good_name(name) || !good_flags(flags, ctor != NULL) || size == 0 ||
        (align & (align - 1)) != 0 || align > Q_SLAB_SIZE || size > q_max_block_size())
        return EINVAL;
    c = q_inner_alloc(sizeof(*c) + q_topology.nr_nodes * sizeof(c->node[0]));
    if (c == NULL)
        return ENOMEM;
    c->flags = flags;
    c->ctor = ctor;
    memcpy(c->name, name, strlen(name));
    set_sizes(c, size, align);
    if (c->stride > q_max_block_size()) {
        q_inner_free(c);
        return EINVAL;
    }
    q_lock(&q_caches.lock);
    bool done = take_id(c);
    if (done) {
        q_list_add_tail(&q_caches.list, &c->list);
        q_caches.nr++;
        c->magic = MAGIC ^ (uintptr_t)c;
    }
    q_unlock(&q_caches.lock);
    if (!done) {
        q_inner_free(c);
        return ENOSPC;
    }
    *out = c;
    return 0;
}

static void note_live(const struct q_cache_slab *s, struct q_leaks *leaks)
{
    for (uint32_t k = 0; k < s->carved; k++) {
        if (s->state[k] != Q_OBJ_LIVE)
            continue;
        if (leaks->nr < Q_LEAKS_SHOWN)
            leaks->object[leaks->nr] = s->start + (size_t)k * s->cache->stride + s->cache->left;
        leaks->nr++;
    }
}

static void note_list(struct q_list *list, struct q_leaks *leaks)
{
    for (struct q_list *l = list->next; l != NULL && l != list; l = l->next)
        note_live(q_container_of(l, struct q_cache_slab, list), leaks);
}

/* Take every thread's magazine for the cache away: its objects are gone with their slabs. */
static void forget_magazines(const struct q_cache *c)
{
    /* Acquire: who sees the number sees the heaps. */
    uint32_t nr = atomic_load_explicit(&q_nr_heaps, memory_order_acquire);

    for (uint32_t id = 1; id <= nr; id++) {
        struct q_heap *heap = q_heaps[id];
        struct q_mag *mag = heap->nr_mags > c->id ? heap->mags[c->id] : &q_mag_none;

        if (mag != &q_mag_none) {
            heap->mags[c->id] = &q_mag_none;
            q_inner_free(mag);
        }
    }
}

bool q_cache_destroy(struct q_cache *c, struct q_leaks *leaks)
{
    *leaks = (struct q_leaks){0};
    /* With it held no thread that ends can be giving back what its magazine holds. */
    q_lock(&q_caches.lock);
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        struct q_cache_node *node = &c->node[nid];

        q_lock(&node->lock);
        note_list(&node->partial, leaks);
        note_list(&node->full, leaks);
        q_unlock(&node->lock);
    }
    if (leaks->nr == 0) {
        forget_magazines(c);
        q_list_del(&c->list);
        q_caches.nr--;
        q_caches.ids[c->id / 64] &= ~(1ull << (c->id % 64));
        c->magic = 0;
        c->id = UINT32_MAX; /* what is left of it leads to nobody's magazine */
    }
    q_unlock(&q_caches.lock);
    if (leaks->nr > 0)
        return false;
    q_cache_release_all(c);
    q_inner_free(c);
    return true;
}

/* Objects in magazines. Threads may be at work: a hint. q_caches.lock held, so tables stay as they are. */
static size_t count_cached(const struct q_cache *c)
{
    uint32_t nr = atomic_load_explicit(&q_nr_heaps, memory_order_acquire);
    size_t n = 0;

    for (uint32_t id = 1; id <= nr; id++) {
        if (q_heaps[id]->nr_mags > c->id)
            n += q_mag_nr(q_heaps[id]->mags[c->id]);
    }
    return n;
}

void q_cache_stat(struct q_cache *c, struct q_cache_stat *st)
{
    size_t out = 0;

    *st = (struct q_cache_stat){.cached = count_cached(c)};
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        struct q_cache_node *node = &c->node[nid];

        q_lock(&node->lock);
        out += node->nr_out;
        st->slabs += node->nr_slabs;
        st->empty += node->nr_empty;
        q_unlock(&node->lock);
    }
    st->cached = q_min(st->cached, out);
    st->live = out - st->cached;
}

size_t q_caches_shrink(void)
{
    size_t bytes = 0;

    q_lock(&q_caches.lock);
    for (struct q_list *l = q_caches.list.next; l != NULL && l != &q_caches.list; l = l->next) {
        struct q_cache *c = q_container_of(l, struct q_cache, list);

        if ((c->flags & Q_CACHE_TYPESAFE) == 0)
            bytes += q_cache_shrink(c);
    }
    q_unlock(&q_caches.lock);
    return bytes;
}
