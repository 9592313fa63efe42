/*
 * store.h - saved pages: what memory held before it was written.
 *
 * A page of the heap is saved at the first write after a cut, once, for all
 * snapshots that need it. Its versions form a chain, newest first:
 *
 *   leaf (2 MiB of heap)                 pool
 *   head[page] ---> slot 7, epoch 5 ---> slot 2, epoch 3 ---> 0
 *
 * A version of epoch e is what every snapshot s shows with
 * older version's epoch < s <= e. It goes when no such snapshot is alive:
 * that is its reference count. A snapshot newer than the newest version is
 * shown by the page itself, which is still write-protected.
 *
 * Locks: everything that changes the store is done with q_store.lock held and
 * all signals blocked, because a signal handler that wrote to the heap would
 * wait for the holder. No heap memory is written meanwhile. Readers
 * take no lock: see q_store_find().
 */
#ifndef Q_COW_STORE_H
#define Q_COW_STORE_H

#include <stdatomic.h>

#include "base/lock.h"

#define Q_LEAF_SHIFT Q_PAGEBLOCK_SHIFT
#define Q_LEAF_PAGES 512u /* at most: 2 MiB in pages of 4 KiB */

struct q_leaf {
    uintptr_t base;        /* first address */
    _Atomic uint32_t life; /* which life of the store this is of; others read as empty */
    uint16_t next, around; /* fault-around: the page after the last one served; how many */
    _Atomic uint32_t head[Q_LEAF_PAGES]; /* slot of the newest version; 0: none */
};

struct q_version {
    uint32_t epoch;
    _Atomic uint32_t older; /* slot; 0: none */
    uint32_t mark;          /* see q_cow_compact_log() */
};

struct q_store {
    struct q_lock lock;
    char *pool;                 /* slot s is page s of it; slot 0 is never used */
    struct q_version *version;  /* [slot] */
    uint32_t nr_slots;          /* room */
    _Atomic uint32_t next_slot; /* never used from here on */
    uint32_t free_slot;         /* chain through `older` */
    _Atomic uint32_t populated; /* slots below have memory, about */
    _Atomic uint32_t held;      /* slots in use */
    _Atomic uint32_t life;
    _Atomic uint32_t shuffle; /* odd while versions are dropped */
    size_t budget;            /* bytes; 0: half of memory */
};

extern struct q_store q_store;

/* Let go of the lock, and have the faults served that came meanwhile (inbox.h). Not for handlers. */
void q_store_unlock(void);

/* Reserve the pool. False: no address space. */
bool q_store_init(void);

/*
 * Memory for the next pages that will be saved, so that no fault has to wait
 * for it: getting 2 MiB may take milliseconds. Whoever takes or reads a
 * snapshot does that for the handler. While one by protection is alive, or
 * under api_lock.
 */
void q_store_populate(void);

/* The leaf of addr; made where `make`. NULL: none, or no memory. Lock held where `make`. */
struct q_leaf *q_store_leaf(uintptr_t addr, bool make);

Q_INLINE unsigned q_leaf_index(const struct q_leaf *leaf, uintptr_t addr)
{
    return (unsigned)((addr - leaf->base) >> q_page_shift);
}

/* Whether the leaf is of the store's present life; its heads count as 0 otherwise. */
Q_INLINE bool q_store_alive(const struct q_leaf *leaf)
{
    /* Acquire: pairs with the release that made it so, after its heads were emptied. */
    return atomic_load_explicit(&leaf->life, memory_order_acquire) ==
           atomic_load_explicit(&q_store.life, memory_order_relaxed) + 1;
}

/* Epoch of the newest version of a page; 0: none. Lock held. */
uint32_t q_store_newest(const struct q_leaf *leaf, unsigned index);

/* A slot to fill; 0: the budget is used up. Lock held. */
uint32_t q_store_take(void);
void q_store_give(uint32_t slot);

Q_INLINE void *q_store_page(uint32_t slot)
{
    return q_store.pool + ((size_t)slot << q_page_shift);
}

/* The slot is filled: it is the page's newest version from now on. Lock held. */
void q_store_publish(struct q_leaf *leaf, unsigned index, uint32_t slot, uint32_t epoch);

/*
 * The slot that shows addr as of `epoch`; 0: the page itself does. Any
 * thread, no lock. The slot stays as it is while that snapshot lives; a 0 may
 * be out of date as soon as it is returned, so who reads the page itself asks
 * again afterwards.
 */
uint32_t q_store_find(uintptr_t addr, uint32_t epoch);

#define Q_MAX_PRUNED 1024u /* live snapshots; of more, none is pruned */

/* Drop what no snapshot of live[0..nr) shows. Takes the lock by itself, leaf by leaf. */
void q_store_prune(const uint32_t *live, size_t nr);

/* The same for the pages of [from, to), all of one leaf. Lock held. */
void q_store_prune_pages(uintptr_t from, uintptr_t to, const uint32_t *live, size_t nr);

/* Drop the page's versions of `epoch` and later: it is again as it was then. Lock held. */
void q_store_drop(uintptr_t addr, uint32_t epoch);

/* Forget everything: no snapshot is alive. Lock held. */
void q_store_reset(void);

/* Give the pool's memory back to the kernel, all but a little. After a reset, without the lock. */
void q_store_shrink(void);

/* Give the pool up, so that q_store_init() makes one of another size. No snapshot is alive. */
void q_store_resize(void);

/* In a forked child, which does not inherit the pool. */
void q_store_forget(void);

#endif
