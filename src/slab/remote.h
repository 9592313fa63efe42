/*
 * remote.h - frees by threads that do not own the slab.
 *
 * One 64-bit word per slab, changed only by compare-and-swap (or exchange):
 *
 *    63        48 47        32 31  30  29      16 15           0
 *   +------------+------------+---+---+----------+--------------+
 *   | home heap  | owner heap | W | S |  count   | head         |
 *   +------------+------------+---+---+----------+--------------+
 *
 *   head   offset / 16 of the first object on the list, plus 1; 0: empty.
 *          Objects link through their first word.
 *   count  objects on the list
 *   S      the slab is on its node's shared list
 *   W      the owner was told that all of the slab may be free
 *   owner  heap that owns the slab; 0: nobody, so the freer may take it
 *   home   heap that filled it last: its frees bring the slab back to it; 0 of
 *          a slab that is full: it is common, and shared again by its first free
 *
 * Pushing is safe from ABA: equal words mean equal head and count, to which a
 * push only prepends. The list is taken whole, or, of a common slab, in part
 * by one thread at a time, under the lock of the shared list.
 */
#ifndef Q_SLAB_REMOTE_H
#define Q_SLAB_REMOTE_H

#include "slab/slab.h"

#define Q_REMOTE_SHARED (1ull << 30)
#define Q_REMOTE_WARNED (1ull << 31)
#define Q_REMOTE_LIST 0x3fffffffull /* head and count */

Q_INLINE uint32_t q_remote_count(uint64_t w)
{
    return w >> 16 & 0x3fff;
}

Q_INLINE uint16_t q_remote_owner(uint64_t w)
{
    return (uint16_t)(w >> 32);
}

Q_INLINE uint16_t q_remote_home(uint64_t w)
{
    return (uint16_t)(w >> 48);
}

Q_INLINE struct q_object *q_remote_head(const struct q_slab *s, uint64_t w)
{
    uint32_t head = w & 0xffff;

    return head == 0 ? NULL : (struct q_object *)(q_slab_start(s) + ((size_t)(head - 1) << 4));
}

/* A word with this list and owner, and the flags and home of w. */
Q_INLINE uint64_t q_remote_make(const struct q_slab *s, uint64_t w, const struct q_object *head,
                                uint32_t count, uint16_t owner)
{
    uint64_t at = head == NULL ? 0 : (((uintptr_t)head - (uintptr_t)q_slab_start(s)) >> 4) + 1;

    return (w & (0xffffull << 48 | Q_REMOTE_SHARED | Q_REMOTE_WARNED)) | (uint64_t)owner << 32 |
           (uint64_t)count << 16 | at;
}

Q_INLINE uint64_t q_remote_with_home(uint64_t w, uint16_t home)
{
    return (w & ~(0xffffull << 48)) | (uint64_t)home << 48;
}

/*
 * Slabs of one class that nobody owns and that have free objects, or room for
 * some: one pair of lists per node and class. Common ones (Q_SLAB_COMMON) are
 * those that young heaps draw from (young.h); they have no holes.
 */
struct q_shared_list {
    struct q_lock lock;
    uint32_t first;  /* slab number; 0: empty */
    uint32_t common; /* the same for common slabs */
    uint32_t nr;     /* of both */
};

/* Set up the shared lists; false where there is no memory. */
bool q_shared_init(void);

/* fork: take and release all their locks; in the child, make lists anew that were in the middle of a change. */
void q_shared_lock_all(bool patient);
void q_shared_unlock_all(void);
void q_shared_fork_child(void);

/*
 * Owner: give up a slab with free objects. list/nr are the objects of its
 * freelist. Destroys it where all of it is free.
 */
void q_shared_put(struct q_slab *s, struct q_object *list, uint32_t nr);

/*
 * Free the list head..tail of nr objects into a slab that is full and owned
 * by nobody, on behalf of a thread that cannot or does not want to own it:
 * the slab becomes shared. False where it is no longer such a slab.
 */
bool q_shared_add(struct q_slab *s, struct q_object *head, struct q_object *tail, uint32_t nr);

/*
 * Take a slab of this class for heap `owner` from the list of the node that
 * the thread's policy names next, or from that of any node it allows where
 * memory is short. Its free objects are on its freelist, used is set, nothing is armed. NULL: none.
 */
struct q_slab *q_shared_take(unsigned cls, uint16_t owner, bool any_node);

/*
 * A few objects of a common slab, for a heap that is to have no slab of its
 * own yet: a list of at most `most` objects, *nr of them. Where there is no
 * common slab, a shared one becomes common, or a new one is made. NULL: there
 * is no memory, or none on this node.
 */
struct q_object *q_shared_draw(unsigned cls, uint32_t most, uint32_t *nr);

/* A slab that nobody owns became empty: take it off its list and destroy it, if that still holds. */
void q_shared_reap(struct q_slab *s);

/* All shared lists, for copying them; *nr is how many. */
struct q_shared_list *q_shared_lists(size_t *nr);

/* How many slabs of this class are shared now, over all nodes. */
uint32_t q_shared_count(unsigned cls);

#endif
