/* lock.c - the waiting half of lock.h. */
#include "base/lock.h"

#include <time.h>

#define SPINS 64
#define AT_GATE 64
#define NAP_NS 100000
#define FORK_PATIENCE_NS 2000000000u

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static _Atomic uint32_t *same_process; /* 1; the kernel makes it 0 in a child */
static void (*strange_child)(void);

void q_lock_init(void (*in_strange_child)(void))
{
    void *page = q_mmap(NULL, q_page_size(), PROT_READ | PROT_WRITE, 0);

    if (page == NULL || q_madvise(page, q_page_size(), MADV_WIPEONFORK) != 0)
        return; /* before Linux 4.14: such a child would wait for ever */
    strange_child = in_strange_child;
    same_process = page;
    q_lock_child_known();
}

void q_lock_child_known(void)
{
    if (same_process != NULL)
        atomic_store_explicit(same_process, 1, memory_order_relaxed);
}

/* True, once, in a child that ran no fork handler. */
static bool is_strange_child(void)
{
    if (same_process == NULL || atomic_load_explicit(same_process, memory_order_relaxed) != 0)
        return false;
    q_lock_child_known();
    strange_child();
    return true;
}

void q_lock_wait(struct q_lock *l)
{
    if (is_strange_child() && q_trylock(l))
        return;
    for (int i = 0; i < SPINS; i++) {
        /* Relaxed: only a hint; q_trylock() does the acquiring. */
        if (atomic_load_explicit(&l->word, memory_order_relaxed) == 0 && q_trylock(l))
            return;
        q_cpu_relax();
    }
    uint32_t word = atomic_load_explicit(&l->word, memory_order_relaxed);
    for (;;) {
        if (word == 0) {
            /* Acquire, as in q_trylock(). Others may sleep: one wake too many, never one too few. */
            if (atomic_compare_exchange_weak_explicit(&l->word, &word,
                                                      q_lock_self() | Q_LOCK_WAITERS,
                                                      memory_order_acquire, memory_order_relaxed))
                return;
            continue;
        }
        if ((word & Q_LOCK_WAITERS) == 0 &&
            !atomic_compare_exchange_weak_explicit(&l->word, &word, word | Q_LOCK_WAITERS,
                                                   memory_order_relaxed, memory_order_relaxed))
            continue;
        q_futex(&l->word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, word | Q_LOCK_WAITERS);
        word = atomic_load_explicit(&l->word, memory_order_relaxed);
    }
}

/*
 * Forks go one at a time, through a gate. Who holds it may be waiting for a
 * lock whose holder was interrupted by a handler that forks and waits at the
 * gate; so those say who they are. A handler may also interrupt the very
 * thread that holds the gate: the inner fork finds it its own, and leaves all
 * that the outer one has taken.
 */
static struct q_lock gate;
static unsigned depth;       /* inner forks of the thread that holds the gate */
static uint64_t deadline_ns; /* of the fork that holds it; 0: did not wait yet */

/* Threads in handlers that interrupted the allocator, on their way through the gate; 0: free. */
static _Atomic uint32_t at_gate[AT_GATE];

/* What q_lock->group says. */
enum { GROUP_NONE, GROUP_CUT, GROUP_FORK }; /* and so on: inner forks */

static uint32_t my_group(void)
{
    return q_lock_is_mine(&gate) ? GROUP_FORK + depth : GROUP_CUT;
}

static _Atomic uint32_t *enter_gate(void)
{
    for (unsigned i = 0; i < AT_GATE; i++) {
        uint32_t zero = 0;

        /* Relaxed: only the value counts. Whoever waits for this thread looks again and again. */
        if (atomic_compare_exchange_strong_explicit(&at_gate[i], &zero, q_lock_self(),
                                                    memory_order_relaxed, memory_order_relaxed))
            return &at_gate[i];
    }
    return NULL; /* too many: seconds will pass */
}

void q_fork_begin(bool patient)
{
    if (q_lock_is_mine(&gate)) {
        depth++;
        return;
    }
    _Atomic uint32_t *slot = patient ? NULL : enter_gate();
    q_lock(&gate);
    if (slot != NULL)
        atomic_store_explicit(slot, 0, memory_order_relaxed);
    deadline_ns = 0;
}

void q_fork_end(void)
{
    if (depth > 0)
        depth--;
    else
        q_unlock(&gate);
}

void q_fork_end_child(void)
{
    for (unsigned i = 0; i < AT_GATE; i++)
        atomic_store_explicit(&at_gate[i], 0, memory_order_relaxed);
    if (q_lock_is_mine(&gate) && depth > 0) {
        depth--;
        return;
    }
    depth = 0;
    q_lock_reset(&gate);
}

/* The holder was interrupted by a handler that waits for this fork to end. */
static bool holder_waits(struct q_lock *l)
{
    uint32_t holder =
        atomic_load_explicit(&l->word, memory_order_relaxed) & ~(uint32_t)Q_LOCK_WAITERS;

    for (unsigned i = 0; holder != 0 && i < AT_GATE; i++)
        if (atomic_load_explicit(&at_gate[i], memory_order_relaxed) == holder)
            return true;
    return false;
}

/* A handler may hold up the holder for other reasons: an impatient fork waits for all locks together so long. */
static bool too_late(void)
{
    uint64_t now = q_clock_fine();

    if (deadline_ns == 0)
        deadline_ns = now + FORK_PATIENCE_NS;
    return now >= deadline_ns;
}

void q_lock_for_fork(struct q_lock *l, bool patient)
{
    struct timespec nap = {.tv_nsec = NAP_NS};

    if (my_group() == GROUP_CUT) {
        q_lock(l);
    } else if (!q_trylock(l)) {
        if (q_lock_is_mine(l))
            return;
        while (!q_trylock(l)) {
            if (holder_waits(l) || (!patient && too_late()))
                return;
            q_arch_syscall6(SYS_nanosleep, (long)&nap, 0, 0, 0, 0, 0);
        }
    }
    l->group = my_group();
}

void q_unlock_for_fork(struct q_lock *l)
{
    if (q_lock_is_mine(l) && l->group == my_group()) {
        l->group = GROUP_NONE;
        q_unlock(l);
    }
}

bool q_lock_after_fork(struct q_lock *l)
{
    bool mine = q_lock_is_mine(l), held = atomic_load_explicit(&l->word, memory_order_relaxed) != 0;

    if (mine && l->group != my_group())
        return false;
    q_lock_reset(l);
    return held && !mine;
}
