/* heap.c - see heap.h: making, ending and adopting heaps. */
#include "slab/heap.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "base/msg.h"
#include "numa/mempolicy.h"
#include "slab/cache.h"
#include "slab/slub.h"
#include "slab/young.h"

/* Thread pointers nearer than this, times the factor of slab.h, are taken for too near. */
#define TP_APART ((uintptr_t)64 << 10)

struct q_heap q_heap_none;
__thread struct q_heap *q_heap __attribute__((tls_model("initial-exec"))) = &q_heap_none;

__thread unsigned q_inside __attribute__((tls_model("initial-exec")));

struct q_heap *q_heaps[Q_MAX_HEAPS + 1];
_Atomic uint32_t q_nr_heaps;
struct q_lock q_heap_lock;

static struct q_heap *free_heaps[Q_MAX_NODES]; /* heaps of threads that ended, by home */
static pthread_key_t exit_key;
static bool have_key;

/* Set while the thread is past its last destructor: it gets no heap any more. */
static __thread bool gone __attribute__((tls_model("initial-exec")));

/*
 * Threads whose thread pointers are near each other, or a multiple of the
 * window apart, would pass each other's test; the later of two goes without.
 */
static bool tp_is_apart(uintptr_t tp)
{
    uintptr_t mask = q_mem.size - 1;

    if (q_mem.sparse || !Q_WIDE_LONG)
        return false; /* see slab.h */
    for (uint32_t id = 1; id <= q_nr_heaps; id++) {
        const struct q_heap *h = q_heaps[id];
        uintptr_t d = Q_TP_FACTOR * (tp - h->tp) & mask;

        if (h->live && (d < TP_APART || d > mask - TP_APART))
            return false;
    }
    return true;
}

/* Write the tables for the sizes of classes from `first` to `last`. */
static void set_tables(struct q_heap *heap, unsigned first, unsigned last)
{
    /* The sizes of a class lie above this. */
    size_t above = first > 0 ? q_classes[first - 1].size : 0;

    for (unsigned c = first; c <= last; c++) {
        size_t to = q_classes[c].size, step = above >> Q_TABLE_STEP_SHIFT;
        int by = (int)(c + (heap->coarse >> c & 1));

        if (above < Q_TABLE_MAX)
            memset(&heap->class_of[above + 1], by, q_min(to, Q_TABLE_MAX) - above);
        memset(&heap->class_of_step[step], by, (to >> Q_TABLE_STEP_SHIFT) - step);
        above = to;
    }
    heap->class_of[0] = heap->class_of[1];
}

/* Every second class serves the sizes of the one below it, too, but for those that common slabs serve. */
static void set_coarse(struct q_heap *heap, bool young)
{
    heap->coarse = 0;
    for (unsigned c = 0; c < Q_LAST_SPACED; c += 2)
        if (!young || q_classes[c].size > Q_YOUNG_SIZE_MAX)
            heap->coarse |= 1ull << c;
    set_tables(heap, 0, Q_NR_CLASSES - 1);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++)
        heap->bin[c].patience = 1;
}

void q_heap_refine(struct q_heap *heap, unsigned cls)
{
    if (cls == 0 || (heap->coarse >> (cls - 1) & 1) == 0)
        return;
    heap->coarse &= ~(1ull << (cls - 1));
    set_tables(heap, cls - 1, cls - 1);
}

static struct q_heap *make_heap(unsigned nid)
{
    uint32_t id = q_nr_heaps + 1;

    if (id > Q_MAX_HEAPS)
        return NULL;
    struct q_heap *heap = q_meta_alloc_node(sizeof(*heap), nid);
    if (heap == NULL)
        return NULL;
    heap->home = (uint8_t)nid;
    heap->id = (uint16_t)id;
    q_heaps[id] = heap;
    /* Release: readers that see the number see the heap. */
    atomic_store_explicit(&q_nr_heaps, id, memory_order_release);
    return heap;
}

static void hook_thread(struct q_heap *heap)
{
    if (have_key && !heap->hooked) {
        heap->hooked = true;
        pthread_setspecific(exit_key, heap);
    }
}

static Q_NOINLINE struct q_heap *first_heap(void)
{
    struct q_heap *heap;

    if (gone || !q_slub_init())
        return NULL;
    q_heap_adopt_orphans();
    unsigned nid = q_this_nid();
    q_lock(&q_heap_lock);
    heap = free_heaps[nid];
    if (heap != NULL)
        free_heaps[nid] = heap->next_free;
    else
        heap = make_heap(nid);
    if (heap != NULL) {
        heap->nid = (uint8_t)nid;
        heap->tp = q_thread_pointer();
        heap->fast = tp_is_apart(heap->tp);
        set_coarse(heap, heap->id > Q_YOUNG_FROM);
        q_young_init(heap, heap->id > Q_YOUNG_FROM);
        heap->live = true;
        heap->hooked = false;
        heap->ticks = 1;
        heap->hand = heap->lap_ms = 0;
        heap->hand_class = Q_NR_CLASSES;
    }
    q_unlock(&q_heap_lock);
    if (heap == NULL)
        return NULL;
    q_heap = heap;
    hook_thread(heap); /* may allocate: from here on that works */
    return heap;
}

struct q_heap *q_heap_get(void)
{
    struct q_heap *heap = q_heap;

    if (q_unlikely(heap == &q_heap_none))
        return first_heap();
    if (q_unlikely(!heap->hooked))
        hook_thread(heap);
    return heap;
}

uint32_t q_chain_length(const struct q_object *o)
{
    uint32_t n = 0;

    for (; o != NULL; o = o->next)
        n++;
    return n;
}

void q_partial_add(struct q_heap *heap, struct q_slab *s)
{
    struct q_bin *bin = &heap->bin[s->cls];

    s->flags |= Q_SLAB_PARTIAL;
    s->prev = 0;
    s->next = bin->partial;
    if (s->next != 0)
        q_slab_at(s->next)->prev = q_slab_number(s);
    bin->partial = q_slab_number(s);
    heap->nr_partial++;
}

void q_partial_del(struct q_heap *heap, struct q_slab *s)
{
    if (heap->hand == q_slab_number(s))
        heap->hand = s->next;
    if (s->prev != 0)
        q_slab_at(s->prev)->next = s->next;
    else
        heap->bin[s->cls].partial = s->next;
    if (s->next != 0)
        q_slab_at(s->next)->prev = s->prev;
    s->next = s->prev = 0;
    heap->nr_partial--;
    s->flags &= (uint8_t)~Q_SLAB_PARTIAL;
    for (unsigned i = 0; (s->flags & Q_SLAB_GUEST) != 0 && i < Q_NR_GUESTS; i++) {
        if (heap->guest[i] == q_slab_number(s)) {
            heap->guest[i] = 0;
            s->flags &= (uint8_t)~Q_SLAB_GUEST;
        }
    }
}

void q_heap_drop_slab(struct q_heap *heap, struct q_slab *s, struct q_object *list, uint32_t nr)
{
    if (s->flags & Q_SLAB_PARTIAL)
        q_partial_del(heap, s);
    q_shared_put(s, list, nr);
}

/* Put a bin's chain and freelist together: all that is free in its current slab. */
static void drop_current(struct q_heap *heap, unsigned cls)
{
    struct q_bin *bin = &heap->bin[cls];
    struct q_slab *s = bin->current;

    if (s == NULL)
        return;
    /* Taken in one instruction: a signal handler may pop from it. */
    struct q_object *list = __atomic_exchange_n(&heap->chain[cls], NULL, __ATOMIC_RELAXED);
    struct q_object *last = list;

    bin->handed -= q_chain_length(list);
    while (last != NULL && last->next != NULL)
        last = last->next;
    if (last != NULL)
        last->next = s->freelist;
    else
        list = s->freelist;
    bin->current = NULL;
    s->flags = 0;
    q_heap_drop_slab(heap, s, list, q_chain_length(list));
}

/* Give up everything a heap owns. Counters of slabs are not trusted: the lists are walked. */
static void drop_all(struct q_heap *heap)
{
    for (unsigned i = 0; i < Q_NR_BATCHES; i++)
        q_batch_flush(heap, &heap->batch[i]);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        q_young_drop(heap, c);
        drop_current(heap, c);
        while (heap->bin[c].partial != 0) {
            struct q_slab *s = q_slab_at(heap->bin[c].partial);
            q_heap_drop_slab(heap, s, s->freelist, q_chain_length(s->freelist));
        }
        heap->bin[c].slabs = 0;
        heap->bin[c].patience = 1;
    }
}

/* Give up the slabs that lie where the thread would not be given memory now. */
static void drop_far(struct q_heap *heap)
{
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        struct q_bin *bin = &heap->bin[c];

        q_young_drop(heap, c);
        if (bin->current != NULL && !q_policy_wants(q_slab_nid(bin->current)))
            drop_current(heap, c);
        for (uint32_t n = bin->partial; n != 0;) {
            struct q_slab *s = q_slab_at(n);

            n = s->next;
            if (!q_policy_wants(q_slab_nid(s)))
                q_heap_drop_slab(heap, s, s->freelist, q_chain_length(s->freelist));
        }
    }
}

void q_heap_follow_now(struct q_heap *heap)
{
    heap->away = 0;
    heap->nid = (uint8_t)q_policy_peek();
    drop_far(heap);
}

void q_heap_follow(struct q_heap *heap)
{
    if (q_policy_mode() == Q_MPOL_LOCAL && q_this_nid() != heap->nid && ++heap->away > 1)
        q_heap_follow_now(heap);
    else if (q_this_nid() == heap->nid)
        heap->away = 0;
}

/* A heap that nobody owns, and that owns nothing: busy until now. */
static void recycle(struct q_heap *heap)
{
    q_lock(&q_heap_lock);
    heap->live = heap->busy = false;
    heap->exited++;
    heap->next_free = free_heaps[heap->home];
    free_heaps[heap->home] = heap;
    q_unlock(&q_heap_lock);
}

void q_heap_exit(struct q_heap *heap)
{
    /* The thread has no heap any more whose `busy` would tell its signal handlers. */
    q_enter();
    heap->busy = true;
    drop_all(heap);
    recycle(heap);
    q_leave();
}

/*
 * Destructors of other keys may still allocate and free. So this one asks to
 * be called again, round after round, and acts in the last.
 */
static void thread_ends(void *arg)
{
    static __thread int round __attribute__((tls_model("initial-exec")));
    struct q_heap *heap = arg;

    if (++round < PTHREAD_DESTRUCTOR_ITERATIONS && pthread_setspecific(exit_key, heap) == 0)
        return;
    q_cache_thread_ends(heap);
    gone = true;
    q_heap = &q_heap_none;
    q_heap_exit(heap);
}

void q_heap_hook_threads(void)
{
    if (!have_key && pthread_key_create(&exit_key, thread_ends) == 0)
        have_key = true;
    if (q_heap != &q_heap_none)
        q_heap->ticks = 1; /* the next refill looks whether the thread is hooked */
}

/*
 * A heap caught in the middle of a change: what it owns stays as it is. Its
 * lists cannot be trusted, so its slabs are found by looking at all of them.
 */
static void strand(struct q_heap *heap)
{
    heap->live = false;
    for (size_t pfn = 0; pfn < q_mem.max_pages; pfn += (size_t)1 << q_slab_order()) {
        if (!q_pfn_online(pfn)) {
            pfn = q_next_section(pfn) - ((size_t)1 << q_slab_order());
            continue;
        }
        struct q_slab *s = q_slab_at((uint32_t)(pfn >> q_slab_order()) + 1);
        if (q_remote_owner(atomic_load_explicit(&s->remote, memory_order_relaxed)) == heap->id)
            q_slab_disarm(s);
    }
}

static void disarm_all(struct q_heap *heap)
{
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        if (heap->bin[c].current != NULL)
            q_slab_disarm(heap->bin[c].current);
        for (uint32_t n = heap->bin[c].partial; n != 0; n = q_slab_at(n)->next)
            q_slab_disarm(q_slab_at(n));
    }
}

/* Some heap is an orphan: its thread did not survive the fork, and nobody has taken its slabs over. */
static _Atomic bool orphans;

void q_heap_lock_after_fork(void)
{
    /* Linked heaps may be half linked; those that wait there are lost. */
    if (q_lock_after_fork(&q_heap_lock))
        memset(free_heaps, 0, sizeof(free_heaps));
}

void q_heap_after_fork(void)
{
    struct q_heap *mine = q_heap;
    bool any = false;

    for (uint32_t id = 1; id <= q_nr_heaps; id++) {
        struct q_heap *heap = q_heaps[id];

        if (heap == mine || !heap->live || heap->tp == 0)
            continue;
        if (heap->busy) {
            strand(heap);
            continue;
        }
        disarm_all(heap);
        heap->orphan = any = true;
    }
    /* Relaxed: there is one thread. */
    if (any)
        atomic_store_explicit(&orphans, true, memory_order_relaxed);
    if (mine != &q_heap_none)
        mine->ticks = 1; /* so that the next refill takes the slow path */
}

void q_heap_adopt_orphans(void)
{
    /* Relaxed: whoever reads true was started after the fork. Several may; one of them does the work. */
    if (q_likely(!atomic_load_explicit(&orphans, memory_order_relaxed)) ||
        !atomic_exchange_explicit(&orphans, false, memory_order_relaxed))
        return;
    q_enter(); /* the locks are taken on behalf of heaps that are not this thread's */
    for (uint32_t id = 1; id <= q_nr_heaps; id++) {
        struct q_heap *heap = q_heaps[id];

        if (!heap->orphan)
            continue;
        heap->orphan = false;
        heap->busy = true; /* for the child of another fork, now */
        atomic_signal_fence(memory_order_seq_cst);
        drop_all(heap);
        recycle(heap);
    }
    q_leave();
}
