/*
 * keeper.c - the thread that looks after the others, and the program, once a second.
 *
 * It ends what nobody else would:
 *
 *   a handler is gone    (a seccomp filter of the program's killed it, or its
 *                        descriptor broke): who waits for it would wait for
 *                        ever. All snapshots are lost with EIO, everybody is
 *                        woken. Without any handler the descriptor is closed,
 *                        which opens all pages; later snapshots are made by
 *                        a holder process.
 *   the sweeper is gone  what is away would stay so, and what handlers leave
 *                        in their boxes would have nobody who sees to it. The
 *                        keeper copies home what is away, and snapshots are
 *                        lost, if anything is; handlers see to the rest. Later
 *                        snapshots are not taken lazily.
 *   the program is gone  see base/helper.h. With fork:shared, where there are no
 *                        handlers, this is all that it does: cowd could not,
 *                        which has a table of descriptors of its own, and
 *                        serves what is written to while the program ends.
 *
 * Locks: q_store.lock, like a handler; it writes to no heap memory either. If
 * one of them died with that lock held, this thread has inherited it.
 */
#include <fcntl.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/helper.h"
#include "cow/cow.h"

#define LOOK_SECONDS 1

static bool is_gone(int tid)
{
    return q_arch_syscall6(SYS_tgkill, q_cow.pid, tid, 0, 0, 0, 0) == -ESRCH;
}

/* Handlers that are there; *died: some that were are not; *held: and one of them holds q_store.lock. */
static unsigned count_handlers(bool *died, bool *held)
{
    unsigned left = q_cow.nr_handlers;

    *died = *held = false;
    for (unsigned i = 0; i < q_cow.nr_handlers; i++) {
        /* Relaxed throughout: numbers of threads, which stay what they are. */
        int tid = atomic_load_explicit(&q_cow.tid[i], memory_order_relaxed);

        if (tid > 0 && is_gone(tid)) {
            *died = true;
            *held |= atomic_load_explicit(&q_cow.serving, memory_order_relaxed) == tid;
            atomic_store_explicit(&q_cow.tid[i], -1, memory_order_relaxed);
        }
        left -= atomic_load_explicit(&q_cow.tid[i], memory_order_relaxed) < 0;
    }
    return left;
}

/* Once. *held: and it holds q_store.lock. */
static bool sweeper_died(bool *held)
{
    int tid = atomic_load_explicit(&q_cow.sweeper, memory_order_relaxed);

    if (tid <= 0 || !is_gone(tid) || q_cow.uffd.fd < 0)
        return false;
    atomic_store_explicit(&q_cow.sweeper, 0, memory_order_relaxed);
    *held |= q_lock_is_of(&q_store.lock, q_cow.sweeper_as_holder);
    return true;
}

/*
 * What is away must come back before the descriptor goes, or it would read as
 * zeroes; and each piece that does waits until its event is read.
 */
static void let_sweep_finish(void)
{
    struct timespec ms = {.tv_nsec = 1000000};
    struct uffd_msg m;

    q_arch_syscall6(SYS_fcntl, q_cow.uffd.fd, F_SETFL, O_NONBLOCK, 0, 0, 0);
    while (q_sweep_pending()) {
        if (q_cow_orphaned())
            q_sweep_inherit();
        if (q_arch_syscall6(SYS_read, q_cow.uffd.fd, (long)&m, sizeof(m), 0, 0, 0) <= 0)
            q_arch_syscall6(SYS_nanosleep, (long)&ms, 0, 0, 0, 0, 0);
    }
}

/*
 * What one that was killed has left half done under q_store.lock. Nothing can be un-protected while
 * the sweeper's event waits to be read, which without handlers let_sweep_finish() does, later.
 */
static void end_what_it_held(unsigned left)
{
    atomic_store_explicit(&q_cow.serving, 0, memory_order_relaxed);
    if (left > 0)
        q_cow_lose(EIO);
    else
        q_cow_mark_lost(EIO);
    q_store_unlock();
}

static void do_without_sweeper(void)
{
    q_lock(&q_store.lock); /* so that no cut is under way */
    atomic_store_explicit(&q_cow.orphaned, true, memory_order_relaxed);
    q_store_unlock();
    q_uffd_wake_all(&q_cow.uffd); /* what it would have seen to is asked for again */
}

static void look_after_them(void)
{
    bool died, held;
    unsigned left = count_handlers(&died, &held);
    bool orphaned = sweeper_died(&held);

    if (held)
        end_what_it_held(left);
    if (orphaned)
        do_without_sweeper();
    if (q_cow_orphaned() && left > 0)
        q_sweep_inherit();
    if (!died)
        return;
    if (left == 0)
        let_sweep_finish();
    q_lock(&q_store.lock);
    atomic_store_explicit(&q_cow.serving, 0, memory_order_relaxed);
    if (left == 0) {
        q_cow_mark_lost(EIO);
        q_uffd_close(&q_cow.uffd); /* and the sweeper closes its own: that opens everything */
        q_sweep_ring();
        q_cow.uffd.refuse = "the threads that serve first writes were killed";
    }
    q_cow_lose(EIO);
    q_view_close_all();
    q_uffd_wake_all(&q_cow.uffd);
    q_store_unlock();
}

void *q_cow_keep(void *arg)
{
    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-keeper", 0, 0, 0, 0);
    q_helper_begin();
    for (;;) {
        struct timespec second = {.tv_sec = LOOK_SECONDS};

        long ret = q_arch_syscall6(SYS_nanosleep, (long)&second, 0, 0, 0, 0, 0);
        if (ret != 0 && ret != -EINTR)
            break; /* rather than look all the time */
        look_after_them();
        if (q_program_is_gone())
            q_program_end();
    }
    q_helper_end();
    return arg;
}
