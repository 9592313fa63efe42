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
 * Locks: q_store.lock, like a handler; it writes to no heap memory either. Who
 * dies with that lock held leaves it to this thread, also while this thread
 * waits for it: lock_store().
 */
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>

#include "base/helper.h"
#include "cow/cow.h"

#define LOOK_SECONDS 1

/* What has been seen, and not been seen to. */
static struct {
    unsigned handlers; /* that are there */
    bool handler_gone;
    bool sweeper_gone;
    bool holder_gone; /* one of them held q_store.lock */
} seen;

static void look_for_handlers(void)
{
    seen.handlers = q_cow.nr_handlers;
    for (unsigned i = 0; i < q_cow.nr_handlers; i++) {
        /* Relaxed throughout: numbers of threads, which stay what they are. */
        int tid = atomic_load_explicit(&q_cow.tid[i], memory_order_relaxed);

        if (tid > 0 && q_helper_is_gone(tid)) {
            seen.handler_gone = true;
            seen.holder_gone |= atomic_load_explicit(&q_cow.serving, memory_order_relaxed) == tid;
            atomic_store_explicit(&q_cow.tid[i], -1, memory_order_relaxed);
        }
        seen.handlers -= atomic_load_explicit(&q_cow.tid[i], memory_order_relaxed) < 0;
    }
}

static void look_for_sweeper(void)
{
    int tid = atomic_load_explicit(&q_cow.sweeper, memory_order_relaxed);

    if (tid <= 0 || !q_helper_is_gone(tid) || q_cow.uffd.fd < 0)
        return;
    atomic_store_explicit(&q_cow.sweeper, 0, memory_order_relaxed);
    seen.sweeper_gone = true;
    seen.holder_gone |= q_lock_is_of(&q_store.lock, q_cow.sweeper_as_holder);
}

static void look(void)
{
    look_for_handlers();
    look_for_sweeper();
}

/*
 * Who moves protected memory (the sweeper, or a cut, with q_store.lock held)
 * waits until that is read from userfaultfd, and others until it is moved. Who
 * would have read it may be gone. What else is read here is asked for again, as
 * all are woken in the end. Not by read(2): what may kill the handlers must
 * leave the keeper.
 */
static bool read_for_them(void)
{
    struct uffd_msg m;
    struct iovec to = {&m, sizeof(m)};

    if (!q_uffd_ours(&q_cow.uffd))
        return false;
    q_uffd_set_blocking(q_cow.uffd.fd, false);
    return q_arch_syscall6(SYS_readv, q_cow.uffd.fd, (long)&to, 1, 0, 0, 0) > 0;
}

/*
 * Take q_store.lock, or inherit it, with whatever was left half done under it:
 * readers are told; lose_handlers() sees to the rest.
 */
static void lock_store(void)
{
    while (!seen.holder_gone && !q_trylock(&q_store.lock)) {
        if (!read_for_them())
            q_cow_nap();
        look();
    }
    if (!seen.holder_gone)
        return;
    seen.holder_gone = false;
    seen.handler_gone = true; /* or the sweeper, which is the same here */
    atomic_store_explicit(&q_cow.serving, 0, memory_order_relaxed);
    q_cow_mark_lost(EIO);
}

static void lose_sweeper(void)
{
    lock_store(); /* so that no cut is under way */
    seen.sweeper_gone = false;
    atomic_store_explicit(&q_cow.orphaned, true, memory_order_relaxed);
    if (q_sweep_pending() && seen.handlers > 0)
        q_cow_lose(EIO); /* what is away is copied home, which undoes its protection */
    q_store_unlock();
    q_uffd_wake_all(&q_cow.uffd); /* what it would have seen to is asked for again */
}

/* What is away must come back before the descriptor goes, or it would read as zeroes. */
static void let_sweep_finish(void)
{
    while (q_sweep_pending()) {
        look_for_sweeper();
        if (seen.sweeper_gone)
            lose_sweeper();
        if (q_cow_orphaned())
            q_sweep_inherit();
        if (!read_for_them())
            q_cow_nap();
    }
}

/* Without any, nothing can be un-protected while the sweeper's event waits to be read. */
static void lose_handlers(void)
{
    lock_store();
    bool none = seen.handlers == 0;
    if (none) {
        q_cow_mark_lost(EIO);
        while (q_sweep_pending()) { /* or again, if another cut came between */
            q_store_unlock();
            let_sweep_finish();
            lock_store();
            q_cow_mark_lost(EIO);
        }
        q_uffd_close(&q_cow.uffd); /* and the sweeper closes its own: that opens everything */
        q_sweep_ring();
        q_cow.uffd.refuse = "the threads that serve first writes were killed";
    }
    q_cow_lose(EIO);
    q_view_close_all();
    q_uffd_wake_all(&q_cow.uffd);
    seen.handler_gone = false;
    q_store_unlock();
}

static void look_after_them(void)
{
    look();
    if (seen.sweeper_gone)
        lose_sweeper();
    if (seen.handler_gone)
        lose_handlers();
    if (q_cow_orphaned() && seen.handlers > 0)
        q_sweep_inherit();
}

void *q_cow_keep(void *arg)
{
    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-keeper", 0, 0, 0, 0);
    q_helper_begin();
    memset(&seen, 0, sizeof(seen)); /* in a child: the parent's */
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
