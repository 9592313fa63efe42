/*
 * cache_slab.c - the slabs of object caches, and their lists.
 *
 * A slab is on one of its node's lists, by what is in it:
 *
 *   full      everything is out: live, or in magazines
 *   empty     everything carved is in
 *   partial   neither
 *
 * Lists and counters change under the node's lock. Slabs are made and given
 * back without it: they belong to nobody else then.
 */
#include "slab/cache.h"

#include "base/msg.h"
#include "numa/mempolicy.h"
#include "numa/topology.h"
#include "zone/page_alloc.h"

#define KEEP_EMPTY                                                                                 \
    1u /* slabs of 64 KiB that a node keeps, lest one object be made and freed in turn */

static size_t bitmap_words(const struct q_cache *c)
{
    return (c->objs + 63) / 64;
}

static struct q_cache_slab *create_slab(struct q_cache *c)
{
    size_t states = q_align_up(c->objs + 1, sizeof(uint64_t));
    struct q_cache_slab *s =
        q_inner_alloc(sizeof(*s) + states + bitmap_words(c) * sizeof(uint64_t));

    if (s == NULL)
        return NULL;
    s->page = q_alloc_pages(Q_GFP_KERNEL, c->order);
    if (s->page == NULL) {
        q_inner_free(s);
        return NULL;
    }
    s->cache = c;
    s->start = q_page_address(s->page);
    s->nid = q_pfn_zone(q_page_to_pfn(s->page))->nid;
    s->free = (uint64_t *)(void *)(s->state + states);
    q_unit_claim(s->page, Q_OWNER_CACHE, c, s);
    return s;
}

static void destroy_slab(struct q_cache_slab *s)
{
    q_unit_release(s->page);
    q_inner_free(s);
}

static struct q_list *home(struct q_cache_node *node, const struct q_cache_slab *s)
{
    if (s->nr_free == s->carved)
        return &node->empty;
    return s->nr_free == 0 && s->carved == s->cache->objs ? &node->full : &node->partial;
}

/* The slab's numbers have changed: move it to the list where it belongs now. */
static void settle(struct q_cache_node *node, struct q_cache_slab *s)
{
    struct q_list *is = home(node, s);

    if (is == s->on)
        return;
    q_list_del(&s->list);
    q_list_add(is, &s->list);
    node->nr_empty += (size_t)(is == &node->empty) - (size_t)(s->on == &node->empty);
    s->on = is;
}

void q_cache_relist(struct q_cache_node *node, struct q_cache_slab *s)
{
    s->on = home(node, s);
    q_list_add(s->on, &s->list);
    node->nr_slabs++;
    node->nr_empty += s->on == &node->empty;
    node->nr_out += s->carved - s->nr_free;
}

static struct q_cache_slab *first_of(struct q_list *list)
{
    return q_list_empty(list) ? NULL : q_container_of(list->next, struct q_cache_slab, list);
}

static struct q_mag_entry entry(struct q_cache_slab *s, uint32_t k)
{
    s->state[k] = Q_OBJ_IN_MAG;
    return (struct q_mag_entry){s->start + (size_t)k * s->cache->stride + s->cache->left,
                                &s->state[k]};
}

/* Objects that were freed into the slab. */
static uint32_t take_freed(struct q_cache_slab *s, struct q_mag_entry *e, uint32_t n)
{
    uint32_t got = 0;

    while (got < n && s->nr_free > 0) {
        uint64_t *word = &s->free[s->hint];

        if (*word == 0) {
            s->hint++;
            continue;
        }
        unsigned bit = (unsigned)__builtin_ctzll(*word);
        *word &= *word - 1;
        s->nr_free--;
        e[got++] = entry(s, s->hint * 64 + bit);
    }
    return got;
}

/* The node's lock is held. */
static uint32_t take_from(struct q_cache_node *node, struct q_cache_slab *s, struct q_mag_entry *e,
                          uint32_t n, uint64_t *fresh)
{
    uint32_t got = take_freed(s, e, n);

    *fresh = 0;
    while (got < n && s->carved < s->cache->objs) {
        *fresh |= 1ull << got;
        e[got++] = entry(s, s->carved++);
    }
    node->nr_out += got;
    settle(node, s);
    return got;
}

static uint32_t take_on(struct q_cache_node *node, struct q_mag_entry *e, uint32_t n,
                        uint64_t *fresh)
{
    uint32_t got = 0;

    *fresh = 0;
    q_lock(&node->lock);
    while (got < n) {
        struct q_cache_slab *s = first_of(&node->partial);
        uint64_t some;

        if (s == NULL && got == 0) /* an empty one only if there is nothing else */
            s = first_of(&node->empty);
        if (s == NULL)
            break;
        uint32_t now = take_from(node, s, e + got, n - got, &some);
        *fresh |= some << got;
        got += now;
    }
    q_unlock(&node->lock);
    return got;
}

/* A new slab, wherever the policy and memory allow. */
static uint32_t take_new(struct q_cache *c, struct q_mag_entry *e, uint32_t n, uint64_t *fresh)
{
    struct q_cache_slab *s = create_slab(c);

    if (s == NULL)
        return 0;
    struct q_cache_node *node = &c->node[s->nid];
    q_lock(&node->lock);
    q_cache_relist(node, s);
    uint32_t got = take_from(node, s, e, n, fresh);
    q_unlock(&node->lock);
    return got;
}

uint32_t q_cache_take(struct q_cache *c, struct q_mag_entry *e, uint32_t n, uint64_t *fresh)
{
    uint32_t got = take_on(&c->node[q_policy_peek()], e, n, fresh);

    if (got == 0)
        got = take_new(c, e, n, fresh);
    /* No memory: what other nodes have is better than nothing. */
    for (unsigned nid = 0; got == 0 && nid < q_topology.nr_nodes; nid++)
        got = take_on(&c->node[nid], e, n, fresh);
    return got;
}

/* The slab of an object of c; the last one's as likely as not. */
static struct q_cache_slab *slab_of(const struct q_cache *c, const struct q_mag_entry *e,
                                    struct q_cache_slab *last)
{
    if (last != NULL && (size_t)(e->state - last->state) < c->objs)
        return last;
    struct q_cache_slab *s = q_unit_info(q_unit_of(e->object));
    q_assert(s->cache == c);
    return s;
}

/* Unlink what there is too much of; NULL: nothing. The node's lock is held. */
static struct q_cache_slab *surplus(const struct q_cache *c, struct q_cache_node *node)
{
    size_t keep = c->order > q_slab_order() ? 0 : KEEP_EMPTY;

    if ((c->flags & Q_CACHE_TYPESAFE) != 0 || node->nr_empty <= keep)
        return NULL;
    struct q_cache_slab *s = first_of(&node->empty);
    q_list_del(&s->list);
    node->nr_empty--;
    node->nr_slabs--;
    return s;
}

/* One object back into its slab; the node's lock is held. */
static void put_one(struct q_cache_node *node, struct q_cache_slab *s, const struct q_mag_entry *e)
{
    uint32_t k = (uint32_t)(e->state - s->state);

    *e->state = Q_OBJ_IN_SLAB;
    s->free[k / 64] |= 1ull << (k % 64);
    s->hint = (uint32_t)q_min(s->hint, k / 64);
    s->nr_free++;
    node->nr_out--;
    if (s->nr_free == 1 || s->nr_free == s->carved)
        settle(node, s);
}

void q_cache_put(struct q_cache *c, const struct q_mag_entry *e, uint32_t n)
{
    while (n > 0) {
        struct q_cache_slab *s = slab_of(c, e, NULL), *gone = NULL;
        struct q_cache_node *node = &c->node[s->nid];

        /* As many as lie on the same node, until a slab has to go. */
        q_lock(&node->lock);
        do {
            /* Others stand in magazines that a fork cut off in the middle of a change. */
            if (*e->state == Q_OBJ_IN_MAG)
                put_one(node, s, e);
            e++;
            n--;
            gone = surplus(c, node);
            s = n > 0 ? slab_of(c, e, s) : NULL;
        } while (gone == NULL && s != NULL && &c->node[s->nid] == node);
        q_unlock(&node->lock);
        if (gone != NULL)
            destroy_slab(gone);
    }
}

size_t q_cache_release_empty(struct q_cache *c, struct q_cache_node *node)
{
    size_t bytes = 0;

    for (;;) {
        q_lock(&node->lock);
        struct q_cache_slab *s = first_of(&node->empty);
        if (s != NULL) {
            q_list_del(&s->list);
            node->nr_empty--;
            node->nr_slabs--;
        }
        q_unlock(&node->lock);
        if (s == NULL)
            return bytes;
        destroy_slab(s);
        bytes += q_page_size() << c->order;
    }
}

static void release_list(struct q_list *list)
{
    struct q_cache_slab *s;

    while ((s = first_of(list)) != NULL) {
        q_list_del(&s->list);
        destroy_slab(s);
    }
}

void q_cache_release_all(struct q_cache *c)
{
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        release_list(&c->node[nid].partial);
        release_list(&c->node[nid].full);
        release_list(&c->node[nid].empty);
    }
}
