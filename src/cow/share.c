/*
 * share.c - fork:shared: how it begins, and what the zones ask of it.
 *
 * It begins in the constructor, while there is one thread: cowd copies
 * what the heap holds by then (tens of pages) to the file and maps that in
 * its place. What comes online later is mapped from the file at once.
 */
#include "cow/share.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/uio.h>

#include "base/helper.h"
#include "base/msg.h"
#include "base/opt.h"
#include "cow/cow.h"
#include "numa/topology.h"
#include "quire/fork.h"
#include "zone/linear.h"
#include "zone/memmap.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#define BATCH 512u
#define SWEEP_MS 50u
#define MAX_HOLES                                                                                  \
    4096u /* mappings that giving memory back may cost a child; each cuts one in two */

struct q_share q_share;

static struct q_lock call_lock;

/*
 * Without it the bell makes nobody come, children see what is written, and nothing can bring that
 * back: the heap is not what it promises to be.
 */
static void look_for_cowd(void)
{
    if (q_helper_is_gone(atomic_load_explicit(&q_cowd.tid, memory_order_relaxed)))
        q_die("fork:shared: the thread that keeps the shared heap right was killed (by a seccomp "
              "filter that the program installed?)");
}

long q_share_call(enum q_call op, uintptr_t at, size_t len)
{
    struct q_request *r = &q_cowd.request;
    uint64_t mask = q_signals_block();

    q_lock(&call_lock);
    q_madvise(q_cowd.doorbell, q_page_size(), MADV_DONTNEED);
    r->at = at;
    r->len = len;
    /* Release, and acquire below: the fields, and the answer, go with op. */
    atomic_store_explicit(&r->op, op, memory_order_release);
    while (atomic_load_explicit(&r->op, memory_order_acquire) != Q_CALL_NONE) {
        (void)*(volatile char *)q_cowd.doorbell;
        if (atomic_load_explicit(&r->op, memory_order_acquire) != Q_CALL_NONE)
            look_for_cowd();
    }
    long answer = r->answer;
    q_unlock(&call_lock);
    q_signals_restore(mask);
    return answer;
}

void q_share_reset_lock(void)
{
    q_lock_reset(&call_lock);
}

bool q_share_has(uintptr_t addr)
{
    for (unsigned i = 0; i < q_share.nr_spans; i++)
        if (addr >= q_share.span[i].start && addr < q_share.span[i].end)
            return true;
    return false;
}

/* --- what the zones ask (linear.h) ------------------------------------------------------------- */

static bool online(void *at, size_t len)
{
    if (q_share_mode() == Q_SHARE_FIRST)
        return q_share_call(Q_CALL_ONLINE, (uintptr_t)at, len) == 0;
    /* A child may have inherited nothing there. */
    long ret = q_mmap_file((void *)at, len, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return !q_sys_failed(ret);
}

/* Discarding a page of a private mapping would show the file again. */
static long cover(void *at, size_t len)
{
    static _Atomic unsigned holes;

    if (atomic_fetch_add_explicit(&holes, 1, memory_order_relaxed) >= MAX_HOLES)
        return -ENOMEM;
    long ret = q_mmap_file((void *)at, len, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return q_sys_failed(ret) ? ret : 0;
}

static long discard(void *at, size_t len)
{
    static _Atomic uint32_t looked_ms;

    if (!q_share_has((uintptr_t)at))
        return q_madvise(at, len, MADV_DONTNEED);
    if (q_share_mode() == Q_SHARE_PRIVATE)
        return cover(at, len);
    if (q_linear_is_pinned()) {
        uint32_t now = (uint32_t)(q_clock_coarse() / 1000000u);
        if (now - atomic_load_explicit(&looked_ms, memory_order_relaxed) < SWEEP_MS)
            return -EBUSY;
        atomic_store_explicit(&looked_ms, now, memory_order_relaxed);
        if (q_share_call(Q_CALL_SWEEP, 0, 0) != 0)
            return -EBUSY;
    }
    /* No cut can come in between: it wants the lock of the zone that is held here. */
    return q_madvise(at, len, MADV_REMOVE);
}

static bool takes_pages(void)
{
    return q_share_mode() != Q_SHARE_PRIVATE;
}

static const struct q_linear_ops ops = {
    .online = online, .discard = discard, .takes_pages = takes_pages};

/* --- cowd moves in ----------------------------------------------------------------------- */

static long entry_of(const void *page, uint64_t *entry, unsigned nr)
{
    return q_pread(q_cowd.pagemap, entry, nr * sizeof(*entry),
                   ((uintptr_t)page >> q_page_shift) * sizeof(*entry));
}

/* Copy what is in memory of [at, at + len) to the file. */
static bool copy_in(char *at, size_t len)
{
    uint64_t entry[BATCH];

    for (size_t done = 0; done < len; done += (size_t)BATCH << q_page_shift) {
        unsigned nr = (unsigned)q_min((len - done) >> q_page_shift, BATCH);

        if (entry_of(at + done, entry, nr) != (long)(nr * sizeof(entry[0])))
            return false;
        for (unsigned i = 0; i < nr; i++) {
            char *page = at + done + ((size_t)i << q_page_shift);
            if ((entry[i] & (Q_PM_PRESENT | Q_PM_SWAP)) != 0 &&
                q_pwrite(q_cowd.file, page, q_page_size(), (uintptr_t)page - q_mem.base) !=
                    (long)q_page_size())
                return false;
        }
    }
    return true;
}

static bool move_in(void)
{
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            const struct q_zone *zone = &q_nodes[nid]->zones[type];
            char *at = q_pfn_to_virt(zone->start_pfn);
            size_t len = (zone->frontier_end - zone->start_pfn) << q_page_shift;

            /* What has been moved in stays: the file does for one process, too. */
            if (len > 0 && (uintptr_t)at - q_mem.base < q_mem.size &&
                (!copy_in(at, len) || q_cowd_online((uintptr_t)at, len) != 0))
                return false;
        }
    }
    return true;
}

/* Whether the kernel does what is needed, tried on the last page of the window. */
static bool try_out(void)
{
    off_t at = (off_t)(q_mem.size - q_page_size());
    uint64_t entry = 0;
    struct iovec nowhere = {(void *)8, 1}, there = {0};
    long page =
        q_mmap_file(NULL, q_page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, q_cowd.file, at);

    if (q_sys_failed(page))
        return false;
    there = (struct iovec){(void *)page, 1};
    bool ok = q_pwrite(q_cowd.file, "q", 1, at) == 1 &&
              q_uffd_register(&q_cowd.uffd, (uintptr_t)page, q_page_size(),
                              UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP |
                                  UFFDIO_REGISTER_MODE_MINOR) == 0 &&
              q_uffd_continue(&q_cowd.uffd, (uintptr_t)page, q_page_size(), true) ==
                  (long)q_page_size() &&
              entry_of((void *)page, &entry, 1) == sizeof(entry) &&
              (entry & (Q_PM_PRESENT | Q_PM_FILE)) == (Q_PM_PRESENT | Q_PM_FILE) &&
              q_uffd_protect(&q_cowd.uffd, (uintptr_t)page, q_page_size(), false) == 0 &&
              q_arch_syscall6(SYS_process_vm_writev, q_getpid(), (long)&nowhere, 1, (long)&there, 1,
                              0) == -EFAULT &&
              q_madvise((void *)page, q_page_size(), MADV_REMOVE) == 0;
    q_munmap((void *)page, q_page_size());
    return ok;
}

static long open_pagemap(void)
{
    return q_arch_syscall6(SYS_openat, AT_FDCWD, (long)"/proc/self/pagemap", O_RDONLY | O_CLOEXEC,
                           0, 0, 0);
}

/* NULL, or why not. */
static const char *open_all(void)
{
    struct q_cowd *k = &q_cowd;

    if (q_arch_syscall6(SYS_unshare, CLONE_FILES, 0, 0, 0, 0, 0) != 0 ||
        q_arch_syscall6(SYS_close_range, 0, ~0u, 0, 0, 0, 0) != 0)
        return "a thread cannot have descriptors of its own (a seccomp filter?)";
    /* 0 to 2, so that nothing else gets the numbers that messages are written to. */
    for (int i = 0; i < 3; i++)
        if (open_pagemap() != i)
            return "/proc/self/pagemap cannot be read";
    k->pagemap = 0;
    if (!q_uffd_open_for(&k->uffd,
                         UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM |
                             Q_UFFD_MINOR_SHMEM | Q_UFFD_WP_SHMEM | UFFD_FEATURE_EVENT_REMAP,
                         0))
        return k->uffd.refuse;
    k->file =
        (int)q_arch_syscall6(SYS_memfd_create, (long)"quire-heap", 1 /* MFD_CLOEXEC */, 0, 0, 0, 0);
    if (k->file < 0 || q_ftruncate(k->file, q_mem.size) != 0)
        return "there is no memfd_create(2)";
    if (!try_out())
        return "the kernel refused part of what this needs (Linux 6.4, CONFIG_PROC_PAGE_MONITOR, "
               "process_vm_writev)";
    k->doorbell = q_mmap(NULL, q_page_size(), PROT_READ | PROT_WRITE, 0);
    if (k->doorbell == NULL || q_uffd_register(&k->uffd, (uintptr_t)k->doorbell, q_page_size(),
                                               UFFDIO_REGISTER_MODE_MISSING) != 0)
        return "no memory for the start of it";
    return move_in() ? NULL : "no memory to move the heap into a file";
}

bool q_cowd_open(void)
{
    const char *why = open_all();

    q_share.why_not = why;
    /* Release: pairs with the acquire in q_share_start(). */
    atomic_store_explicit(&q_cowd.started, why == NULL ? 1 : 2, memory_order_release);
    q_futex(&q_cowd.started, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    return why == NULL;
}

/* --- the beginning ----------------------------------------------------------------------------- */

/* Then a page that cannot be had is SIGBUS, where malloc could have said no. */
static bool strict_overcommit(void)
{
    char text[16];

    return q_read_file("/proc/sys/vm/overcommit_memory", text, sizeof(text)) > 0 && text[0] == '2';
}

static bool cowd_was_killed(void)
{
    int tid = atomic_load_explicit(&q_cowd.tid, memory_order_relaxed);

    /* It may have ended by itself, having said why not. */
    return tid > 0 && q_helper_is_gone(tid) &&
           atomic_load_explicit(&q_cowd.started, memory_order_relaxed) == 0;
}

static const char *start(void)
{
    static char *stack;
    uint32_t started;

    if (q_mem.size == 0)
        return "the heap is in the sparse memory model";
    if (strict_overcommit())
        return "vm.overcommit_memory is 2";
    if (q_count_threads() != 1)
        return "the program had threads before the library started";
    q_share.sharers =
        (struct q_sharers *)q_mmap_file(NULL, q_align_up(sizeof(struct q_sharers), q_page_size()),
                                        PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (q_sys_failed((long)q_share.sharers))
        return "no memory for the table of children";
    /* Numbers that another program's do not run into by chance. */
    q_share.sharers->next_cookie = (uint32_t)(q_clock_fine() ^ (uint64_t)q_getpid() << 20) | 1;
    if (q_cow_thread(&stack, q_cowd_thread, NULL) != 0)
        return "no thread can be made";
    while ((started = atomic_load_explicit(&q_cowd.started, memory_order_acquire)) == 0)
        if (q_cow_wait(&q_cowd.started, 0) == -ETIMEDOUT && cowd_was_killed())
            return "the thread that serves it is killed (a seccomp filter)";
    return started == 1 ? NULL : q_share.why_not;
}

void q_share_start(void)
{
    static char *stack;

    if (q_opt.fork != Q_FORK_SHARED)
        return;
    q_share.why_not = start();
    if (q_share.why_not == NULL) {
        atomic_store_explicit(&q_share.mode, Q_SHARE_FIRST, memory_order_release);
        q_linear = &ops;
        q_cow_thread(&stack, q_cow_keep, NULL); /* a comfort: it goes without */
    }
    if (q_opt.verbose)
        q_msg("fork:shared: %s", q_share.why_not != NULL ? q_share.why_not : "in force");
}

Q_PUBLIC int quire_fork_stat(struct quire_fork_stat *st)
{
    int mode = q_share_mode();

    *st = (struct quire_fork_stat){
        .method = mode == Q_SHARE_FIRST ? QUIRE_FORK_SHARED : QUIRE_FORK_COPY,
        .why_not = mode == Q_SHARE_FIRST ? NULL : q_share.why_not,
        /* Relaxed: numbers for people. */
        .forks = atomic_load_explicit(&q_share.forks, memory_order_relaxed),
        .faults = atomic_load_explicit(&q_share.faults, memory_order_relaxed),
        .broken_bytes = atomic_load_explicit(&q_share.broken, memory_order_relaxed) << q_page_shift,
        .longest_stall_ns = atomic_load_explicit(&q_share.longest_ns, memory_order_relaxed),
    };
    if (mode == Q_SHARE_NONE && q_opt.fork != Q_FORK_SHARED)
        st->why_not = "the option fork:shared is not set";
    else if (mode == Q_SHARE_PRIVATE && st->why_not == NULL)
        st->why_not = "this process is a child that shares the heap of another";
    if (mode == Q_SHARE_FIRST)
        st->sharing = q_share_call(Q_CALL_SWEEP, 0, 0) == 1;
    return 0;
}
