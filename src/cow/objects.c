/*
 * objects.c - the objects of a cache that were live at the cut.
 *
 * What a cache knows of its objects (slab/cache.h) lies in malloc's memory, so
 * the snapshot has that, too, of the same instant. The cut holds the caches'
 * locks, so lists and counters are whole; and the state of each object is one
 * byte, written by whoever has it.
 *
 *   in the snapshot:   cache --> node[nid].partial, full --> slab: start, state[k]
 *
 * Nothing of this is trusted to be as the cache is now.
 */
#include "cow/cow.h"
#include "cow/image.h"
#include "numa/topology.h"
#include "slab/cache.h"

struct found {
    uint64_t start; /* of its objects: sorted by this */
    uintptr_t slab;
};

struct walk {
    const struct quire_snapshot *s;
    const struct q_cache *c;   /* where the program has it */
    struct q_cache then;       /* as it was */
    struct q_cache_slab *slab; /* room for one with the states of all its objects */
    struct found *found;
    size_t nr, room;
};

/* All of it lies in one stretch, as it was one block. */
static int get(const struct walk *w, uintptr_t addr, void *to, size_t len)
{
    const struct q_range *r = q_ranges_find(&w->s->ranges, addr);

    if (r == NULL || len > r->end - addr)
        return EFAULT;
    return q_snapshot_copy(w->s, addr, to, len);
}

/* The slabs on one of the cache's lists. */
static int find_slabs(struct walk *w, uintptr_t head, size_t most)
{
    struct q_list list;
    int error = get(w, head, &list, sizeof(list));

    for (uintptr_t at = (uintptr_t)list.next; error == 0 && at != 0 && at != head;
         at = (uintptr_t)w->slab->list.next) {
        uintptr_t slab = at - offsetof(struct q_cache_slab, list);

        error = get(w, slab, w->slab, sizeof(*w->slab));
        if (error == 0 && (w->slab->cache != w->c || most-- == 0))
            error = EIO;
        if (error == 0 && !q_grow_array((void **)&w->found, &w->room, w->nr + 1, sizeof(*w->found)))
            error = ENOMEM;
        if (error == 0)
            w->found[w->nr++] = (struct found){(uintptr_t)w->slab->start, slab};
    }
    return error;
}

static int find_all(struct walk *w)
{
    int error = 0;

    for (unsigned nid = 0; nid < q_topology.nr_nodes && error == 0; nid++) {
        uintptr_t at = (uintptr_t)&w->c->node[nid];
        struct q_cache_node node;

        error = get(w, at, &node, sizeof(node));
        if (error == 0)
            error = find_slabs(w, at + offsetof(struct q_cache_node, partial), node.nr_slabs);
        if (error == 0)
            error = find_slabs(w, at + offsetof(struct q_cache_node, full), node.nr_slabs);
    }
    return error;
}

static int show_slab(struct walk *w, uintptr_t slab, int (*fn)(void *arg, const void *object),
                     void *arg)
{
    int error = get(w, slab, w->slab, sizeof(*w->slab) + w->then.objs);

    for (uint32_t k = 0; error == 0 && k < w->then.objs; k++)
        if (w->slab->state[k] == Q_OBJ_LIVE &&
            fn(arg, w->slab->start + (size_t)k * w->then.stride + w->then.left) != 0)
            error = ECANCELED;
    return error;
}

static int show_all(struct walk *w, int (*fn)(void *arg, const void *object), void *arg)
{
    int error = find_all(w);

    if (error == 0)
        q_sort_by_start(w->found, w->nr, sizeof(*w->found));
    for (size_t i = 0; i < w->nr && error == 0; i++)
        error = show_slab(w, w->found[i].slab, fn, arg);
    if (w->found != NULL)
        q_munmap(w->found, q_align_up(w->room * sizeof(*w->found), q_page_size()));
    return error;
}

/* The cache as it was; and room that is not the heap's. */
static int begin(struct walk *w)
{
    int error = get(w, (uintptr_t)w->c, &w->then, sizeof(w->then));

    if (error != 0)
        return error;
    return q_cache_was_valid(&w->then, w->c) && w->then.objs <= Q_SMALL_MAX ? 0 : EINVAL;
}

static int objects(const struct quire_snapshot *s, const struct q_cache *c,
                   int (*fn)(void *arg, const void *object), void *arg)
{
    size_t page = q_page_size();
    struct walk *w = q_mmap(NULL, q_align_up(sizeof(*w), page), PROT_READ | PROT_WRITE, 0);

    if (w == NULL)
        return ENOMEM;
    w->s = s;
    w->c = c;
    int error = begin(w);
    if (error == 0) {
        size_t bytes = q_align_up(sizeof(*w->slab) + w->then.objs, page);
        w->slab = q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);
        error = w->slab != NULL ? show_all(w, fn, arg) : ENOMEM;
        if (w->slab != NULL)
            q_munmap(w->slab, bytes);
    }
    q_munmap(w, q_align_up(sizeof(*w), page));
    return error;
}

Q_PUBLIC int quire_snapshot_objects(const quire_snapshot_t *s, const struct quire_cache *cache,
                                    int (*fn)(void *arg, const void *object), void *arg)
{
    int error = q_snapshot_check(s);

    if (error == 0 && s->method == QUIRE_SNAPSHOT_BY_IMAGE)
        error = EINVAL;
    if (error == 0)
        error = objects(s, (const struct q_cache *)(const void *)cache, fn, arg);
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}
