/*
 * slab.h - slabs: 64 KiB cut into objects of one class.
 *
 * The descriptor lies outside the slab, in an array indexed by address, so
 * that free() finds it with a shift, a mask and one load:
 *
 *   slabs[]  ... | descriptor | descriptor | ...        64 bytes each
 *                      |
 *   memory   ... |obj|obj|obj|obj| not carved yet |...  64 KiB each
 *
 * States of a slab (compare the table at the head of the kernel's slub.c):
 *
 *   state     owner   on a list          frees by the owner   frees by others
 *   --------  ------  -----------------  -------------------  ---------------
 *   current   a heap  -                  freelist             remote word
 *   partial   a heap  the heap's         freelist             remote word
 *   full      nobody  -                  remote word; the freer becomes owner
 *   shared    nobody  the node's         remote word
 *   common    nobody  the node's, unless remote word, until it is empty
 *                     all is in use
 *   (empty: goes back to the page layer at once)
 *
 * Objects of an owned slab are in one of six places: live; on the owner's
 * chain (handed to the malloc fast path, counted as live); on freelist; on
 * the remote word's list; absent, their page given back (holes.h; counted as
 * live, too); or not carved yet. For an owned slab
 *
 *   used + debt == carved - length(freelist)
 *
 * where `used` counts down with each local free and calls the slow path at
 * 0. `debt` is what that countdown should not wait for (the objects on the
 * chain, say), or -1 so that it never comes to 0 at all.
 *
 * The test. free(p) must know that p is an object of this slab, on a
 * boundary, carved, and that this thread owns the slab. One multiplication
 * answers all at once. Let d be the object size and M an odd number a little
 * above 2^64 / d, so that d * M = 2^64 + e with a small excess e. For any
 * n = k*d + r (0 <= r < d, |n| < 2^49)
 *
 *   n * M  =  k*e + r*M   (mod 2^64)
 *
 * which is small, k*e, exactly when r is 0, and far away otherwise. The tag
 * folds in the slab's address and the owner's thread pointer and shifts the
 * result, so that for the owner, object k gives
 *
 *   h = (p + 4 * thread pointer - tag) * M  =  2^63 - (carved - k)*e + epoch
 *
 * and adding span = carved*e overflows a signed addition exactly for
 * 0 <= k < carved. A stranger's thread pointer, an interior address, an
 * address elsewhere that shares the descriptor, or span == 0 (nobody owns
 * it) do not. Whoever gives a slab up also spoils the tag, by 2^49, lest its
 * next free pair its old tag with the next owner's span. What the addition
 * yields, 2^63 + k*e + epoch, is the key.
 *
 * The key is written into the second word of a freed object. The epoch
 * changes whenever the freelist is taken as a whole, so an object that
 * carries the present key is still on the freelist: a double free. (A stale
 * copy can look the same after `excess` epochs; the slow path walks the list
 * before it believes it.)
 *
 * Thread pointers of different threads are never nearer than the smallest
 * stack, 16 KiB. Four times that is a slab's length, so no offset within the
 * slab makes up for a stranger's thread pointer.
 *
 * Where the descriptors stand for few addresses (the sparse model: 4 GiB, say,
 * under a limit of 3), two threads' pointers may well be a part of that apart,
 * and one's block share a descriptor with the other's slab. And a 32-bit
 * process reads a word of 64 bits in two halves, which may be of different
 * times. There span stays 0, nothing passes, and free() asks the remote word
 * whose the slab is (q_slub_free_quickly), and whether the address lies in it:
 * what it reads then does not change while an object of the slab is live.
 */
#ifndef Q_SLAB_SLAB_H
#define Q_SLAB_SLAB_H

#include <stdatomic.h>

#include "base/list.h"
#include "slab/sizeclass.h"
#include "zone/memmap.h"

/* The first words of an object that is free. */
struct q_object {
    struct q_object *next;
    uint64_t key;
};

struct q_slab {
    uint64_t tag;              /* owner writes; others may read it at any time */
    uint64_t mult;             /* class constant */
    uint64_t span;             /* carved * excess while owned with fast path, else 0 */
    struct q_object *freelist; /* owner only */
    uint32_t used;             /* owner only: local frees until the slow path looks */
    int16_t debt;              /* owner only */
    uint16_t epoch;            /* owner writes */
    _Atomic uint64_t remote;   /* see remote.h */
    uint32_t next, prev;       /* slab numbers on the owner's or node's list; 0 ends it */
    uint16_t holes;            /* a bit for each page that was given back; see holes.h */
    uint16_t carved;           /* objects that were ever handed out; owner writes */
    uint8_t in_use;            /* whether there is such a slab */
    uint8_t cls;               /* class */
    uint8_t flags;             /* Q_SLAB_* ; owner only, or the list's lock */
    uint8_t pad;
};

_Static_assert(sizeof(struct q_slab) == 1 << Q_SLAB_DESC_SHIFT, "found by a shift");

/* Thread pointers are at least 16 KiB apart (PTHREAD_STACK_MIN); slabs are 64 KiB long. */
#define Q_TP_FACTOR 4u

#define Q_SLAB_PARTIAL 1 /* on the owner's partial list */
#define Q_SLAB_GUEST 2   /* owned by a heap that did not fill it */
#define Q_SLAB_CURRENT 4
#define Q_SLAB_AGED 8    /* see holes.h: much of it is free, and was a lap ago, */
#define Q_SLAB_LOOKED 16 /* and it was looked through since */
#define Q_SLAB_COMMON 32 /* nobody's, and several young heaps have objects of it; see young.h */

Q_INLINE struct q_slab *q_slab_at(uint32_t number)
{
    return (struct q_slab *)q_lookup.slabs + (number - 1);
}

/* pfn >> slab order, plus 1. */
Q_INLINE uint32_t q_slab_number(const struct q_slab *s)
{
    return (uint32_t)(s - (const struct q_slab *)q_lookup.slabs) + 1;
}

/* By the descriptor's place, so that it holds for slabs that exist no more. */
Q_INLINE size_t q_slab_pfn(const struct q_slab *s)
{
    return (size_t)(s - (const struct q_slab *)q_lookup.slabs) << q_slab_order();
}

Q_INLINE char *q_slab_start(const struct q_slab *s)
{
    return q_pfn_to_virt(q_slab_pfn(s));
}

Q_INLINE struct q_page *q_slab_page(const struct q_slab *s)
{
    return q_pfn_to_page(q_slab_pfn(s));
}

/* The node whose memory the slab was set up on. */
Q_INLINE unsigned q_slab_nid(const struct q_slab *s)
{
    return q_pfn_zone(q_slab_pfn(s))->nid;
}

Q_INLINE const struct q_class *q_slab_class(const struct q_slab *s)
{
    return &q_classes[s->cls];
}

/* Objects not on the freelist: live, on the chain, freed by others and not collected, or absent. */
Q_INLINE uint32_t q_slab_used(const struct q_slab *s)
{
    return s->used + (uint32_t)(int32_t)s->debt;
}

/* The slab that may hold p, found without asking whether p is quire's at all. */
Q_INLINE struct q_slab *q_slab_guess(const void *p)
{
    return (
        struct q_slab *)(q_lookup.slabs +
                         (((uintptr_t)p >> (Q_SLAB_SHIFT - Q_SLAB_DESC_SHIFT)) & q_lookup.mask));
}

/* The test above. True: p is an object of a slab that the calling thread owns; *key is its key. */
Q_INLINE bool q_slab_mine(const struct q_slab *s, const void *p, int64_t *key)
{
    /*
     * Racy reads: the words that make the test pass were written by this very
     * thread; any mixture of others' words makes it fail.
     */
    uint64_t h = (Q_TP_FACTOR * q_thread_pointer() + (uintptr_t)p - q_racy_read(&s->tag)) *
                 q_racy_read(&s->mult);

    return __builtin_add_overflow((int64_t)h, (int64_t)q_racy_read(&s->span), key);
}

/* Which object of the slab an address lies in. */
Q_INLINE uint32_t q_slab_index(const struct q_slab *s, const void *p)
{
    return (uint32_t)((size_t)((const char *)p - q_slab_start(s)) / q_slab_class(s)->size);
}

/* The key of object k. */
Q_INLINE uint64_t q_slab_key(const struct q_slab *s, uint32_t k)
{
    return (1ull << 63) + (uint64_t)k * q_slab_class(s)->excess + s->epoch;
}

/* The slab of an address that is quire's: NULL unless it lies in a slab in use. */
struct q_slab *q_slab_of(const void *p);

/*
 * Make a slab of 64 KiB from the page layer for class cls, with nothing
 * carved. `first`: the caller has no other of the class. NULL: no memory.
 */
struct q_slab *q_slab_create(unsigned cls, bool first);

/* Give an empty slab, on no list and owned by nobody else, back to the page layer. */
void q_slab_destroy(struct q_slab *s);

/* Owner: set tag and span for owner's thread pointer tp; fast: whether free() may use the test. */
void q_slab_arm(struct q_slab *s, uintptr_t tp, bool fast);

/* Owner: switch the test off, for every thread and for good. */
void q_slab_disarm(struct q_slab *s);

/* Owner: begin a new epoch; freed objects on the list so far no longer carry the present key. */
Q_INLINE void q_slab_next_epoch(struct q_slab *s, const struct q_class *k, uintptr_t tp)
{
    if (q_likely(s->epoch + 1u < k->excess)) {
        s->epoch++;
        __atomic_store_n(&s->tag, s->tag - k->inv, __ATOMIC_RELAXED);
        return;
    }
    s->epoch = 0;
    q_slab_arm(s, tp, s->span != 0);
}

/*
 * Owner: carve the objects of the next page or so and return them as a
 * list, *nr of them. ahead: pages worth populating at once. NULL: all carved.
 */
struct q_object *q_slab_carve(struct q_slab *s, unsigned ahead, uint32_t *nr);

/* Compare the counters with the lists; ends the program when they differ. Owner only. */
void q_slab_verify(const struct q_slab *s);

#endif
