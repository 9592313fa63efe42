/*
 * sharer.c - who shares the heap, and making a page private there.
 *
 * cowd makes a page private in another process by process_vm_writev(2)
 * from an address where nothing is: the kernel first gets the other's page
 * for writing, which breaks copy-on-write, then fails to read from here, and
 * writes nothing. Whether it was done is read from /proc/PID/pagemap, whose
 * descriptor stays with that memory whatever becomes of the process and its
 * number: it reads as empty once the process has ended or become another
 * program.
 *
 * An entry goes FREE -> UNBORN (parent, before fork) -> LIVE (child or parent,
 * whoever is first) -> FREE (cowd, or the parent where there was no child).
 */
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/uio.h>
#include <time.h>

#include "base/msg.h"
#include "cow/share.h"

#define BATCH 512u
#define TRIES 3
#define NAPS 2000             /* for a process of many threads to be gone, once its main one is */
#define UNBORN_NS 2000000000u /* for a child of a child to enter itself; then we go another way */
#define PF_FORKNOEXEC 0x40u   /* "forked but didn't exec", in /proc/PID/stat */

/* Both cowd's. */
static int pagemap[Q_MAX_SHARERS]; /* 0: not open */
static int thread[Q_MAX_SHARERS]; /* by whose number it is reached: its main thread may end first */

static void raise_high(uint32_t to)
{
    uint32_t high = atomic_load_explicit(&q_share.sharers->high, memory_order_relaxed);

    /* Release: the fork comes after it, and a page that has to be broken after that. */
    while (high < to &&
           !atomic_compare_exchange_weak_explicit(&q_share.sharers->high, &high, to,
                                                  memory_order_release, memory_order_relaxed))
        ;
}

static unsigned nr_entries(void)
{
    return atomic_load_explicit(&q_share.sharers->high, memory_order_acquire);
}

struct q_sharer *q_sharer_new(void)
{
    for (unsigned i = q_share.first_entry; i < Q_MAX_SHARERS; i++) {
        struct q_sharer *s = &q_share.sharers->at[i];
        uint32_t none = Q_SHARER_FREE;

        /* Acquire: whoever freed it is done with it. The rest is seen by who sees it LIVE. */
        if (!atomic_compare_exchange_strong_explicit(&s->state, &none, Q_SHARER_UNBORN,
                                                     memory_order_acq_rel, memory_order_relaxed))
            continue;
        s->creator = q_getpid();
        s->cookie =
            atomic_fetch_add_explicit(&q_share.sharers->next_cookie, 1, memory_order_relaxed);
        for (unsigned k = 0; k < Q_MAX_SPANS; k++)
            s->end[k] = k < q_share.nr_spans ? q_share.span[k].end : 0;
        raise_high(i + 1);
        return s;
    }
    return NULL;
}

void q_sharer_own(const struct q_sharer *s)
{
    q_share.first_entry = (unsigned)(s - q_share.sharers->at) + 1;
}

void q_sharer_born(struct q_sharer *s, int pid)
{
    uint32_t from = atomic_load_explicit(&s->state, memory_order_acquire);

    /* The parent's word counts where the child could not tell its own number. */
    if (from != Q_SHARER_UNBORN && from != Q_SHARER_STRANGER)
        return;
    atomic_store_explicit(&s->pid, pid, memory_order_relaxed);
    /* Release: who sees it alive sees the number. Parent and child write the same one. */
    atomic_compare_exchange_strong_explicit(&s->state, &from, Q_SHARER_LIVE, memory_order_release,
                                            memory_order_relaxed);
}

void q_sharer_unborn(struct q_sharer *s)
{
    uint32_t from = Q_SHARER_UNBORN;

    atomic_compare_exchange_strong_explicit(&s->state, &from, Q_SHARER_FREE, memory_order_release,
                                            memory_order_relaxed);
}

static void forget(unsigned i)
{
    if (pagemap[i] > 0)
        q_arch_syscall6(SYS_close, pagemap[i], 0, 0, 0, 0, 0);
    pagemap[i] = 0;
    atomic_store_explicit(&q_share.sharers->at[i].state, Q_SHARER_FREE, memory_order_release);
}

/* Whether a process that may not be looked at has become another program. */
static bool has_execed(int pid)
{
    char path[32], text[512];
    struct q_buf b = {.at = path, .size = sizeof(path)};
    unsigned long flags = 0;

    q_buf_printf(&b, "/proc/%d/stat", pid);
    if (q_read_file(path, text, sizeof(text)) <= 0)
        return false;
    char *at = __builtin_strrchr(text, ')'); /* the name may hold anything */
    /* Fields after it: state ppid pgrp session tty tpgid flags. */
    for (int field = 0; at != NULL && field < 7; field++)
        at = __builtin_strchr(at + 1, ' ');
    if (at == NULL)
        return false;
    for (at++; *at >= '0' && *at <= '9'; at++)
        flags = 10 * flags + (unsigned long)(*at - '0');
    return (flags & PF_FORKNOEXEC) == 0;
}

static void nap(void)
{
    struct timespec little = {.tv_nsec = 50000};

    q_arch_syscall6(SYS_nanosleep, (long)&little, 0, 0, 0, 0, 0);
}

/* A thread of a process that is not its main one; 0: none. */
static int another_thread(int pid)
{
    char path[32], entries[1024] __attribute__((aligned(8)));
    struct q_buf b = {.at = path, .size = sizeof(path)};
    int found = 0;
    long n;

    q_buf_printf(&b, "/proc/%d/task", pid);
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_DIRECTORY,
                              0, 0, 0);
    while (fd >= 0 && found == 0 &&
           (n = q_arch_syscall6(SYS_getdents64, fd, (long)entries, sizeof(entries), 0, 0, 0)) > 0) {
        for (long at = 0; at < n;) {
            const struct dirent64 *e = (const struct dirent64 *)(entries + at);
            int tid = 0;

            for (const char *c = e->d_name; *c >= '0' && *c <= '9'; c++)
                tid = 10 * tid + *c - '0';
            if (tid != pid && tid != 0)
                found = tid;
            at += e->d_reclen;
        }
    }
    if (fd >= 0)
        q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    return found;
}

/*
 * Open its pagemap, and see that it is the memory that was forked: the number
 * may be another process's by now. 0; ESRCH: the thread is gone; ENOENT: it is
 * not that memory; or another errno.
 */
static int meet_by(unsigned i, int pid)
{
    const struct q_sharer *s = &q_share.sharers->at[i];
    struct q_cookie cookie = {0};
    struct iovec to = {&cookie, sizeof(cookie)}, from = {&q_share.cookie, sizeof(cookie)};
    char path[32];
    struct q_buf b = {.at = path, .size = sizeof(path)};

    q_buf_printf(&b, "/proc/%d/pagemap", pid);
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    long n = q_arch_syscall6(SYS_process_vm_readv, pid, (long)&to, 1, (long)&from, 1, 0);
    bool read = n == (long)sizeof(cookie);
    bool same = read && (cookie.own == s->cookie || cookie.next == s->cookie);
    if (same && fd > 0) {
        pagemap[i] = (int)fd;
        thread[i] = pid;
        return 0;
    }
    if (fd > 0)
        q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    if (n == -ESRCH)
        return ESRCH;
    if (n == -EFAULT || (read && !same) || has_execed(pid))
        return ENOENT;
    return n < 0 ? (int)-n : (fd < 0 ? (int)-fd : EPERM);
}

static int meet(unsigned i)
{
    int pid = atomic_load_explicit(&q_share.sharers->at[i].pid, memory_order_relaxed);
    int error = meet_by(i, pid), other;

    for (int naps = 0; error == ESRCH && naps < NAPS && (other = another_thread(pid)) != 0;
         naps++) {
        error = meet_by(i, other);
        if (error == ESRCH) /* and that one has just ended */
            nap();
    }
    return error == ENOENT ? ESRCH : error;
}

/* Entries of nr pages at `at`. 0; ESRCH: that memory is no more. */
static int look(unsigned i, uintptr_t at, unsigned nr, uint64_t *entry)
{
    long want = (long)(nr * sizeof(*entry));
    long n = q_arch_syscall6(SYS_pread64, pagemap[i], (long)entry, want,
                             (long)((at >> q_page_shift) * sizeof(*entry)), 0, 0);

    if (n == 0)
        return ESRCH;
    return n == want ? 0 : (n < 0 ? (int)-n : EIO);
}

/* Break sharing of one run. The result says nothing; look() does. */
static int poke(unsigned i, uintptr_t at, size_t len)
{
    struct iovec nowhere = {(void *)8, 1}, there = {(void *)at, len};
    long ret =
        q_arch_syscall6(SYS_process_vm_writev, thread[i], (long)&nowhere, 1, (long)&there, 1, 0);

    return ret == -EFAULT ? 0 : (ret < 0 ? (int)-ret : EIO);
}

/* Its memory is there, or was until just now, but not by the thread that it was reached by. */
static void meet_another(unsigned i)
{
    thread[i] =
        another_thread(atomic_load_explicit(&q_share.sharers->at[i].pid, memory_order_relaxed));
    if (thread[i] == 0)
        nap();
}

static int break_pages(unsigned i, uintptr_t at, unsigned nr)
{
    uint64_t entry[BATCH];
    int error = 0, naps = 0;

    for (int tries = 0; tries < TRIES; tries += error != ESRCH || naps++ >= NAPS) {
        bool all = true;

        int gone = look(i, at, nr, entry);
        if (gone != 0)
            return gone;
        for (unsigned from = 0, to; from < nr; from = to) {
            to = from + 1;
            if (q_pm_private(entry[from]))
                continue;
            while (to < nr && !q_pm_private(entry[to]))
                to++;
            all = false;
            error = poke(i, at + ((uintptr_t)from << q_page_shift),
                         (size_t)(to - from) << q_page_shift);
        }
        if (all)
            return 0;
        if (error == ESRCH)
            meet_another(i);
    }
    /* Gone at the last moment? Else it is there and cannot be made private. */
    if (look(i, at, nr, entry) == ESRCH)
        return ESRCH;
    return error != 0 && error != ESRCH ? error : ENOMEM;
}

/* The part of [at, at + len) that this one has from the file. */
static int break_in(unsigned i, uintptr_t at, size_t len)
{
    const struct q_sharer *s = &q_share.sharers->at[i];
    int error = pagemap[i] > 0 ? 0 : meet(i);

    for (unsigned k = 0; k < Q_MAX_SPANS && error == 0; k++) {
        if (at < q_share.span[k].start || at >= s->end[k])
            continue;
        uintptr_t end = q_min(at + len, s->end[k]);
        for (uintptr_t p = at; p < end && error == 0; p += (uintptr_t)BATCH << q_page_shift)
            error = break_pages(i, p, (unsigned)q_min((end - p) >> q_page_shift, BATCH));
    }
    if (error == ESRCH) {
        forget(i);
        return 0;
    }
    return error;
}

/* A child of a child is on its way; its state after that, or after long enough. */
static uint32_t wait_for_birth(const struct q_sharer *s)
{
    uint64_t start = q_clock_coarse();
    uint32_t state;

    while ((state = atomic_load_explicit(&s->state, memory_order_acquire)) == Q_SHARER_UNBORN &&
           q_clock_coarse() - start < UNBORN_NS)
        nap();
    return state;
}

int q_sharers_break(uintptr_t at, size_t len)
{
    int error = 0;

    for (unsigned i = 0; i < nr_entries() && error == 0; i++) {
        const struct q_sharer *s = &q_share.sharers->at[i];
        /* Acquire: pairs with the release in q_sharer_born(). */
        uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);

        if (state == Q_SHARER_UNBORN)
            state = wait_for_birth(s);
        if (state == Q_SHARER_LIVE)
            error = break_in(i, at, len);
        else if (state != Q_SHARER_FREE)
            error = EPERM;
    }
    if (error == 0)
        atomic_fetch_add_explicit(&q_share.broken, len >> q_page_shift, memory_order_relaxed);
    return error;
}

bool q_sharers_alive(bool hasty)
{
    bool any = false;

    for (unsigned i = 0; i < nr_entries(); i++) {
        uint32_t state = atomic_load_explicit(&q_share.sharers->at[i].state, memory_order_acquire);
        uint64_t entry;

        if (state == Q_SHARER_LIVE && !hasty &&
            (pagemap[i] > 0 ? look(i, q_share.span[0].start, 1, &entry) : meet(i)) == ESRCH)
            forget(i);
        else if (state != Q_SHARER_FREE)
            any = true;
    }
    return any;
}
