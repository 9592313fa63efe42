/*
 * free.c - freeing, off the fast path.
 *
 * The slab's remote word (remote.h) says who owns it:
 *
 *   this thread    push onto the freelist
 *   nobody, full   take the slab: it is ours now, with one free object; one of
 *                  another node becomes shared there instead
 *   nobody, shared push onto the remote word; the last object frees the slab
 *   nobody, common the same, full or not (young.h)
 *   another heap   collect a batch, then push it onto the remote word
 *
 * Slabs that this heap filled come back to it without limit. Of slabs that
 * others filled ("guests") it keeps a few; the oldest goes to the node's
 * shared list, where whoever allocates finds it. So a thread that only frees
 * cannot hoard what another could use.
 */
#include "base/msg.h"
#include "numa/mempolicy.h"
#include "slab/holes.h"
#include "slab/slub.h"
#include "slab/young.h"

#define BATCH_BYTES 4096u
#define BATCH_MAX 32u

static void free_local(struct q_heap *heap, struct q_slab *s, struct q_object *o, uint64_t key)
{
    o->key = key;
    o->next = s->freelist;
    s->freelist = o;
    if (--s->used == 0)
        q_slub_count_down(heap, s);
}

/* The oldest guest leaves when a new one comes. */
static void add_guest(struct q_heap *heap, struct q_slab *s)
{
    uint32_t at = heap->next_guest++ % Q_NR_GUESTS, old = heap->guest[at];

    if (old != 0) {
        struct q_slab *oldest = q_slab_at(old);
        q_heap_drop_slab(heap, oldest, oldest->freelist, q_chain_length(oldest->freelist));
    }
    heap->guest[at] = q_slab_number(s);
    s->flags |= Q_SLAB_GUEST;
}

/* A slab of another node is not for this thread to allocate from. */
Q_INLINE bool is_near(const struct q_slab *s)
{
    return q_likely(q_topology.cpu_nid == NULL) || q_policy_wants(q_slab_nid(s));
}

/*
 * Become the owner of a full slab by freeing one of its objects. False: it is
 * far, or common, or somebody else was first.
 */
static bool adopt(struct q_heap *heap, struct q_slab *s, uint64_t w, struct q_object *o, uint32_t k)
{
    uint64_t now = q_remote_make(s, w, NULL, 0, heap->id);

    if (!is_near(s) || q_remote_home(w) == 0)
        return false;
    /* Acquire: the slab's fields as its last owner left them. */
    if (!atomic_compare_exchange_strong_explicit(&s->remote, &w, now, memory_order_acquire,
                                                 memory_order_relaxed))
        return false;
    s->freelist = NULL;
    s->used = 1; /* as in q_slub_collect() */
    s->debt = (int16_t)(s->carved - 1);
    s->flags = 0;
    q_slab_next_epoch(s, q_slab_class(s), heap->tp);
    q_slab_arm(s, heap->tp, heap->fast);
    q_slub_rearm(s);
    q_partial_add(heap, s);
    if (q_remote_home(w) != heap->id)
        add_guest(heap, s);
    free_local(heap, s, o, q_slab_key(s, k));
    return true;
}

/*
 * Push a list of objects that are not ours to free locally. Whatever state
 * the slab is in, or changes to meanwhile, one of the branches fits.
 */
void q_slub_push(struct q_slab *s, struct q_object *head, struct q_object *tail, uint32_t nr)
{
    /* Acquire: of a slab that nobody owns, what was carved, and the holes. */
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_acquire), now;

    for (;;) {
        uint16_t owner = q_remote_owner(w);

        if (owner == 0 && (w & Q_REMOTE_SHARED) == 0) {
            if (q_shared_add(s, head, tail, nr))
                return;
            w = atomic_load_explicit(&s->remote, memory_order_acquire);
            continue;
        }
        uint32_t total = q_remote_count(w) + nr;
        tail->next = q_remote_head(s, w);
        now = q_remote_make(s, w, head, total, owner);
        /* A hint: the owner's counter may change under our eyes. */
        bool tell = owner != 0 && (w & Q_REMOTE_WARNED) == 0 && (s->flags & Q_SLAB_CURRENT) == 0 &&
                    total >= __atomic_load_n(&s->used, __ATOMIC_RELAXED);
        if (tell)
            now |= Q_REMOTE_WARNED;
        uint32_t carved = __atomic_load_n(&s->carved, __ATOMIC_RELAXED);
        uint32_t absent = owner == 0 ? q_slab_absent(s) : 0;
        /* Release: links and contents of the objects before they can be seen. */
        if (!atomic_compare_exchange_weak_explicit(&s->remote, &w, now, memory_order_release,
                                                   memory_order_acquire))
            continue;
        if (tell)
            atomic_fetch_add_explicit(&q_heaps[owner]->told, 1, memory_order_relaxed);
        else if (owner == 0 && total + absent == carved)
            q_shared_reap(s);
        return;
    }
}

void q_batch_flush(struct q_heap *heap, struct q_batch *b)
{
    struct q_slab *s = b->slab;

    if (s == NULL)
        return;
    struct q_object *head = b->head, *tail = b->tail;
    uint32_t nr = b->nr;
    *b = (struct q_batch){NULL};
    q_slub_push(s, head, tail, nr);
}

static struct q_batch *batch_of(struct q_heap *heap, const struct q_slab *s)
{
    return &heap->batch[((uintptr_t)s >> Q_SLAB_DESC_SHIFT) % Q_NR_BATCHES];
}

static void add_to_batch(struct q_heap *heap, struct q_slab *s, struct q_object *o)
{
    struct q_batch *b = batch_of(heap, s);

    if (b->slab != s) {
        q_batch_flush(heap, b);
        b->slab = s;
        b->most = q_min((BATCH_BYTES - 1) / q_slab_class(s)->size + 1, BATCH_MAX);
        b->tail = o;
        o->next = NULL;
    } else {
        o->next = b->head;
    }
    b->head = o;
    b->nr++;
    if (b->nr >= b->most)
        q_batch_flush(heap, b);
}

/*
 * Is o on the list that starts at `list`? The list may change under our eyes,
 * if it is the remote word's, so every step is checked.
 */
static bool on_list(const struct q_slab *s, const struct q_object *list, const struct q_object *o)
{
    uintptr_t start = (uintptr_t)q_slab_start(s), at = (uintptr_t)list;
    uint32_t carved = __atomic_load_n(&s->carved, __ATOMIC_RELAXED);

    for (uint32_t n = 0; at != 0 && n <= carved; n++) {
        if (at - start >= Q_SLAB_SIZE || (at & 15) != 0)
            return false;
        if (at == (uintptr_t)o)
            return true;
        at = __atomic_load_n((const uintptr_t *)at, __ATOMIC_RELAXED);
    }
    return false;
}

/*
 * The same for the remote word's list, which counts only if it was there all
 * the while: whoever gets an object of a list that was taken may write what
 * looks like a link.
 */
static bool on_remote_list(struct q_slab *s, const struct q_object *o)
{
    uint64_t key = __atomic_load_n(&o->key, __ATOMIC_RELAXED);

    for (int tries = 0; tries < 16; tries++) {
        /* Acquire: the links of the objects on the list. */
        uint64_t w = atomic_load_explicit(&s->remote, memory_order_acquire);

        if (!on_list(s, q_remote_head(s, w), o))
            return false;
        /*
         * Release, so a write that changes nothing: the links were read before it. Acquire: a
         * part of a common slab's list may have been taken, and as much freed; then the key is gone.
         */
        if (atomic_fetch_add_explicit(&s->remote, 0, memory_order_acq_rel) == w &&
            __atomic_load_n(&o->key, __ATOMIC_RELAXED) == key)
            return true;
    }
    return false;
}

/* What may lead to o being free: its own link is one, as no live object's need be. */
static bool may_be_link(const struct q_slab *s, const struct q_object *next)
{
    size_t off = (size_t)((uintptr_t)next - (uintptr_t)q_slab_start(s));

    return next == NULL || (off < Q_SLAB_SIZE && off % q_slab_class(s)->size == 0);
}

/* A list of another thread's: its head, and where it is. */
static const struct q_object *head_of(struct q_object *const *list)
{
    /* Acquire: the epoch is read once more after it. */
    return __atomic_load_n(list, __ATOMIC_ACQUIRE);
}

/*
 * Is o on this list, of a thread that may change it under our eyes? What has
 * been on some list stays free until an epoch begins, so it counts if both
 * list and epoch are the same afterwards. Found twice, lest a processor that
 * reorders the owner's stores show a link that is not one any more.
 */
static bool on_others_list(const struct q_slab *s, struct q_object *const *list,
                           const struct q_object *o)
{
    for (int times = 0; times < 2; times++) {
        uint16_t epoch = __atomic_load_n(&s->epoch, __ATOMIC_ACQUIRE);
        const struct q_object *head = head_of(list);

        if (!on_list(s, head, o))
            return false;
        /* Acquire: the links were read before. */
        atomic_thread_fence(memory_order_acquire);
        if (head_of(list) != head || __atomic_load_n(&s->epoch, __ATOMIC_ACQUIRE) != epoch)
            return false;
        if (times == 0)
            q_arch_syscall6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    }
    return true;
}

/* In the batch of some thread; the slab is not that thread's. */
static bool on_a_batch(const struct q_slab *s, const struct q_object *o)
{
    /* Acquire: who sees the number sees the heaps. */
    uint32_t nr = atomic_load_explicit(&q_nr_heaps, memory_order_acquire);

    for (uint32_t id = 1; id <= nr; id++) {
        struct q_batch *b = batch_of(q_heaps[id], s);

        if (__atomic_load_n(&b->slab, __ATOMIC_RELAXED) == s && on_others_list(s, &b->head, o))
            return true;
    }
    return false;
}

/* The chain that was taken from s; NULL: none. */
static struct q_object *const *chain_from(struct q_slab *s)
{
    uint16_t owner = q_remote_owner(atomic_load_explicit(&s->remote, memory_order_relaxed));

    if (owner == 0 || (__atomic_load_n(&s->flags, __ATOMIC_RELAXED) & Q_SLAB_CURRENT) == 0)
        return NULL;
    return &q_heaps[owner]->chain[s->cls];
}

bool q_slub_is_free(struct q_slab *s, const void *p)
{
    const struct q_object *o = p;
    struct q_object *const *chain = chain_from(s);
    uint32_t k = q_slab_index(s, p);

    if (q_slab_in_hole(s, (size_t)k * q_slab_class(s)->size))
        return true;
    /* The key of this epoch, or of an earlier one while the object waits on a chain. */
    if (o->key != q_slab_key(s, k) && chain == NULL)
        return false;
    if (o->key - q_slab_key(s, k) + s->epoch >= q_slab_class(s)->excess || !may_be_link(s, o->next))
        return false;
    uint16_t owner = q_remote_owner(atomic_load_explicit(&s->remote, memory_order_relaxed));
    return (owner != 0 && on_others_list(s, &s->freelist, o)) ||
           (chain != NULL && on_others_list(s, chain, o)) || on_remote_list(s, o) ||
           on_a_batch(s, o);
}

static enum q_free_result free_busy(struct q_heap *heap, struct q_slab *s, struct q_object *o,
                                    uint32_t k)
{
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_acquire);
    unsigned cls = s->cls; /* stable while o is not free */

    if (heap != NULL && q_remote_owner(w) == heap->id) {
        free_local(heap, s, o, q_slab_key(s, k));
        return Q_FREED;
    }
    o->key = q_slab_key(s, k);
    if (heap != NULL && q_remote_owner(w) == 0 && (w & Q_REMOTE_SHARED) == 0 &&
        adopt(heap, s, w, o, k))
        return Q_FREED;
    if (heap != NULL && q_remote_owner(w) != 0)
        add_to_batch(heap, s, o);
    else
        q_slub_push(s, o, o, 1);
    if (heap != NULL && q_remote_owner(w) == 0)
        q_young_freed(heap, cls);
    return Q_FREED;
}

bool q_slub_free_owned(struct q_heap *heap, struct q_slab *s, struct q_object *o, unsigned owner)
{
    size_t off = (uintptr_t)o - (uintptr_t)q_slab_start(s);

    if (heap->id == 0 || heap->busy || off >= Q_SLAB_SIZE)
        return false;
    /* k * excess for object k, and far more between objects */
    uint64_t h = off * q_racy_read(&s->mult);
    uint64_t key = (1ull << 63) + h + __atomic_load_n(&s->epoch, __ATOMIC_RELAXED);
    if (h >= (uint64_t)__atomic_load_n(&s->carved, __ATOMIC_RELAXED) * q_slab_class(s)->excess ||
        q_slab_in_hole(s, off) || o->key == key)
        return false;
    heap->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    if (owner == heap->id) {
        free_local(heap, s, o, key);
    } else {
        o->key = key;
        add_to_batch(heap, s, o);
    }
    atomic_signal_fence(memory_order_seq_cst);
    heap->busy = false;
    return true;
}

enum q_free_result q_slub_free(struct q_slab *s, void *p)
{
    const struct q_class *c = q_slab_class(s);
    size_t off = (size_t)((char *)p - q_slab_start(s));
    uint32_t k = (uint32_t)(off / c->size);

    if (off % c->size != 0 || k >= s->carved)
        return Q_FREE_INTERIOR;
    if (q_slab_in_hole(s, off))
        return Q_FREE_TWICE;
    if (q_unlikely(((struct q_object *)p)->key == q_slab_key(s, k)) && q_slub_is_free(s, p))
        return Q_FREE_TWICE;
    struct q_heap *heap = q_heap_get();
    if (heap == NULL || heap->busy)
        return free_busy(NULL, s, p, k);
    heap->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    enum q_free_result r = free_busy(heap, s, p, k);
    atomic_signal_fence(memory_order_seq_cst);
    heap->busy = false;
    return r;
}
