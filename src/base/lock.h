/*
 * lock.h - a futex mutex of four bytes that is valid when zero.
 *
 * Short critical sections only: a taker spins briefly (useless on one CPU,
 * cheap on many) and then sleeps. Not recursive. All locks of quire and
 * their one order stand in doc/locking.md.
 *
 *   word   31                              2   1   0
 *         +----------------------------------+---+---+
 *         | holder: thread pointer >> 11     | 1 | W |    or all 0: free
 *         +----------------------------------+---+---+
 *                                                  somebody may sleep
 *
 * The holder is there for fork. A signal handler may interrupt the allocator
 * while it holds locks, and fork: it must not wait for those, nor for what
 * other threads hold that are in such a handler, too, and wait for it.
 */
#ifndef Q_BASE_LOCK_H
#define Q_BASE_LOCK_H

#include <linux/futex.h>
#include <stdatomic.h>

#include "base/sys.h"

#define Q_LOCK_WAITERS 1u
#define Q_LOCK_HELD 2u

struct q_lock {
    _Atomic uint32_t word;
    uint32_t group; /* holder only: 0, or for whom q_lock_for_fork() took it, see lock.c */
};

/*
 * A word that the kernel clears in a child process, so that a child that
 * skipped the fork handlers (_Fork, clone) is noticed when it meets a lock
 * whose holder does not exist there.
 */
void q_lock_init(void (*in_strange_child)(void));
void q_lock_child_known(void);

/* Wait for a lock that somebody holds, and take it. */
void q_lock_wait(struct q_lock *l);

/*
 * Threads are told apart by their thread pointers, at which libc keeps more
 * than 2 KiB. Their stacks lie further apart, but for the first thread's: that
 * may have another's just below what the loader mapped for its variables.
 */
Q_INLINE uint32_t q_lock_holder(uintptr_t thread_pointer)
{
    return ((uint32_t)(thread_pointer >> 9) & ~(Q_LOCK_HELD | Q_LOCK_WAITERS)) | Q_LOCK_HELD;
}

Q_INLINE uint32_t q_lock_self(void)
{
    return q_lock_holder(q_thread_pointer());
}

/* Whether this thread holds it: what its own q_lock_self() is. */
Q_INLINE bool q_lock_is_of(struct q_lock *l, uint32_t holder)
{
    return (atomic_load_explicit(&l->word, memory_order_relaxed) & ~Q_LOCK_WAITERS) == holder;
}

/* Whether the calling thread holds it: nobody else can make that true or false. */
Q_INLINE bool q_lock_is_mine(struct q_lock *l)
{
    return q_lock_is_of(l, q_lock_self());
}

Q_INLINE bool q_trylock(struct q_lock *l)
{
    uint32_t zero = 0;

    /* Acquire: what the last holder wrote is seen by this one. */
    return atomic_compare_exchange_strong_explicit(&l->word, &zero, q_lock_self(),
                                                   memory_order_acquire, memory_order_relaxed);
}

Q_INLINE void q_lock(struct q_lock *l)
{
    if (q_unlikely(!q_trylock(l)))
        q_lock_wait(l);
}

Q_INLINE void q_unlock(struct q_lock *l)
{
    /* Release: everything done under the lock is visible to the next holder. */
    if (q_unlikely(atomic_exchange_explicit(&l->word, 0, memory_order_release) & Q_LOCK_WAITERS))
        q_futex(&l->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

/*
 * Forks, one at a time. Before a fork the calling thread passes a gate, takes
 * all locks there are, and lets go of them and of the gate afterwards, in the
 * parent and in the child. `patient` is false in a signal handler that
 * interrupted the allocator.
 */
void q_fork_begin(bool patient);
void q_fork_end(void);       /* in the parent */
void q_fork_end_child(void); /* in the child, after its locks */

/*
 * Take one of all the locks: for a fork, or for what else needs them all. A
 * fork leaves a lock that the calling thread holds already: the code that the
 * handler interrupted goes on under it, in the parent and in the child. It
 * gives up on one whose holder waits for this fork to end, and after seconds.
 */
void q_lock_for_fork(struct q_lock *l, bool patient);

/* Release what the same call took; nothing else. */
void q_unlock_for_fork(struct q_lock *l);

/*
 * In the child: free the lock, unless interrupted code of this thread holds
 * it. True where a thread that does not exist here held it, so that what it
 * guards may be in the middle of a change.
 */
bool q_lock_after_fork(struct q_lock *l);

/* Make it free, whatever it was. */
Q_INLINE void q_lock_reset(struct q_lock *l)
{
    atomic_store_explicit(&l->word, 0, memory_order_relaxed);
    l->group = 0;
}

#endif
