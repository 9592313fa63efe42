/* lock.c - the waiting half of lock.h. */
#include "base/lock.h"

#include <time.h>

#define SPINS 64
#define FORK_TRIES 200 /* of a millisecond each */

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
    /* Acquire, as in q_trylock(). Leaving 2 behind may cost one wake too many, never one too few. */
    while (atomic_exchange_explicit(&l->word, 2, memory_order_acquire) != 0)
        q_futex(&l->word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 2);
}

/* Threads are told apart by where their stacks lie, which are 16 KiB long at least. */
static uint32_t this_thread(void)
{
    return (uint32_t)(q_thread_pointer() >> 14) | 1u << 31;
}

void q_lock_for_fork(struct q_lock *l, bool patient)
{
    struct timespec ms = {.tv_nsec = 1000000};

    if (patient) {
        q_lock(l);
        /* Relaxed: only this thread will find its own mark there. */
        __atomic_store_n(&l->forking, this_thread(), __ATOMIC_RELAXED);
        return;
    }
    for (int i = 0; i < FORK_TRIES; i++) {
        if (q_trylock(l)) {
            __atomic_store_n(&l->forking, this_thread(), __ATOMIC_RELAXED);
            return;
        }
        q_arch_syscall6(SYS_nanosleep, (long)&ms, 0, 0, 0, 0, 0);
    }
}

void q_unlock_for_fork(struct q_lock *l)
{
    /* An impatient fork gave up on what others hold, another fork or a snapshot being taken. */
    if (__atomic_load_n(&l->forking, __ATOMIC_RELAXED) == this_thread()) {
        __atomic_store_n(&l->forking, 0, __ATOMIC_RELAXED);
        q_unlock(l);
    }
}
