/*
 * lock.h - a futex mutex of four bytes that is valid when zero.
 *
 * Short critical sections only: a taker spins briefly (useless on one CPU,
 * cheap on many) and then sleeps. Not recursive. All locks of quire and
 * their one order stand in doc/locking.md.
 */
#ifndef Q_BASE_LOCK_H
#define Q_BASE_LOCK_H

#include <linux/futex.h>
#include <stdatomic.h>

#include "base/sys.h"

struct q_lock {
    _Atomic uint32_t word; /* 0 free, 1 held, 2 held and somebody may sleep */
    uint32_t forking;      /* the thread that holds it through q_lock_for_fork(), or 0 */
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

Q_INLINE bool q_trylock(struct q_lock *l)
{
    uint32_t zero = 0;

    /* Acquire: what the last holder wrote is seen by this one. */
    return atomic_compare_exchange_strong_explicit(&l->word, &zero, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

Q_INLINE void q_lock(struct q_lock *l)
{
    if (q_unlikely(!q_trylock(l)))
        q_lock_wait(l);
}

Q_INLINE void q_unlock(struct q_lock *l)
{
    /* Release: everything done under the lock is visible to the next holder. */
    if (q_unlikely(atomic_exchange_explicit(&l->word, 0, memory_order_release) == 2))
        q_futex(&l->word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

/*
 * Before fork: take the lock, but give up after a while where `patient` is
 * false, because then the calling thread itself may hold it (fork from a
 * signal handler that interrupted the allocator).
 */
void q_lock_for_fork(struct q_lock *l, bool patient);

/* After fork in the parent: release what q_lock_for_fork() took in this thread. */
void q_unlock_for_fork(struct q_lock *l);

/* In a forked child, where no other thread exists that could hold it. */
Q_INLINE void q_lock_reset(struct q_lock *l)
{
    atomic_store_explicit(&l->word, 0, memory_order_relaxed);
    l->forking = 0;
}

#endif
