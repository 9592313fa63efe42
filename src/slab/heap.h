/*
 * heap.h - a thread's heap: its slabs, and the chains malloc pops from.
 *
 *   heap
 *    class_of[size], class_of_step[size / 128] -> class
 *    chain[class] -> obj -> obj -> obj            ready to be handed out
 *    bin[class].current ---> slab that the chain was taken from
 *              .partial ---> slab <-> slab        owned, with free objects
 *    batch[] : objects of other heaps' slabs, on their way home
 *
 * Each class in use costs a page, and a heap with few objects would pay that
 * many times over. So the first objects of a thread come from slabs that all
 * threads share (young.h). Where that is not done, in the process's first
 * heaps and for larger objects, a heap uses every second class only; once a
 * class holds so much that rounding up costs more than that, the one below it
 * is opened (q_heap_refine).
 *
 * Only the owning thread touches a heap, but for `told` and, after the
 * thread's end, whoever adopts it. While `busy` is set its lists may be in
 * the middle of a change: a signal handler that finds it set, and the child
 * of a fork that copied it so, must leave it alone.
 *
 * A thread without a heap (at its first allocation, or after its last
 * destructor ran) has q_heap pointing to q_heap_none, whose chains are empty
 * for ever, so that the fast path needs no test of its own.
 */
#ifndef Q_SLAB_HEAP_H
#define Q_SLAB_HEAP_H

#include "slab/remote.h"

#define Q_NR_BATCHES 8
#define Q_NR_GUESTS 4
#define Q_MAX_HEAPS 65535

/* Objects freed here that belong to one slab of another heap. */
struct q_batch {
    struct q_slab *slab;
    struct q_object *head, *tail;
    uint32_t nr, most; /* it is sent once it has that many */
};

struct q_bin {
    struct q_slab *current;
    uint32_t partial;  /* slab number; 0: none */
    uint32_t slabs;    /* slabs this heap has made of the class and not given back: its growth */
    uint32_t patience; /* frees to let pass before looking whether `current` is empty */
    uint32_t pad;
    uint64_t handed; /* objects moved to the chain, ever */
};

/* See young.h. */
struct q_young {
    uint16_t drawn; /* from common slabs, ever, in units of 16 bytes */
    uint16_t out;   /* objects of those, less what the heap has freed */
};

struct q_heap {
    struct q_object *chain[Q_NR_CLASSES];
    uint8_t class_of[Q_TABLE_MAX + 8];                        /* by size; coarse at first */
    uint8_t class_of_step[Q_SMALL_MAX >> Q_TABLE_STEP_SHIFT]; /* by 128 bytes, for larger sizes */
    uint64_t coarse; /* classes whose sizes the next class serves as yet */
    struct q_bin bin[Q_NR_CLASSES];
    struct q_batch batch[Q_NR_BATCHES];
    uint32_t guest[Q_NR_GUESTS]; /* slab numbers of guests, a ring */
    uint32_t next_guest;
    uint32_t ticks;    /* refills until the next look at rare work */
    uint32_t nr_ticks; /* refills since patience wore off last */
    uint32_t tick_ms;
    uint16_t id;  /* 1..Q_MAX_HEAPS */
    bool fast;    /* free() may use the test of slab.h for this heap's slabs */
    bool live;    /* belongs to a running thread */
    bool busy;    /* see above */
    bool hooked;  /* the thread's end will be noticed */
    bool orphan;  /* its thread is gone: forked away from; see q_heap_after_fork() */
    uint8_t home; /* the node that this structure lies on */
    uint8_t nid;  /* the node that its slabs come from: see q_heap_follow() */
    uint8_t away; /* looks in a row that found the thread elsewhere */
    uintptr_t tp; /* the owner's thread pointer */
    struct q_heap *next_free;
    uint32_t nr_partial;   /* slabs on all partial lists */
    uint32_t hand;         /* where the search for holes is (holes.h): a partial slab; 0: none */
    uint32_t lap_ms;       /* when it began to go round */
    uint8_t hand_class;    /* its class; Q_NR_CLASSES: it has gone round */
    _Atomic uint32_t told; /* slabs of ours that others saw to be empty */
    uint64_t exited;       /* times this heap changed hands */
    struct q_mag **mags;   /* magazines of object caches by their id; see cache.h */
    uint32_t nr_mags;
    struct q_young young[Q_NR_CLASSES];
};

extern struct q_heap q_heap_none;

/* The calling thread's heap. Initial-exec: one load, and never a call into libc. */
extern __thread struct q_heap *q_heap
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* How deep this thread is in code that takes locks on behalf of malloc's callers. */
extern __thread unsigned q_inside __attribute__((tls_model("initial-exec"), visibility("hidden")));

Q_INLINE void q_enter(void)
{
    q_inside++;
    /* Compiler only: a handler runs in this very thread. */
    atomic_signal_fence(memory_order_seq_cst);
}

Q_INLINE void q_leave(void)
{
    atomic_signal_fence(memory_order_seq_cst);
    q_inside--;
}

/* True in a signal handler that interrupted the allocator, and so must not wait for a lock. */
Q_INLINE bool q_interrupted(void)
{
    return q_unlikely(q_inside > 0 || q_heap->busy);
}

/* All heaps by id; entries are never removed. */
extern struct q_heap *q_heaps[Q_MAX_HEAPS + 1];
extern _Atomic uint32_t q_nr_heaps;

/* Guards the making and recycling of heaps. */
extern struct q_lock q_heap_lock;

/* The heap of this thread, made now if need be; NULL where it cannot have one. */
struct q_heap *q_heap_get(void);

/* The thread ends: what its heap owns becomes others'. */
void q_heap_exit(struct q_heap *heap);

/* Called once, when pthread keys may be used. */
void q_heap_hook_threads(void);

/*
 * In a forked child: the heaps of all threads but the one that forked become
 * orphans. Their slabs are disarmed at once, because a new thread may get
 * the thread pointer of one that is gone. What was in the middle of a change
 * is left as it is: lost, but whole. The rest of the work, making what the
 * orphans own available, waits until the child's first refill or first new
 * thread (q_heap_adopt_orphans), because most children exec soon.
 */
void q_heap_after_fork(void);
void q_heap_lock_after_fork(void); /* before it, with all other locks */
void q_heap_adopt_orphans(void);

/*
 * With several nodes, before another slab is wanted: has the thread moved, or
 * been given another policy? Found elsewhere twice in a row (a thread that
 * only visits stays where it was), its heap gives up the slabs that lie where
 * the thread would no longer be given memory; its node's threads find them.
 * Owner, heap->busy set.
 */
void q_heap_follow(struct q_heap *heap);

/* The same at once, for a policy that has just been set. */
void q_heap_follow_now(struct q_heap *heap);

/* Class cls has grown: let the class below serve its own sizes from now on. */
void q_heap_refine(struct q_heap *heap, unsigned cls);

/* The class that serves n bytes in this heap, for n up to Q_SMALL_MAX. */
Q_INLINE unsigned q_heap_class(const struct q_heap *heap, size_t n)
{
    unsigned cls = q_class_of(n);

    return cls + (heap->coarse >> cls & 1);
}

/* Objects waiting on a chain. */
uint32_t q_chain_length(const struct q_object *o);

/* Unlink a slab from the heap's partial list of its class. */
void q_partial_del(struct q_heap *heap, struct q_slab *s);
void q_partial_add(struct q_heap *heap, struct q_slab *s);

/* Give up one slab the heap owns: to the shared list, or destroyed where all of it is free. */
void q_heap_drop_slab(struct q_heap *heap, struct q_slab *s, struct q_object *list, uint32_t nr);

#endif
