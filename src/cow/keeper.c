/*
 * keeper.c - the thread that looks after the handlers, and the program, once a second.
 *
 * It ends what nobody else would:
 *
 *   a handler is gone    (a seccomp filter of the program's killed it, or its
 *                        descriptor broke): who waits for it would wait for
 *                        ever. All snapshots are lost with EIO, everybody is
 *                        woken. Without any handler the descriptor is closed,
 *                        which opens all pages; later snapshots are made by
 *                        a holder process.
 *   the program is gone  see base/helper.h. With fork:shared, where there are no
 *                        handlers, this is all that it does: cowd could not,
 *                        which has a table of descriptors of its own, and
 *                        serves what is written to while the program ends.
 *
 * Locks: q_store.lock, like a handler; it writes to no heap memory either. If
 * a handler died with that lock held, this thread has inherited it.
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

/*
 * What is away must come back before the descriptor goes, or it would read as
 * zeroes; and each piece that does waits until its event is read.
 */
static void let_sweep_finish(void)
{
    struct timespec ms = {.tv_nsec = 1000000};
    struct uffd_msg m;

    q_arch_syscall6(SYS_fcntl, q_cow.uffd.fd, F_SETFL, O_NONBLOCK, 0, 0, 0);
    while (q_sweep_pending())
        if (q_arch_syscall6(SYS_read, q_cow.uffd.fd, (long)&m, sizeof(m), 0, 0, 0) <= 0)
            q_arch_syscall6(SYS_nanosleep, (long)&ms, 0, 0, 0, 0, 0);
}

static void look_after_handlers(void)
{
    bool died, held;
    unsigned left = count_handlers(&died, &held);

    if (!died)
        return;
    if (left == 0)
        let_sweep_finish();
    if (!held)
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
        look_after_handlers();
        if (q_program_is_gone())
            q_program_end();
    }
    q_helper_end();
    return arg;
}
