/*
 * slub.c - allocation: where the next chain of objects comes from.
 *
 *   1. the current slab: its freelist, what others freed into it, or the
 *      next page of it
 *   2. a partial slab of this heap
 *   3. while the heap is young in the class, a slab that threads share
 *   4. a slab of the node that nobody owns
 *   5. a new slab
 *
 * Steps 1 to 5 run with heap->busy set; what a signal handler that interrupts
 * them may do is decided above this layer (malloc/reserve.h). A thread that
 * has no heap any more is served from the spare heap, under its lock.
 */
#include "slab/slub.h"

#include "base/msg.h"
#include "base/opt.h"
#include "numa/topology.h"
#include "slab/holes.h"
#include "slab/refill.h"
#include "slab/young.h"
#include "zone/collapse.h"
#include "zone/page_alloc.h"
#include "zone/pageblock.h"
#include "zone/reclaim.h"
#include "zone/vmalloc.h"

#define PATIENCE_MAX 4096u
#define PATIENCE_PROVEN (Q_PATIENCE_KEEP / 4) /* what is left of it by and by */
#define REFINE_WASTE (8u << 10) /* about two pages: what a class that is hardly used costs */
#define TICKS_PER_RECLAIM 256u  /* refills between two looks at rare work, */
#define TICKS_QUIET 16u         /* where so few of them take QUIET_MS */
#define QUIET_MS 8u
#define TICKS_PER_DECAY 4096u

/* Take what others freed into an owned slab. Returns how many objects. */
uint32_t q_slub_collect(struct q_slab *s)
{
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed), now;

    if (q_remote_count(w) == 0)
        return 0;
    do {
        now = w & ~(Q_REMOTE_LIST | Q_REMOTE_WARNED);
        /* Acquire: the links and contents that the freers wrote. */
    } while (!atomic_compare_exchange_weak_explicit(&s->remote, &w, now, memory_order_acquire,
                                                    memory_order_relaxed));
    struct q_object *o = q_remote_head(s, w), *last = o;
    while (last->next != NULL)
        last = last->next;
    last->next = s->freelist;
    s->freelist = o;
    /* Until the caller sets the countdown, whoever frees one more tells: it may be the last. */
    uint32_t used = q_slab_used(s) - q_remote_count(w);
    s->used = used > 0;
    s->debt = (int16_t)(used - s->used);
    return q_remote_count(w);
}

/*
 * Open the class below once serving its sizes from this one may waste more
 * than the pages of another class would cost.
 */
static void consider_refining(struct q_heap *heap, const struct q_slab *s)
{
    unsigned cls = s->cls;

    if (cls == 0 || (heap->coarse >> (cls - 1) & 1) == 0)
        return;
    uint32_t wider = q_classes[cls].size - q_classes[cls - 1].size;
    if (heap->bin[cls].slabs > 1 || s->carved * wider >= REFINE_WASTE)
        q_heap_refine(heap, cls);
}

/* More objects from an owned slab; false: it is full. */
static bool refill_from(struct q_heap *heap, struct q_slab *s)
{
    struct q_bin *bin = &heap->bin[s->cls];
    uint32_t nr;

    q_slub_collect(s);
    uint32_t used = q_slab_used(s), few = s->carved - used;
    bool hot = bin->patience >= Q_PATIENCE_KEEP && few < q_slab_class(s)->hot;
    if (s->freelist != NULL && !(hot && s->carved < q_slab_class(s)->objs)) {
        q_hand_out_freelist(heap, s->cls, s, s->freelist, few);
        return true;
    }
    struct q_object *list = q_holes_fill(s, &nr);
    if (list != NULL) {
        used -= nr; /* they are used as it is */
    } else {
        unsigned ahead = (unsigned)q_min(bin->slabs, Q_SLAB_SIZE >> q_page_shift);
        list = q_slab_carve(s, ahead, &nr);
    }
    if (list == NULL)
        return false;
    consider_refining(heap, s);
    if (s->freelist != NULL) {
        /* A class that comes back for more all the time gets a longer chain. */
        struct q_object *last = list;
        while (last->next != NULL)
            last = last->next;
        last->next = s->freelist;
        s->freelist = NULL;
        nr += few;
        s->epoch++; /* as in q_hand_out_freelist(); arming below takes it up */
        s->epoch = (uint16_t)(s->epoch < q_slab_class(s)->excess ? s->epoch : 0);
    }
    q_slab_arm(s, heap->tp, heap->fast);
    q_hand_out(heap, s->cls, s, list, nr, used);
    if (q_unlikely(s->holes != 0) && s->debt >= 0) {
        /* Those are not going to be freed. */
        uint32_t cut = q_min(q_slab_absent(s), s->used - 1);
        s->used -= cut;
        s->debt = (int16_t)(s->debt + (int)cut);
    }
    return true;
}

/* A full slab belongs to nobody: whoever frees into it first takes it. False: somebody freed meanwhile. */
static bool let_go(struct q_heap *heap, struct q_slab *s)
{
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed), now;

    if (q_remote_count(w) > 0)
        return false;
    q_slab_disarm(s);
    atomic_signal_fence(memory_order_seq_cst);
    if (q_unlikely(s->freelist != NULL)) { /* a signal handler freed meanwhile */
        q_slab_arm(s, heap->tp, heap->fast);
        return false;
    }
    s->used = 1; /* as in q_slub_collect() */
    s->debt = (int16_t)(s->carved - 1);
    s->flags = 0;
    now = q_remote_make(s, w, NULL, 0, 0) & ~Q_REMOTE_WARNED;
    /* Release: the next owner sees what this one wrote. */
    if (atomic_compare_exchange_strong_explicit(&s->remote, &w, now, memory_order_release,
                                                memory_order_relaxed))
        return true;
    s->flags = Q_SLAB_CURRENT;
    q_slab_arm(s, heap->tp, heap->fast);
    return false;
}

static void make_current(struct q_heap *heap, struct q_slab *s)
{
    s->flags = Q_SLAB_CURRENT;
    heap->bin[s->cls].current = s;
}

/* Give an empty slab of this heap back. */
static void destroy_owned(struct q_heap *heap, struct q_slab *s)
{
    uint64_t w = atomic_load_explicit(&s->remote, memory_order_relaxed);

    if (q_remote_home(w) == heap->id && heap->bin[s->cls].slabs > 0)
        heap->bin[s->cls].slabs--;
    q_slab_destroy(s);
}

/* Slabs of ours that others emptied: find and release them. */
static void reap_told(struct q_heap *heap)
{
    uint32_t told = atomic_load_explicit(&heap->told, memory_order_relaxed);

    /* The walk is as long as the lists, so it must be worth it. */
    if (q_likely(told == 0 || told < heap->nr_partial / 8))
        return;
    atomic_store_explicit(&heap->told, 0, memory_order_relaxed);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        for (uint32_t n = heap->bin[c].partial; n != 0;) {
            struct q_slab *s = q_slab_at(n);

            n = s->next;
            if (q_remote_count(atomic_load_explicit(&s->remote, memory_order_relaxed)) == 0)
                continue;
            q_slub_collect(s);
            if (q_slab_live(s) == 0) {
                q_partial_del(heap, s);
                destroy_owned(heap, s);
            } else {
                q_slub_rearm(s);
            }
        }
    }
}

static struct q_slab *next_slab(struct q_heap *heap, unsigned cls)
{
    struct q_slab *s;

    if (heap->bin[cls].partial != 0) {
        s = q_slab_at(heap->bin[cls].partial);
        q_partial_del(heap, s);
        return s;
    }
    s = q_shared_take(cls, heap->id, false);
    if (s == NULL) {
        s = q_slab_create(cls, heap->bin[cls].slabs == 0);
        if (s == NULL) {
            s = q_shared_take(cls, heap->id, true);
            if (s != NULL)
                q_slab_arm(s, heap->tp, heap->fast);
            return s;
        }
        heap->bin[cls].slabs++;
        uint64_t w = q_remote_with_home(q_remote_make(s, 0, NULL, 0, heap->id), heap->id);
        atomic_store_explicit(&s->remote, w, memory_order_release);
    }
    q_slab_arm(s, heap->tp, heap->fast);
    return s;
}

/* Fill the chain of a class; false: out of memory. */
static bool refill(struct q_heap *heap, unsigned cls)
{
    struct q_bin *bin = &heap->bin[cls];
    struct q_slab *s;

    for (;;) {
        while ((s = bin->current) != NULL) {
            if (refill_from(heap, s))
                return true;
            if (let_go(heap, s))
                bin->current = NULL;
        }
        reap_told(heap);
        if (q_unlikely(q_topology.cpu_nid != NULL) && heap == q_heap)
            q_heap_follow(heap);
        if (bin->partial == 0 && q_is_young(heap, cls) && q_young_draw(heap, cls))
            return true;
        s = next_slab(heap, cls);
        if (s == NULL)
            return false;
        make_current(heap, s);
    }
}

/* Rare work that is due now and then. */
static Q_NOINLINE void do_tick(struct q_heap *heap)
{
    uint32_t now = q_now_ms(), since = now - heap->tick_ms;

    heap->tick_ms = now;
    heap->ticks = since < QUIET_MS ? TICKS_PER_RECLAIM : TICKS_QUIET;
    for (unsigned i = 0; i < Q_NR_BATCHES; i++)
        q_batch_flush(heap, &heap->batch[i]);
    /* Patience wears off, slowly: a class that is no longer busy may give its slab back. */
    heap->nr_ticks += heap->ticks;
    bool decay = heap->nr_ticks >= TICKS_PER_DECAY;
    if (decay)
        heap->nr_ticks = 0;
    for (unsigned c = 0; decay && c < Q_NR_CLASSES; c++)
        if (heap->bin[c].patience > PATIENCE_PROVEN)
            heap->bin[c].patience = PATIENCE_PROVEN;
    reap_told(heap);
    q_holes_tick(heap, now, since);
    q_reclaim_tick();
    q_vtrim(false);
    q_collapse_tick();
}

Q_INLINE void tick(struct q_heap *heap)
{
    if (q_unlikely(--heap->ticks == 0))
        do_tick(heap);
}

void *q_heap_take(struct q_heap *heap, unsigned cls)
{
    do {
        /* Taken in one instruction: a signal handler may pop from it, even the last. */
        struct q_object *o = __atomic_exchange_n(&heap->chain[cls], NULL, __ATOMIC_RELAXED);

        if (o != NULL) {
            heap->chain[cls] = o->next;
            return o;
        }
    } while (refill(heap, cls));
    return NULL;
}

Q_NOINLINE void *q_slub_alloc_slowly(unsigned cls)
{
    struct q_heap *heap = q_heap_get();
    void *p = NULL;

    if (q_unlikely(heap == NULL || heap->busy))
        return q_spare_alloc(cls);
    q_heap_adopt_orphans();
    heap->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    p = q_heap_take(heap, cls);
    tick(heap);
    atomic_signal_fence(memory_order_seq_cst);
    heap->busy = false;
    return p;
}

void *q_slub_alloc(unsigned cls)
{
    void *p = q_refill_quickly(q_heap, cls);

    return q_likely(p != NULL) ? p : q_slub_alloc_slowly(cls);
}

/*
 * Four times as much after each look; but where few objects make a slab, few
 * frees have passed between two looks, and it takes as many more.
 */
static uint32_t more_patience(uint32_t patience, uint32_t objs)
{
    if (patience >= PATIENCE_PROVEN)
        return 3 * patience;
    return (uint32_t)q_min(3 * patience, q_max(objs / 4, 1));
}

/* The current slab seems to be empty, but for what waits on the chain. */
static void current_countdown(struct q_heap *heap, struct q_slab *s, bool trim)
{
    struct q_bin *bin = &heap->bin[s->cls];
    /* Taken in one instruction: a signal handler may pop from it. Put back where it stays. */
    struct q_object *chain = __atomic_exchange_n(&heap->chain[s->cls], NULL, __ATOMIC_RELAXED);
    uint32_t waiting = q_chain_length(chain), absent = q_slab_absent(s), used, live;

    q_slub_collect(s);
    used = q_slab_used(s);
    live = used - waiting - absent;
    if (live == 0 && bin->patience >= Q_PATIENCE_KEEP && !trim) {
        /* It empties again and again because it is in use: leave it. */
        s->used = used + 1;
        s->debt = -1;
        heap->chain[s->cls] = chain;
        return;
    }
    if (bin->patience < PATIENCE_MAX)
        bin->patience += more_patience(bin->patience, q_slab_class(s)->objs);
    if (live == 0) {
        bin->current = NULL;
        s->flags = 0;
        destroy_owned(heap, s);
        return;
    }
    if (live < waiting) {
        /* Few left: take the chain back, so that the last free is seen. */
        struct q_object *last = chain;
        while (last->next != NULL)
            last = last->next;
        last->next = s->freelist;
        s->freelist = chain;
        bin->handed -= waiting;
        s->used = live;
        s->debt = (int16_t)absent;
        return;
    }
    s->used = live;
    s->debt = (int16_t)(used - live);
    heap->chain[s->cls] = chain;
}

void q_slub_count_down(struct q_heap *heap, struct q_slab *s)
{
    if (s->flags & Q_SLAB_CURRENT) {
        current_countdown(heap, s, false);
        return;
    }
    q_slub_collect(s);
    if (q_slab_live(s) > 0) {
        q_slub_rearm(s);
        return;
    }
    if (s->flags & Q_SLAB_PARTIAL)
        q_partial_del(heap, s);
    destroy_owned(heap, s);
}

void q_slub_rearm(struct q_slab *s)
{
    uint32_t used = q_slab_used(s), live = q_slab_live(s);

    s->used = (live + 1) / 2;
    s->debt = (int16_t)(used - s->used);
    s->flags &= (uint8_t) ~(Q_SLAB_AGED | Q_SLAB_LOOKED);
}

void q_slub_countdown(struct q_slab *s)
{
    struct q_heap *heap = q_heap;

    if (q_interrupted()) {
        /* A signal handler inside the allocator: look again at the next free, if one can come. */
        if (s->debt > 0) {
            s->used = 1;
            s->debt--;
        }
        return;
    }
    heap->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    q_slub_count_down(heap, s);
    atomic_signal_fence(memory_order_seq_cst);
    heap->busy = false;
}

/* What the calling thread holds back: batches on their way, a current slab with nothing live. */
static size_t trim_heap(struct q_heap *heap)
{
    for (unsigned i = 0; i < Q_NR_BATCHES; i++)
        q_batch_flush(heap, &heap->batch[i]);
    atomic_store_explicit(&heap->told, heap->nr_partial + 1, memory_order_relaxed);
    reap_told(heap);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        struct q_slab *s = heap->bin[c].current;

        q_young_drop(heap, c);
        if (s == NULL)
            continue;
        q_slub_collect(s);
        /* Taken in one instruction, as there. */
        struct q_object *chain = __atomic_exchange_n(&heap->chain[c], NULL, __ATOMIC_RELAXED);
        bool nothing_live = q_slab_live(s) == q_chain_length(chain);
        heap->chain[c] = chain;
        if (nothing_live)
            current_countdown(heap, s, true);
    }
    return q_holes_trim(heap);
}

size_t q_slub_trim(void)
{
    struct q_heap *heap = q_heap;

    if (heap == &q_heap_none || heap->busy)
        return 0;
    heap->busy = true;
    atomic_signal_fence(memory_order_seq_cst);
    size_t nr = trim_heap(heap);
    atomic_signal_fence(memory_order_seq_cst);
    heap->busy = false;
    return nr;
}
