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
 *
 * A parent may be killed before its fork, or after it and before the child is
 * entered. Once it is gone, so that no fork can follow, cowd looks for a process
 * with the child's cookie in its memory: there is one, and it is entered, or
 * there never will be.
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
        uint64_t none = Q_SHARER_FREE;

        /* Acquire: whoever freed it is done with it. */
        if (!atomic_compare_exchange_strong_explicit(&s->state, &none, Q_SHARER_TAKEN,
                                                     memory_order_acq_rel, memory_order_relaxed))
            continue;
        s->creator = q_getpid();
        s->parent = q_share.first_entry;
        s->parent_cookie = q_share.cookie.own;
        s->cookie =
            atomic_fetch_add_explicit(&q_share.sharers->next_cookie, 1, memory_order_relaxed);
        for (unsigned k = 0; k < Q_MAX_SPANS; k++)
            s->end[k] = k < q_share.nr_spans ? q_share.span[k].end : 0;
        /* Release: whoever sees it UNBORN sees the rest. */
        atomic_store_explicit(&s->state, q_sharer_word(s->cookie, Q_SHARER_UNBORN),
                              memory_order_release);
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
    uint64_t from = atomic_load_explicit(&s->state, memory_order_acquire);

    /* The parent's word counts where the child could not tell its own number. */
    if ((uint32_t)from != Q_SHARER_UNBORN && (uint32_t)from != Q_SHARER_STRANGER)
        return;
    atomic_store_explicit(&s->pid, pid, memory_order_relaxed);
    /* Release: who sees it alive sees the number. Parent and child write the same one. */
    atomic_compare_exchange_strong_explicit(&s->state, &from,
                                            q_sharer_word(s->cookie, Q_SHARER_LIVE),
                                            memory_order_release, memory_order_relaxed);
}

void q_sharer_unborn(struct q_sharer *s)
{
    uint64_t from = q_sharer_word(s->cookie, Q_SHARER_UNBORN);

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

/* A number among the names in a directory; 0: none fits; -1: it cannot be read. */
static int find_number(const char *path, bool (*fits)(int nr, const void *arg), const void *arg)
{
    char entries[1024] __attribute__((aligned(8)));
    int found = 0;
    long n = 0;

    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC | O_DIRECTORY,
                              0, 0, 0);
    while (fd >= 0 && found == 0 &&
           (n = q_arch_syscall6(SYS_getdents64, fd, (long)entries, sizeof(entries), 0, 0, 0)) > 0) {
        for (long at = 0; at < n;) {
            const struct dirent64 *e = (const struct dirent64 *)(entries + at);
            int nr = 0;

            for (const char *c = e->d_name; *c >= '0' && *c <= '9'; c++)
                nr = 10 * nr + *c - '0';
            if (nr != 0 && fits(nr, arg))
                found = nr;
            at += e->d_reclen;
        }
    }
    if (fd >= 0)
        q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    return found == 0 && (fd < 0 || n < 0) ? -1 : found;
}

static bool is_other(int nr, const void *pid)
{
    return nr != *(const int *)pid;
}

/* A thread of a process that is not its main one; 0: none. */
static int another_thread(int pid)
{
    char path[32];
    struct q_buf b = {.at = path, .size = sizeof(path)};

    q_buf_printf(&b, "/proc/%d/task", pid);
    int found = find_number(path, is_other, &pid);
    return found > 0 ? found : 0;
}

static long read_cookie(int pid, struct q_cookie *cookie)
{
    struct iovec to = {cookie, sizeof(*cookie)}, from = {&q_share.cookie, sizeof(*cookie)};

    return q_arch_syscall6(SYS_process_vm_readv, pid, (long)&to, 1, (long)&from, 1, 0);
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
    char path[32];
    struct q_buf b = {.at = path, .size = sizeof(path)};

    q_buf_printf(&b, "/proc/%d/pagemap", pid);
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    long n = read_cookie(pid, &cookie);
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
    long n = q_pread(pagemap[i], entry, want, (at >> q_page_shift) * sizeof(*entry));

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

/* Whether the memory of a LIVE one is no more. */
static bool is_gone(unsigned i)
{
    uint64_t entry;

    return (pagemap[i] > 0 ? look(i, q_share.span[0].start, 1, &entry) : meet(i)) == ESRCH;
}

/*
 * Whether who was to fork a child of a child cannot do it any more: its memory
 * is no more, which the kernel takes away after the process's last fork.
 */
static bool parent_is_gone(const struct q_sharer *s)
{
    if (s->parent == 0)
        return false; /* this process */
    unsigned i = s->parent - 1;
    const struct q_sharer *p = &q_share.sharers->at[i];
    enum q_sharer_state is = q_sharer_state(p);

    if (is == Q_SHARER_FREE || p->cookie != s->parent_cookie)
        return true; /* forgotten */
    return is == Q_SHARER_LIVE && is_gone(i);
}

/* Those that may not be looked at are not it: who shares can be, or its parent could not have been. */
static bool has_its_cookie(int pid, const void *arg)
{
    const struct q_sharer *s = arg;
    struct q_cookie cookie = {0};
    long n = read_cookie(pid, &cookie);
    int other;

    if (n == -ESRCH && (other = another_thread(pid)) != 0) /* its main one has ended */
        n = read_cookie(other, &cookie);
    return n == (long)sizeof(cookie) && (cookie.own == s->cookie || cookie.next == s->cookie);
}

/* Of a parent that is gone: the child is entered, or its entry is free. False: it may be born yet. */
static bool settle_orphan(struct q_sharer *s)
{
    uint64_t was = atomic_load_explicit(&s->state, memory_order_acquire);

    if (((uint32_t)was != Q_SHARER_UNBORN && (uint32_t)was != Q_SHARER_STRANGER) ||
        !parent_is_gone(s))
        return false;
    int pid = find_number("/proc", has_its_cookie, s);
    if (pid > 0)
        atomic_store_explicit(&s->pid, pid, memory_order_relaxed);
    /* Acquire: all that was read of it is of this child, or the cookie is another now. */
    atomic_thread_fence(memory_order_acquire);
    return pid >= 0 &&
           atomic_compare_exchange_strong_explicit(
               &s->state, &was, pid > 0 ? q_sharer_word((uint32_t)(was >> 32), Q_SHARER_LIVE) : 0,
               memory_order_acq_rel, memory_order_relaxed);
}

/* A child of a child is on its way; its state after that, or after long enough. */
static enum q_sharer_state wait_for_birth(struct q_sharer *s)
{
    uint64_t start = q_clock_coarse();

    for (;;) {
        settle_orphan(s);
        enum q_sharer_state is = q_sharer_state(s);
        if ((is != Q_SHARER_TAKEN && is != Q_SHARER_UNBORN) ||
            q_clock_coarse() - start >= UNBORN_NS)
            return is;
        nap();
    }
}

int q_sharers_break(uintptr_t at, size_t len)
{
    int error = 0;

    for (unsigned i = 0; i < nr_entries() && error == 0; i++) {
        enum q_sharer_state state = q_sharer_state(&q_share.sharers->at[i]);

        if (state != Q_SHARER_LIVE && state != Q_SHARER_FREE)
            state = wait_for_birth(&q_share.sharers->at[i]);
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
        if (!hasty)
            settle_orphan(&q_share.sharers->at[i]);
        enum q_sharer_state state = q_sharer_state(&q_share.sharers->at[i]);
        if (state == Q_SHARER_LIVE && !hasty && is_gone(i))
            forget(i);
        else if (state != Q_SHARER_FREE)
            any = true;
    }
    return any;
}
