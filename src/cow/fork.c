/*
 * fork.c - fork of a heap that is shared with children (share.h), in constant time.
 *
 *   forking thread               the window                      others
 *   --------------               ----------                      ------
 *   prepare  page tables aside   shared, empty                   wait at first touch
 *            other mapping in    file, MAP_PRIVATE, empty        go on, on copies
 *   fork()                       the child inherits just that
 *   end      that aside          shared, empty                   wait
 *            copies to the file, each page first made private
 *            in all children
 *            shared mapping in   shared, empty                   go on
 *
 * So the child has a private mapping from its first instruction, before any
 * handler has run in it. Others are stopped only while nothing is waited for
 * but cowd; between, where libc takes locks that they may hold, they
 * run. What anybody wrote in between is in the child if it was before the
 * fork itself, as always with fork.
 *
 * The old page tables are thrown away later, a little at a time.
 *
 * Anything that fails on the way ends in Q_CALL_PRIVATE, see cowd.c: this
 * fork, and all that follow, are then the kernel's own.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/msg.h"
#include "cow/cow.h"
#include "cow/share.h"
#include "numa/topology.h"
#include "quire/fork.h"
#include "zone/linear.h"

#define BIRTH_NS 2000000000u

static struct q_lock fork_lock;

/* The fork that is under way; under fork_lock. */
static struct {
    bool under_way;
    unsigned inner; /* forks by signal handlers that interrupted it: their children are refused */
    bool cut;       /* private mappings are in place */
    struct q_sharer *entry;
    int ends[2]; /* a pipe, whose other end closes when the child is entered, or was never there */
} now;

/* This thread is in quire_fork(), which learns the child's number by itself. */
static __thread bool quick;

void q_share_fork_lock(void)
{
    if (q_share_mode() == Q_SHARE_NONE)
        return;
    if (q_lock_is_mine(&fork_lock))
        now.inner++;
    else
        q_lock(&fork_lock);
}

bool q_share_fork_trylock(void)
{
    return q_share_mode() == Q_SHARE_NONE || q_trylock(&fork_lock);
}

void q_share_fork_unlock(void)
{
    if (!q_lock_is_mine(&fork_lock))
        return;
    if (now.inner > 0)
        now.inner--;
    else if (!now.under_way) /* else quire_fork() goes on with it */
        q_unlock(&fork_lock);
}

/* --- moving mappings ------------------------------------------------------------------------- */

static bool move(uintptr_t from, uintptr_t to, size_t len, int flags)
{
    long ret = q_arch_syscall6(SYS_mremap, (long)from, (long)len, (long)len,
                               MREMAP_MAYMOVE | MREMAP_FIXED | flags, (long)to, 0);

    return !q_sys_failed(ret);
}

/* False: the table is full. */
static bool new_entry(void)
{
    now.entry = q_sharer_new();
    if (now.entry == NULL && q_share_mode() == Q_SHARE_FIRST &&
        q_share_call(Q_CALL_SWEEP, 0, 0) >= 0)
        now.entry = q_sharer_new();
    if (now.entry != NULL)
        q_share.cookie.next = now.entry->cookie;
    return now.entry != NULL;
}

static bool begin(void)
{
    /* The entry comes after the cut: before, cowd might wait for that child to be born. */
    if (q_share_call(Q_CALL_CUT, q_this_cpu(), 0) != 0 || !new_entry())
        return false;
    for (unsigned i = 0; i < q_share.nr_cuts; i++) {
        struct q_cut *c = &q_share.cut[i];
        size_t len = c->end - c->start;

        /* Without that, putting the other mapping in place empties them, which takes longer. */
        if (c->aside != 0)
            move(c->start, c->aside, len, MREMAP_DONTUNMAP);
        if (!move(c->next_private, c->start, len, 0))
            return false;
        c->next_private = 0;
    }
    return q_share_call(Q_CALL_ASIDE, 0, 0) == 0;
}

/* What was written to the private mappings goes to the file. */
static bool settle(void)
{
    bool ok = true;

    for (unsigned i = 0; ok && i < q_share.nr_cuts; i++) {
        struct q_cut *c = &q_share.cut[i];
        size_t len = c->end - c->start;
        long ret = q_arch_syscall6(SYS_mremap, (long)c->start, (long)len, (long)len,
                                   MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0, 0);
        ok = !q_sys_failed(ret);
        c->written = ok ? (uintptr_t)ret : 0;
    }
    if (ok && q_share_call(Q_CALL_SETTLE, 0, 0) == 0)
        return true;
    for (unsigned i = 0; i < q_share.nr_cuts; i++) {
        struct q_cut *c = &q_share.cut[i];

        if (c->written != 0 && !move(c->written, c->start, c->end - c->start, 0))
            q_die("fork: the heap cannot be put back in its place");
        c->written = 0;
    }
    return false;
}

static void end(void)
{
    long touched = q_share_call(Q_CALL_STOP, 0, 0);
    bool ok = touched == 0 || (touched > 0 && settle());

    for (unsigned i = 0; ok && i < q_share.nr_cuts; i++) {
        struct q_cut *c = &q_share.cut[i];

        ok = move(c->next_shared, c->start, c->end - c->start, 0);
        if (ok)
            c->next_shared = 0;
    }
    q_share_call(ok ? Q_CALL_OPEN : Q_CALL_PRIVATE, 0, 0);
}

/* --- before ---------------------------------------------------------------------------------- */

/* Of a child: have all pages of the file copied, so that its own children need not be known. */
static void copy_all(void)
{
    for (unsigned i = 0; i < q_share.nr_spans; i++) {
        void *at = (void *)q_share.span[i].start;
        size_t len = q_share.span[i].end - q_share.span[i].start;

        if (q_madvise(at, len, MADV_POPULATE_WRITE) != 0)
            q_madvise(at, len, MADV_DONTFORK); /* rather no heap than a wrong one */
    }
    atomic_store_explicit(&q_share.frozen, true, memory_order_relaxed);
}

static bool stack_in_heap(void)
{
    return q_share_has((uintptr_t)__builtin_frame_address(0)) || q_share_has(q_thread_pointer());
}

/* So that a child made without fork handlers finds no heap, rather than one that nobody cares for. */
static void inherit(bool on)
{
    for (unsigned i = 0; i < q_share.nr_spans; i++)
        q_madvise((void *)q_share.span[i].start, q_share.span[i].end - q_share.span[i].start,
                  on ? MADV_DOFORK : MADV_DONTFORK);
}

void q_share_fork_prepare(void)
{
    /* Frozen: nobody writes to the file any more, so the kernel's fork is right. */
    if (q_share_mode() == Q_SHARE_NONE ||
        atomic_load_explicit(&q_share.frozen, memory_order_relaxed) || now.inner > 0)
        return;
    uint64_t mask = q_signals_block();
    now.under_way = true;
    now.entry = NULL;
    now.ends[0] = now.ends[1] = -1;
    if (!quick)
        q_arch_syscall6(SYS_pipe2, (long)now.ends, O_CLOEXEC, 0, 0, 0, 0);
    if (q_share_mode() == Q_SHARE_FIRST) {
        now.cut = !stack_in_heap() && begin();
        if (!now.cut)
            q_share_call(Q_CALL_PRIVATE, 0, 0);
    } else {
        inherit(true);
        if (!new_entry())
            copy_all();
    }
    atomic_fetch_add_explicit(&q_share.forks, 1, memory_order_relaxed);
    q_signals_restore(mask);
}

/* --- after, in the parent -------------------------------------------------------------------- */

static void close_end(int *fd)
{
    if (*fd >= 0)
        q_arch_syscall6(SYS_close, *fd, 0, 0, 0, 0, 0);
    *fd = -1;
}

/* The last number in the list of this thread's children; 0: there is no such list (CONFIG_PROC_CHILDREN). */
static int youngest_child(void)
{
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)"/proc/thread-self/children",
                              O_RDONLY | O_CLOEXEC, 0, 0, 0);
    char text[256], before = ' ';
    int pid = 0;
    long n;

    while (fd >= 0 && (n = q_arch_syscall6(SYS_read, fd, (long)text, sizeof(text), 0, 0, 0)) > 0) {
        for (long i = 0; i < n; before = text[i++])
            if (text[i] >= '0' && text[i] <= '9')
                pid = (before == ' ' ? 0 : 10 * pid) + text[i] - '0';
    }
    if (fd >= 0)
        q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    return pid;
}

/* The child's number, found without waiting for it to run. */
static bool find_child(void)
{
    int pid = youngest_child();
    struct q_cookie cookie = {0};
    struct iovec to = {&cookie, sizeof(cookie)}, from = {&q_share.cookie, sizeof(cookie)};

    /* It may be an older one: where fork failed, or the child is gone already. */
    if (pid <= 0 ||
        q_arch_syscall6(SYS_process_vm_readv, pid, (long)&to, 1, (long)&from, 1, 0) !=
            (long)sizeof(cookie) ||
        (cookie.own != now.entry->cookie && cookie.next != now.entry->cookie))
        return false;
    q_sharer_born(now.entry, pid);
    return true;
}

/* Until the child has entered itself, is gone, or turns out never to have been. */
static void wait_for_child(void)
{
    struct pollfd closed = {.fd = now.ends[0]};
    struct timespec little = {.tv_nsec = 50000};
    uint64_t start = q_clock_coarse();

    close_end(&now.ends[1]);
    if (closed.fd >= 0) {
        while (q_arch_syscall6(SYS_ppoll, (long)&closed, 1, 0, 0, 0, 0) == -EINTR)
            ;
        close_end(&now.ends[0]);
    } else {
        while (q_sharer_state(now.entry) == Q_SHARER_UNBORN && q_clock_coarse() - start < BIRTH_NS)
            q_arch_syscall6(SYS_nanosleep, (long)&little, 0, 0, 0, 0, 0);
    }
    q_sharer_unborn(now.entry);
}

/* pid: of the child, where that is known; -1: there is none; 0: find out. */
static void finish(int pid)
{
    uint64_t mask = q_signals_block();

    if (now.entry != NULL) {
        if (pid > 0)
            q_sharer_born(now.entry, pid);
        else if (pid < 0)
            q_sharer_unborn(now.entry);
        else if (!find_child())
            wait_for_child();
    }
    close_end(&now.ends[0]);
    close_end(&now.ends[1]);
    if (now.cut)
        end();
    else if (!atomic_load_explicit(&q_share.frozen, memory_order_relaxed))
        inherit(false);
    now.cut = now.under_way = false;
    now.entry = NULL;
    q_signals_restore(mask);
}

void q_share_fork_parent(void)
{
    if (!q_lock_is_mine(&fork_lock) || !now.under_way || now.inner > 0)
        return;
    q_share.cookie.next = 0;
    if (!quick)
        finish(0);
}

/* --- after, in the child --------------------------------------------------------------------- */

static void enter_child(struct q_sharer *s)
{
    uint64_t from = q_sharer_word(s->cookie, Q_SHARER_UNBORN);

    q_sharer_own(s);
    /* In this order: one of the two says so at any time. */
    __atomic_store_n(&q_share.cookie.own, s->cookie, __ATOMIC_SEQ_CST);
    __atomic_store_n(&q_share.cookie.next, 0, __ATOMIC_SEQ_CST);
    /* In another pid namespace its number means nothing to cowd. */
    if ((int)q_arch_syscall6(SYS_getppid, 0, 0, 0, 0, 0, 0) == s->creator)
        q_sharer_born(s, q_getpid());
    else
        atomic_compare_exchange_strong_explicit(&s->state, &from,
                                                q_sharer_word(s->cookie, Q_SHARER_STRANGER),
                                                memory_order_release, memory_order_relaxed);
}

void q_share_fork_child(void)
{
    if (q_share_mode() == Q_SHARE_NONE)
        return;
    bool ours = q_lock_is_mine(&fork_lock) && now.under_way;

    if (now.inner > 0 && !atomic_load_explicit(&q_share.frozen, memory_order_relaxed))
        q_die("fork() in a signal handler that interrupted fork(): the child has no heap");
    if (q_share_mode() == Q_SHARE_FIRST) {
        for (unsigned i = 0; i < q_share.nr_cuts; i++)
            q_share.span[i].end = q_share.cut[i].end;
        q_share.nr_spans = q_share.nr_cuts;
        atomic_store_explicit(&q_share.mode, Q_SHARE_PRIVATE, memory_order_release);
    }
    if (!atomic_load_explicit(&q_share.frozen, memory_order_relaxed))
        inherit(false);
    if (ours && now.entry != NULL)
        enter_child(now.entry);
    if (ours) {
        close_end(&now.ends[0]);
        close_end(&now.ends[1]); /* tells the parent */
    }
    now.under_way = now.cut = quick = false;
    now.inner = 0;
    now.entry = NULL;
    q_share.nr_cuts = 0;
    atomic_store_explicit(&q_linear_pinned, false, memory_order_relaxed);
    q_lock_reset(&fork_lock);
    q_share_reset_lock();
}

Q_PUBLIC pid_t quire_fork(void)
{
    if (q_share_mode() == Q_SHARE_FIRST && stack_in_heap()) {
        errno = EDEADLK;
        return -1;
    }
    quick = q_share_mode() != Q_SHARE_NONE;
    pid_t pid = fork();
    if (!quick || pid == 0)
        return pid;
    quick = false;
    if (q_lock_is_mine(&fork_lock)) {
        finish(pid > 0 ? pid : -1);
        q_unlock(&fork_lock);
    }
    return pid;
}
