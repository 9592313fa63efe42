/* remote.c - see remote.h: the shared lists of slabs that nobody owns. */
#include "slab/remote.h"

#include "base/msg.h"
#include "numa/mempolicy.h"
#include "slab/holes.h"
#include "zone/page_alloc.h"

static struct q_shared_list *shared; /* [node][class] */

static struct q_shared_list *list_of(unsigned nid, unsigned cls)
{
    return &shared[nid * Q_NR_CLASSES + cls];
}

bool q_shared_init(void)
{
    shared = q_meta_alloc(q_topology.nr_nodes * Q_NR_CLASSES * sizeof(*shared));
    return shared != NULL;
}

void q_shared_lock_all(bool patient)
{
    for (unsigned i = 0; i < q_topology.nr_nodes * Q_NR_CLASSES; i++)
        q_lock_for_fork(&shared[i].lock, patient);
}

void q_shared_unlock_all(void)
{
    for (unsigned i = 0; i < q_topology.nr_nodes * Q_NR_CLASSES; i++)
        q_unlock_for_fork(&shared[i].lock);
}

static uint32_t *head_for(struct q_shared_list *l, const struct q_slab *s)
{
    return (s->flags & Q_SLAB_COMMON) != 0 ? &l->common : &l->first;
}

static void link_shared(struct q_shared_list *l, struct q_slab *s)
{
    uint32_t *head = head_for(l, s);

    s->prev = 0;
    s->next = *head;
    if (*head != 0)
        q_slab_at(*head)->prev = q_slab_number(s);
    __atomic_store_n(head, q_slab_number(s), __ATOMIC_RELAXED); /* somebody may peek */
    l->nr++;
}

static void unlink_shared(struct q_shared_list *l, struct q_slab *s)
{
    if (s->prev != 0)
        q_slab_at(s->prev)->next = s->next;
    else
        __atomic_store_n(head_for(l, s), s->next, __ATOMIC_RELAXED);
    if (s->next != 0)
        q_slab_at(s->next)->prev = s->prev;
    s->next = s->prev = 0;
    l->nr--;
}

/*
 * The lists as they should be: of the slabs whose word says that they are
 * shared. Inside a change, under the list's lock, a slab may be linked before
 * its word says so, and unlinked before it ceases to.
 */
static void relink_all(void)
{
    for (unsigned i = 0; i < q_topology.nr_nodes * Q_NR_CLASSES; i++)
        shared[i].first = shared[i].common = shared[i].nr = 0;
    for (size_t pfn = 0; pfn < q_mem.max_pages; pfn += (size_t)1 << q_slab_order()) {
        if (!q_pfn_online(pfn)) {
            pfn = q_next_section(pfn) - ((size_t)1 << q_slab_order());
            continue;
        }
        struct q_slab *s = q_slab_at((uint32_t)(pfn >> q_slab_order()) + 1);
        uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed);
        if (q_page_type_of(q_slab_page(s)) == Q_PAGE_SLAB && (w & Q_REMOTE_SHARED) != 0)
            link_shared(list_of(q_slab_nid(s), s->cls), s);
    }
}

void q_shared_fork_child(void)
{
    bool lost = false;

    for (unsigned i = 0; i < q_topology.nr_nodes * Q_NR_CLASSES; i++)
        lost |= q_lock_after_fork(&shared[i].lock);
    if (lost)
        relink_all();
}

static struct q_object *last_of(struct q_object *o)
{
    while (o != NULL && o->next != NULL)
        o = o->next;
    return o;
}

/* A slab without a free object belongs on no list: it is full, and waits for its first free. */
static bool put_full(struct q_slab *s)
{
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed);

    if (s->carved < q_slab_class(s)->objs || s->holes != 0 || q_remote_count(w) > 0)
        return false;
    q_slab_disarm(s);
    s->used = 1; /* as in q_slub_collect() */
    s->debt = (int16_t)(s->carved - 1);
    s->flags = 0;
    /* Release: the next owner sees the slab as it is. */
    return atomic_compare_exchange_strong_explicit(
        &s->remote, &w, q_remote_make(s, w, NULL, 0, 0) & ~Q_REMOTE_WARNED, memory_order_release,
        memory_order_relaxed);
}

void q_shared_put(struct q_slab *s, struct q_object *list, uint32_t nr)
{
    struct q_shared_list *l = list_of(q_slab_nid(s), s->cls);
    struct q_object *last = last_of(list);
    uint64_t w, now;

    if (nr == 0 && put_full(s))
        return;
    q_slab_disarm(s);
    s->freelist = NULL;
    s->flags = 0;
    q_lock(&l->lock);
    link_shared(l, s);
    w = atomic_load_explicit(&s->remote, memory_order_relaxed);
    do {
        if (last != NULL)
            last->next = q_remote_head(s, w);
        now = q_remote_make(s, w, list != NULL ? list : q_remote_head(s, w), nr + q_remote_count(w),
                            0);
        now = (now | Q_REMOTE_SHARED) & ~Q_REMOTE_WARNED;
        /* Release: whoever takes the slab sees its lists and counters. Acquire: the objects that others freed. */
    } while (!atomic_compare_exchange_weak_explicit(&s->remote, &w, now, memory_order_acq_rel,
                                                    memory_order_relaxed));
    bool empty = q_remote_count(now) + q_slab_absent(s) == s->carved;
    if (empty) {
        unlink_shared(l, s);
        atomic_store_explicit(&s->remote, 0, memory_order_relaxed);
    }
    q_unlock(&l->lock);
    if (empty)
        q_slab_destroy(s);
}

bool q_shared_add(struct q_slab *s, struct q_object *head, struct q_object *tail, uint32_t nr)
{
    unsigned cls = s->cls; /* stable: the caller's objects keep the slab in being */
    struct q_shared_list *l = list_of(q_slab_nid(s), cls);
    bool done = false, empty = false;

    q_lock(&l->lock);
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed);
    if (q_remote_owner(w) == 0 && (w & Q_REMOTE_SHARED) == 0) {
        tail->next = q_remote_head(s, w);
        uint64_t now = q_remote_make(s, w, head, nr + q_remote_count(w), 0) | Q_REMOTE_SHARED;
        /* Acquire: the slab's fields as its last owner left them. Release: the objects' links. */
        done = atomic_compare_exchange_strong_explicit(&s->remote, &w, now, memory_order_acq_rel,
                                                       memory_order_relaxed);
        if (done) {
            empty = q_remote_count(now) == s->carved;
            if (empty)
                atomic_store_explicit(&s->remote, 0, memory_order_relaxed);
            else
                link_shared(l, s);
        }
    }
    q_unlock(&l->lock);
    if (empty)
        q_slab_destroy(s);
    return done;
}

/* Used by many once, and by few now: worth having, even though others have objects of it. */
static bool nearly_free(const struct q_slab *s)
{
    uint32_t nr = q_remote_count(atomic_load_explicit(&s->remote, memory_order_relaxed));

    return 2u * s->carved >= q_slab_class(s)->objs && 4 * nr >= 3u * s->carved;
}

/* The slab that a heap may have for its own; the list's lock held. */
static struct q_slab *first_to_take(const struct q_shared_list *l, bool any)
{
    if (l->first != 0)
        return q_slab_at(l->first);
    if (l->common != 0 && (any || nearly_free(q_slab_at(l->common))))
        return q_slab_at(l->common);
    return NULL;
}

static struct q_slab *take_from(struct q_shared_list *l, uint16_t owner, bool any)
{
    uint64_t w, now;

    /* Relaxed peeks: missing a slab that is just being added costs nothing. */
    if (__atomic_load_n(&l->first, __ATOMIC_RELAXED) == 0 &&
        __atomic_load_n(&l->common, __ATOMIC_RELAXED) == 0)
        return NULL;
    q_lock(&l->lock);
    struct q_slab *s = first_to_take(l, any);
    if (s != NULL) {
        unlink_shared(l, s);
        w = atomic_load_explicit(&s->remote, memory_order_relaxed);
        do {
            now = q_remote_make(s, w, NULL, 0, owner) & ~(Q_REMOTE_SHARED | Q_REMOTE_WARNED);
            now = q_remote_with_home(now, owner);
            /* Acquire: what the freers and the last owner wrote. */
        } while (!atomic_compare_exchange_weak_explicit(&s->remote, &w, now, memory_order_acquire,
                                                        memory_order_relaxed));
        s->freelist = q_remote_head(s, w);
        s->used = s->carved - q_remote_count(w);
        s->debt = 0;
        s->flags = 0;
    }
    q_unlock(&l->lock);
    return s;
}

/*
 * Is s, whose word was read before and under this class's lock, a slab of it
 * that nobody owns? Only if so do in_use and cls keep still, and then they say so.
 */
static bool still_shared(const struct q_slab *s, unsigned cls, uint64_t w)
{
    return (w & Q_REMOTE_SHARED) != 0 && q_remote_owner(w) == 0 &&
           __atomic_load_n(&s->in_use, __ATOMIC_RELAXED) != 0 &&
           __atomic_load_n(&s->cls, __ATOMIC_RELAXED) == cls;
}

void q_shared_reap(struct q_slab *s)
{
    unsigned cls = __atomic_load_n(&s->cls, __ATOMIC_RELAXED);
    struct q_shared_list *l = list_of(q_slab_nid(s), cls);
    bool empty = false;

    /* Meanwhile the slab may have been taken, destroyed and made anew, even for another class. */
    q_lock(&l->lock);
    /* Acquire: all frees are done before the memory goes. Under the lock a shared slab stays shared. */
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_acquire);
    if (still_shared(s, cls, w) && q_remote_count(w) + q_slab_absent(s) == s->carved) {
        unlink_shared(l, s);
        atomic_store_explicit(&s->remote, 0, memory_order_relaxed);
        empty = true;
    }
    q_unlock(&l->lock);
    if (empty)
        q_slab_destroy(s);
}

struct q_slab *q_shared_take(unsigned cls, uint16_t owner, bool any_node)
{
    struct q_slab *s = take_from(list_of(q_policy_peek(), cls), owner, any_node);

    if (s != NULL)
        q_policy_nid(); /* that was its turn */
    uint64_t allowed = q_policy_allowed();
    for (unsigned nid = 0; any_node && s == NULL && nid < q_topology.nr_nodes; nid++)
        if ((allowed >> nid & 1) != 0)
            s = take_from(list_of(nid, cls), owner, true);
    return s;
}

/* Cut a list behind its nth object, or its last; *n is how many there are. Returns the rest. */
static struct q_object *cut(struct q_object *o, uint32_t *n)
{
    uint32_t want = *n;

    for (*n = 1; *n < want && o->next != NULL; ++*n)
        o = o->next;
    struct q_object *rest = o->next;
    o->next = NULL;
    return rest;
}

/* Put what nobody has had yet on the word of a slab that nobody owns. */
static void push_rest(struct q_slab *s, struct q_object *rest, uint32_t nr)
{
    struct q_object *last = last_of(rest);
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed), now;

    do {
        last->next = q_remote_head(s, w);
        now = q_remote_make(s, w, rest, q_remote_count(w) + nr, 0);
        /* Release: the links. */
    } while (!atomic_compare_exchange_weak_explicit(&s->remote, &w, now, memory_order_release,
                                                    memory_order_relaxed));
}

/* Carve a page of a slab that nobody owns, and keep *nr objects of it. NULL: all is carved. */
static struct q_object *carve_some(struct q_slab *s, uint32_t *nr)
{
    uint32_t carved;
    struct q_object *list = q_slab_carve(s, 1, &carved);

    if (list != NULL) {
        struct q_object *rest = cut(list, nr);
        if (rest != NULL)
            push_rest(s, rest, carved - *nr);
    }
    return list;
}

/*
 * Take *nr objects or fewer off the word of a shared slab, its list's lock
 * held. So there is one at a time who pops, others only push: the object that
 * the word names cannot have come back in between. What is handed out shall not
 * look free, so its key goes.
 */
static struct q_object *pop_some(struct q_slab *s, uint32_t *nr)
{
    /* Acquire: the links, and the objects' contents as the freers left them. */
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_acquire), now;
    struct q_object *list, *last;
    uint32_t n;

    do {
        list = last = q_remote_head(s, w);
        if (list == NULL)
            return NULL;
        for (n = 1; n < q_min(*nr, q_remote_count(w)) && last->next != NULL; n++)
            last = last->next;
        now = q_remote_make(s, w, last->next, q_remote_count(w) - n, 0);
    } while (!atomic_compare_exchange_weak_explicit(&s->remote, &w, now, memory_order_acquire,
                                                    memory_order_acquire));
    last->next = NULL;
    for (struct q_object *o = list; o != NULL; o = o->next)
        __atomic_store_n(&o->key, 0, __ATOMIC_RELAXED); /* see on_remote_list() */
    *nr = n;
    return list;
}

/*
 * A common slab of which nothing is left leaves the list, until something is
 * freed. That it has no home says that it is common.
 */
static void unlink_full(struct q_shared_list *l, struct q_slab *s)
{
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed);

    /* Release: whoever frees first finds the slab as it is. */
    if (q_remote_count(w) == 0 && s->carved == q_slab_class(s)->objs &&
        atomic_compare_exchange_strong_explicit(&s->remote, &w,
                                                q_remote_with_home(w, 0) & ~Q_REMOTE_SHARED,
                                                memory_order_release, memory_order_relaxed))
        unlink_shared(l, s);
}

/* Draw from the first slab of a list, its lock held. */
static struct q_object *draw_from(struct q_shared_list *l, struct q_slab *s, uint32_t *nr)
{
    struct q_object *list = pop_some(s, nr);

    if (list == NULL)
        list = carve_some(s, nr);
    if (list == NULL)
        return NULL;
    if ((s->flags & Q_SLAB_COMMON) == 0) {
        unlink_shared(l, s);
        s->flags = Q_SLAB_COMMON;
        link_shared(l, s);
    }
    unlink_full(l, s);
    return list;
}

/* From a new slab. Where the node has no more memory, each draw would make one elsewhere: none then. */
static struct q_object *draw_new(unsigned cls, uint32_t *nr)
{
    struct q_slab *s = q_slab_create(cls, true);

    if (s == NULL)
        return NULL;
    if (!q_policy_wants(q_slab_nid(s))) {
        q_slab_destroy(s);
        return NULL;
    }
    struct q_object *list = carve_some(s, nr);
    struct q_shared_list *l = list_of(q_slab_nid(s), cls);
    q_lock(&l->lock);
    s->flags = Q_SLAB_COMMON;
    link_shared(l, s);
    /* Release: whoever frees or takes sees the slab as it is. Until now nobody else knows of it. */
    atomic_fetch_or_explicit(&s->remote, Q_REMOTE_SHARED, memory_order_release);
    q_unlock(&l->lock);
    return list;
}

struct q_object *q_shared_draw(unsigned cls, uint32_t most, uint32_t *nr)
{
    struct q_shared_list *l = list_of(q_policy_peek(), cls);
    struct q_object *list = NULL;

    *nr = most;
    q_lock(&l->lock);
    uint32_t number = l->common;
    /* One with holes is for an owner, who may fill them. */
    if (number == 0 && l->first != 0 && q_slab_at(l->first)->holes == 0)
        number = l->first;
    if (number != 0)
        list = draw_from(l, q_slab_at(number), nr);
    q_unlock(&l->lock);
    return number != 0 ? list : draw_new(cls, nr);
}

uint32_t q_shared_count(unsigned cls)
{
    uint32_t nr = 0;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        nr += list_of(nid, cls)->nr;
    return nr;
}

struct q_shared_list *q_shared_lists(size_t *nr)
{
    *nr = (size_t)q_topology.nr_nodes * Q_NR_CLASSES;
    return shared;
}
