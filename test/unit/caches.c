/* caches.c - object caches inside: slabs, lists, states and counters against what the test knows. */
#include <pthread.h>
#include <string.h>

#include "core.h"
#include "slab/cache.h"
#include "slab/slub.h"

#define OBJECTS 4000

struct object {
    unsigned char *p, byte;
};

static struct q_cache *make(size_t size, size_t align, unsigned flags)
{
    struct q_cache *c = NULL;

    must_eq(q_cache_create("unit", size, align, flags, NULL, &c), 0);
    must(q_cache_valid(c));
    return c;
}

static void *get(struct q_cache *c)
{
    struct q_cache_fault fault = {.result = Q_CACHE_OK};
    void *p = q_cache_pop(c);

    if (p == NULL) {
        q_enter();
        p = q_cache_alloc_slow(c, &fault);
        q_leave();
    }
    must_eq(fault.result, Q_CACHE_OK);
    must(p != NULL);
    return p;
}

static enum q_cache_result put(struct q_cache *c, void *p)
{
    struct q_cache_fault fault = {.result = Q_CACHE_OK};

    if (!q_cache_push(c, p)) {
        q_enter();
        q_cache_free_slow(c, p, &fault);
        q_leave();
    }
    return fault.result;
}

/* One slab: its counters are those of its states and bits. */
static size_t check_slab(const struct q_cache *c, const struct q_cache_slab *s,
                         const struct q_list *on)
{
    uint32_t in = 0, out = 0;

    must(s->cache == c && s->on == on);
    must(q_unit_page(s->start) == s->page && q_page_is_owned(s->page));
    for (uint32_t k = 0; k < c->objs; k++) {
        bool bit = s->free[k / 64] >> (k % 64) & 1;

        must(bit == (s->state[k] == Q_OBJ_IN_SLAB));
        must((s->state[k] == Q_OBJ_NONE) == (k >= s->carved));
        in += bit;
        out += s->state[k] == Q_OBJ_LIVE || s->state[k] == Q_OBJ_IN_MAG;
    }
    must_eq(s->state[c->objs], Q_OBJ_NONE);
    must_eq(in, s->nr_free);
    must_eq(in + out, s->carved);
    return out;
}

static size_t check_list(const struct q_cache *c, const struct q_list *list, size_t *slabs)
{
    size_t out = 0;

    for (struct q_list *l = list->next; l != NULL && l != list; l = l->next, ++*slabs)
        out += check_slab(c, q_container_of(l, struct q_cache_slab, list), list);
    return out;
}

static void check_cache(struct q_cache *c, size_t live)
{
    struct q_cache_stat st;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        struct q_cache_node *node = &c->node[nid];
        size_t slabs = 0, empty = 0, out = check_list(c, &node->empty, &empty);

        must_eq(out, 0);
        must_eq(node->nr_empty, empty);
        out = check_list(c, &node->partial, &slabs) + check_list(c, &node->full, &slabs);
        must_eq(out, node->nr_out);
        must_eq(slabs + empty, node->nr_slabs);
    }
    q_lock(&q_caches.lock);
    q_cache_stat(c, &st);
    q_unlock(&q_caches.lock);
    must_eq(st.live, live);
}

static void random_objects(size_t size, size_t align, unsigned flags)
{
    static struct object live[OBJECTS];
    struct rng r = rng_new(size);
    struct q_cache *c = make(size, align, flags);
    struct q_leaks leaks;
    size_t nr = 0, most = q_min(OBJECTS, ((size_t)8 << 20) / size);

    for (int step = 0; step < 30000; step++) {
        bool filling = step / 5000 % 2 == 0;

        if ((rng_below(&r, 8) < 6) == filling ? nr < most : nr == 0) {
            struct object o = {get(c), (unsigned char)rng_next(&r)};
            must_eq((uintptr_t)o.p & (q_max(align, 8) - 1), 0);
            o.p[0] = o.p[size - 1] = o.byte;
            live[nr++] = o;
        } else if (nr > 0) {
            size_t i = rng_below(&r, nr);
            must(live[i].p[0] == live[i].byte && live[i].p[size - 1] == live[i].byte);
            must_eq(put(c, live[i].p), Q_CACHE_OK);
            /* Its slab may have gone with it. */
            enum q_cache_result again = put(c, live[i].p);
            must(again == Q_CACHE_TWICE ||
                 (again == Q_CACHE_NOT_OBJECT && !q_unit_page(live[i].p)));
            live[i] = live[--nr];
        }
        if (step % 3000 == 0)
            check_cache(c, nr);
    }
    must(nr == 0 || !q_cache_destroy(c, &leaks));
    must_eq(nr == 0 ? 0 : leaks.nr, nr);
    while (nr > 0)
        must_eq(put(c, live[--nr].p), Q_CACHE_OK);
    check_cache(c, 0);
    must(q_cache_destroy(c, &leaks));
    must_eq(q_caches.nr, 0);
}

static void all_sizes(enum core_kind kind)
{
    core_start_slabs(kind);
    random_objects(1, 1, 0);
    random_objects(40, 8, 0);
    random_objects(64, 64, Q_CACHE_TYPESAFE);
    random_objects(700, 1, Q_CACHE_HWALIGN);
    random_objects(5000, 1, Q_CACHE_RED_ZONE | Q_CACHE_POISON);
    random_objects(300000, 1, 0);
    q_slub_trim();
    q_reclaim_all(0);
    core_check();
}

Test(caches, random_flat, .timeout = 600)
{
    all_sizes(CORE_FLAT);
}

Test(caches, random_discontiguous, .timeout = 600)
{
    all_sizes(CORE_NUMA);
}

Test(caches, random_sparse, .timeout = 600)
{
    all_sizes(CORE_SPARSE);
}

/* Takes a node's lock and is never seen again, in the middle of a change. */
static void *vanish(void *node)
{
    struct q_cache_node *n = node;

    q_lock(&n->lock);
    n->partial.next = n->full.prev = &n->empty;
    n->nr_out += 7;
    n->nr_slabs = 0;
    return NULL;
}

/* What the child of a fork makes of it: lists, bits and counters from the states. */
Test(caches, salvaged_after_fork, .timeout = 600)
{
    static void *p[3000];
    pthread_t t;

    core_start_slabs(CORE_FLAT);
    struct q_cache *c = make(100, 1, 0), *other = make(100, 1, 0);
    struct q_leaks leaks;
    void *foreign = get(other);
    for (int i = 0; i < 3000; i++)
        p[i] = get(c);
    for (int i = 0; i < 3000; i += 2)
        must_eq(put(c, p[i]), Q_CACHE_OK);
    must(pthread_create(&t, NULL, vanish, &c->node[0]) == 0);
    pthread_join(t, NULL);
    q_cache_fork_child();
    check_cache(c, 1500);
    for (int i = 0; i < 3000; i += 2)
        p[i] = get(c);
    check_cache(c, 3000);
    for (int i = 0; i < 3000; i++)
        must_eq(put(c, p[i]), Q_CACHE_OK);
    must_eq(put(other, foreign), Q_CACHE_OK);
    must(q_cache_destroy(c, &leaks) && q_cache_destroy(other, &leaks));
    core_check();
}

/* For every stride: the multiplication knows each boundary, and nothing but boundaries. */
Test(caches, boundaries, .timeout = 600)
{
    core_start_slabs(CORE_FLAT);
    for (size_t size = 1; size < 5000; size = size < 300 ? size + 1 : size + 97) {
        struct q_cache *c = make(size, 1, 0);
        struct q_leaks leaks;
        size_t bytes = q_page_size() << c->order;

        must((size_t)c->objs * c->stride <= bytes && ((size_t)c->objs + 1) * c->stride > bytes);
        for (size_t off = 0; off < bytes; off += 1 + off % 3) {
            struct q_product at = q_multiply(off, c->mult);
            bool boundary = at.low <= c->limit;

            must_eq(boundary, off % c->stride == 0);
            must(!boundary || at.high == off / c->stride);
        }
        must(q_cache_destroy(c, &leaks));
    }
}

/* Orders: little is wasted, and what fits a largest block is served. */
Test(caches, orders, .timeout = 600)
{
    core_start_slabs(CORE_FLAT);
    for (size_t size = 1000; size <= q_max_block_size(); size += size / 7) {
        struct q_cache *c = make(size, 1, 0);
        struct q_leaks leaks;
        size_t bytes = q_page_size() << c->order, lost = bytes - (size_t)c->objs * c->stride;

        must(c->order >= q_slab_order() && c->order <= Q_MAX_ORDER && c->objs > 0);
        must(lost <= bytes / 2);
        for (unsigned order = q_slab_order(); lost > bytes / 8 && order <= Q_MAX_ORDER; order++) {
            size_t other = q_page_size() << order;
            must(other < c->stride || other % c->stride > other / 8);
        }
        must(q_cache_destroy(c, &leaks));
    }
}
