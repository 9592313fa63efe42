/*
 * cowd.c - cowd, the thread that keeps a shared heap right: requests, and first touches.
 *
 *   state     who touches a page that is missing or protected
 *   -------   -----------------------------------------------------------
 *   OPEN      read: gets it, write-protected. Write: it is made private in
 *             every child, then they get it. Nobody shares any more: the
 *             part around it stops faulting here.
 *   STOPPED   waits until the state changes.
 *   ASIDE     during a fork: gets it in the private mapping that is in place
 *             then. Which pages, is noted: what was written to them goes to
 *             the file before OPEN.
 *
 * A message may be older than the state that it is served in; that is right
 * nevertheless, because what to do is decided by who shares now. A fault that
 * is not served comes again when everybody is woken.
 *
 * What cowd cannot do (a child that it may not touch, no memory) makes
 * it give up sharing: go_private(). It maps the file private in this process,
 * too; from then on nobody writes to the file.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>

#include "base/helper.h"
#include "cow/share.h"
#include "zone/linear.h"
#include "zone/memmap.h"

#define BATCH 16
#define AROUND_MAX 512u
#define NICE (-10)
#define MAX_TOUCHED 16384u
#define UNREGISTER_BYTES ((size_t)32 << 20)
#define UNMAP_PAUSE_NS 1000000 /* and others run in between */
#define MAX_CPUS 1024u
#define WORD (8 * sizeof(unsigned long))

enum state { OPEN, STOPPED, ASIDE };

struct q_cowd q_cowd;

static enum state state;
static uintptr_t touched[MAX_TOUCHED]; /* pages of the window, in state ASIDE */
static unsigned nr_touched;

/* --- mappings of the file -------------------------------------------------------------------- */

static long watch(uintptr_t start, size_t len)
{
    return q_uffd_register(&q_cowd.uffd, start, len,
                           UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP |
                               UFFDIO_REGISTER_MODE_MINOR);
}

static void wake_all(void)
{
    for (unsigned i = 0; i < q_share.nr_spans; i++)
        q_uffd_wake(&q_cowd.uffd, q_share.span[i].start,
                    q_share.span[i].end - q_share.span[i].start);
}

/* --- giving up ------------------------------------------------------------------------------- */

/* Whether a private mapping is in place already, because a fork is under way. */
static bool is_aside(unsigned span)
{
    return state != OPEN && span < q_share.nr_cuts && q_share.cut[span].next_private == 0 &&
           q_share.cut[span].next_shared != 0;
}

/*
 * From now on the file stays as it is, and this process writes to copies of
 * its own. Where a private mapping is in place already it stays, with what
 * was written to it.
 *
 * False: the kernel does not map it, and all is as before. Half of it cannot
 * be, as what is written to the other half would show in children.
 */
static bool go_private(const char *why)
{
    static bool said;
    bool begun = false;

    if (q_share_mode() != Q_SHARE_FIRST)
        return true;
    for (unsigned i = 0; i < q_share.nr_spans; i++)
        begun |= is_aside(i);
    for (unsigned i = 0; i < q_share.nr_spans; i++) {
        const struct q_span *span = &q_share.span[i];
        uintptr_t start = is_aside(i) ? q_share.cut[i].end : span->start;

        if (start == span->end || q_cowd_map_private(start, span->end - start)) {
            begun = true;
        } else {
            if (begun || !said)
                q_cowd_say("the heap cannot be mapped private (no memory, or a filter that refuses "
                           "mmap); first writes wait for children that cannot be reached");
            said = true;
            if (begun)
                abort();
            return false;
        }
        if (start > span->start)
            q_uffd_unregister(&q_cowd.uffd, span->start, start - span->start);
    }
    q_share.why_not = why;
    atomic_store_explicit(&q_share.frozen, true, memory_order_relaxed);
    /* Release: who sees the mode sees why. */
    atomic_store_explicit(&q_share.mode, Q_SHARE_PRIVATE, memory_order_release);
    atomic_store_explicit(&q_linear_pinned, false, memory_order_relaxed);
    wake_all();
    return true;
}

/* --- first touches --------------------------------------------------------------------------- */

static const struct q_span *span_of(uintptr_t addr)
{
    for (unsigned i = 0; i < q_share.nr_spans; i++)
        if (addr >= q_share.span[i].start && addr < q_share.span[i].end)
            return &q_share.span[i];
    return NULL;
}

/* Map pages from the file, as far as they are missing; a hole where the fault is becomes zeroes. */
static void fill(uintptr_t at, uintptr_t end, uintptr_t fault, bool protect)
{
    while (at < end) {
        long n = q_uffd_continue(&q_cowd.uffd, at, end - at, protect);

        if (n > 0) {
            at += (uintptr_t)n;
            continue;
        }
        if (n == -EFAULT && at == fault)
            n = q_uffd_fill(&q_cowd.uffd, at, NULL);
        /* Whatever it is, the fault comes again if it is not settled. */
        if (at == fault && n != 0)
            q_uffd_wake(&q_cowd.uffd, at, q_page_size());
        at += q_page_size();
    }
}

/* How many pages to serve from a write on: neighbours that are written one after the other share a fault. */
static uintptr_t write_end(uintptr_t page, const struct q_span *span)
{
    static uintptr_t next;
    static unsigned around = 1;

    if (page == next)
        around = (unsigned)q_min(2 * around, AROUND_MAX);
    else
        around = around > 1 ? around / 2 : 1;
    uintptr_t end = page + ((uintptr_t)around << q_page_shift);
    end = q_min(end, q_align_down(page, Q_PAGEBLOCK_SIZE) + Q_PAGEBLOCK_SIZE);
    next = q_min(end, span->watched);
    return next;
}

/* mapped: it is there already, protected. */
static void serve_write(uintptr_t page, const struct q_span *span, bool mapped)
{
    uintptr_t end = write_end(page, span);
    bool more = end - page > q_page_size(); /* of which some may be, and some not */

    if (q_sharers_break(page, end - page) != 0) {
        end = page + q_page_size();
        if (q_sharers_break(page, q_page_size()) != 0) {
            /* If not, it asks again: the child may be gone by then. */
            if (!go_private("a child could not be reached (permissions, memory, a fork of its own "
                            "that hangs)"))
                q_uffd_wake(&q_cowd.uffd, page, q_page_size());
            return;
        }
    }
    if (mapped || more)
        q_uffd_protect(&q_cowd.uffd, page, end - page, false);
    if (!mapped || more)
        fill(page, end, page, false);
}

static void serve_read(uintptr_t page, const struct q_span *span)
{
    uintptr_t end = q_align_down(page, Q_PAGEBLOCK_SIZE) + Q_PAGEBLOCK_SIZE;
    long n = q_uffd_continue(&q_cowd.uffd, page, q_min(end, span->watched) - page, true);

    if (n == -EFAULT) /* a hole: it can only be filled for writing */
        serve_write(page, span, false);
    else if (n <= 0)
        q_uffd_wake(&q_cowd.uffd, page, q_page_size());
}

/* Nobody shares: what is around it need not come here. */
static void let_be(uintptr_t page, const struct q_span *span)
{
    size_t size = q_max(UNREGISTER_BYTES, (size_t)1 << q_fls(span->end - span->start) >> 8);
    uintptr_t start = q_max(q_align_down(page, size), span->start);
    uintptr_t end = q_min(start + size, span->end);

    if (q_uffd_unregister(&q_cowd.uffd, start, end - start) != 0)
        q_uffd_unregister(&q_cowd.uffd, page, q_page_size());
    q_uffd_wake(&q_cowd.uffd, start, end - start);
}

static void serve_open(uintptr_t page, const struct q_span *span, uint64_t flags)
{
    bool write = (flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP)) != 0;
    uint64_t t = q_clock_fine();

    if (!q_sharers_alive(write)) {
        atomic_store_explicit(&q_linear_pinned, false, memory_order_relaxed);
        let_be(page, span);
        return;
    }
    if (write)
        serve_write(page, span, (flags & UFFD_PAGEFAULT_FLAG_WP) != 0);
    else
        serve_read(page, span);
    /* Relaxed: numbers for people, written by this thread alone. */
    atomic_fetch_add_explicit(&q_share.faults, 1, memory_order_relaxed);
    t = q_clock_fine() - t;
    if (t > atomic_load_explicit(&q_share.longest_ns, memory_order_relaxed))
        atomic_store_explicit(&q_share.longest_ns, t, memory_order_relaxed);
}

/* In the private mapping: the page of the file, or zeroes; the kernel copies it when it is written. */
static void serve_aside(uintptr_t page)
{
    if (nr_touched < MAX_TOUCHED)
        touched[nr_touched] = page;
    nr_touched++; /* beyond the room: noticed by Q_CALL_STOP */
    fill(page, page + q_page_size(), page, false);
}

/* --- requests -------------------------------------------------------------------------------- */

/* More of the window; or the first of it, where what is there already was copied to the file. */
long q_cowd_online(uintptr_t at, size_t len)
{
    struct q_span *span = NULL;

    for (unsigned i = 0; i < q_share.nr_spans; i++)
        if (q_share.span[i].end == at)
            span = &q_share.span[i];
    if (q_share_mode() == Q_SHARE_PRIVATE || (span == NULL && q_share.nr_spans == Q_MAX_SPANS))
        return -ENOSPC;
    if (q_cowd_map(at, len, MAP_SHARED | MAP_FIXED) == NULL)
        return -ENOMEM;
    if (span == NULL) {
        q_share.span[q_share.nr_spans++] = (struct q_span){at, at + len, at};
        return 0;
    }
    span->end = at + len;
    return 0;
}

/* Address space for page tables to lie aside, aligned so that they can be moved whole. */
static void reserve_aside(struct q_cut *c)
{
    size_t len = c->end - c->start, align = (size_t)1 << 30;

    c->aside_bytes = len + align;
    c->aside_map = q_mmap(NULL, c->aside_bytes, PROT_NONE, MAP_NORESERVE);
    if (c->aside_map == NULL)
        return;
    c->aside = q_align_up((uintptr_t)c->aside_map, align) + (c->start & (align - 1));
    if (c->aside + len > (uintptr_t)c->aside_map + c->aside_bytes)
        c->aside -= align;
    q_madvise(c->aside_map, c->aside_bytes, MADV_DONTFORK);
}

/*
 * First writes are served twice as fast by a thread on the writer's CPU,
 * because waking another takes longer than serving. Whoever forks mostly
 * writes next. Where that is not allowed, the kernel chooses.
 */
static void move_to(unsigned cpu)
{
    unsigned long mask[MAX_CPUS / WORD] = {0};

    if (cpu >= MAX_CPUS)
        return;
    mask[cpu / WORD] = 1ul << (cpu % WORD);
    q_arch_syscall6(SYS_sched_setaffinity, 0, sizeof(mask), (long)mask, 0, 0, 0);
}

static long cut(unsigned cpu)
{
    move_to(cpu);
    if (q_share_mode() != Q_SHARE_FIRST)
        return -EPERM;
    for (unsigned i = 0; i < q_share.nr_spans; i++) {
        struct q_cut *c = &q_share.cut[i];
        size_t len = q_share.span[i].end - q_share.span[i].start;

        *c = (struct q_cut){.start = q_share.span[i].start, .end = q_share.span[i].end};
        c->next_private = (uintptr_t)q_cowd_map(c->start, len, MAP_PRIVATE);
        c->next_shared = (uintptr_t)q_cowd_map(c->start, len, MAP_SHARED);
        reserve_aside(c);
        q_share.nr_cuts = i + 1;
        if (c->next_private == 0 || c->next_shared == 0 || watch(c->next_private, len) != 0 ||
            watch(c->next_shared, len) != 0 || watch(c->start, len) != 0)
            return -ENOMEM;
        q_share.span[i].watched = c->end;
    }
    state = STOPPED;
    nr_touched = 0;
    atomic_store_explicit(&q_linear_pinned, true, memory_order_relaxed);
    return 0;
}

/* What was written to private mappings, which lie at `written` now. */
static long settle(void)
{
    for (unsigned i = 0; i < nr_touched; i++) {
        uintptr_t page = touched[i];
        const struct q_cut *c = q_share.cut;
        uint64_t entry = 0;

        while (page < c->start || page >= c->end)
            c++;
        uintptr_t copy = page - c->start + c->written;
        if (q_pread(q_cowd.pagemap, &entry, sizeof(entry),
                    (copy >> q_page_shift) * sizeof(entry)) != sizeof(entry))
            return -EIO;
        if (!q_pm_private(entry))
            continue;
        int error = q_sharers_break(page, q_page_size());
        if (error != 0)
            return -error;
        if (q_pwrite(q_cowd.file, (void *)copy, q_page_size(), page - q_mem.base) !=
            (long)q_page_size())
            return -ENOMEM;
    }
    return 0;
}

/* Mappings that were prepared and are not in place, and what lies aside. */
static void clear_cuts(void)
{
    for (unsigned i = 0; i < q_share.nr_cuts; i++) {
        struct q_cut *c = &q_share.cut[i];

        q_cowd_throw_away((char *)c->next_private, c->next_private != 0 ? c->end - c->start : 0);
        q_cowd_throw_away((char *)c->next_shared, c->next_shared != 0 ? c->end - c->start : 0);
        q_cowd_throw_away((char *)c->written, c->written != 0 ? c->end - c->start : 0);
        q_cowd_throw_away(c->aside_map, c->aside_bytes);
    }
    q_share.nr_cuts = 0;
}

static long answer(enum q_call op, uintptr_t at, size_t len)
{
    switch (op) {
    case Q_CALL_ONLINE:
        return q_cowd_online(at, len);
    case Q_CALL_CUT:
        return cut((unsigned)at);
    case Q_CALL_ASIDE:
        state = ASIDE;
        wake_all();
        return 0;
    case Q_CALL_STOP:
        state = STOPPED;
        return nr_touched <= MAX_TOUCHED ? (long)nr_touched : -ENOSPC;
    case Q_CALL_SETTLE:
        return settle();
    case Q_CALL_OPEN:
        state = OPEN;
        clear_cuts();
        wake_all();
        return 0;
    case Q_CALL_PRIVATE:
        /* If not, the child finds no heap (MADV_DONTFORK). */
        go_private("a fork could not be prepared (memory, address space, a stack in the heap)");
        state = OPEN;
        clear_cuts();
        wake_all();
        return 0;
    case Q_CALL_SWEEP:
        if (q_sharers_alive(false))
            return 1;
        atomic_store_explicit(&q_linear_pinned, false, memory_order_relaxed);
        return 0;
    default:
        return -EINVAL;
    }
}

static void serve_request(void)
{
    struct q_request *r = &q_cowd.request;
    /* Acquire and release: the request's other fields go with op. */
    int op = atomic_load_explicit(&r->op, memory_order_acquire);

    if (op != Q_CALL_NONE) { /* a fault may come twice */
        r->answer = answer((enum q_call)op, r->at, r->len);
        atomic_store_explicit(&r->op, Q_CALL_NONE, memory_order_release);
    }
    if (q_uffd_fill(&q_cowd.uffd, (uintptr_t)q_cowd.doorbell, NULL) != 0)
        q_uffd_wake(&q_cowd.uffd, (uintptr_t)q_cowd.doorbell, q_page_size());
}

static void serve(const struct uffd_msg *m)
{
    uintptr_t page = q_align_down(m->arg.pagefault.address, q_page_size());

    if (m->event != UFFD_EVENT_PAGEFAULT)
        return; /* page tables moved; reading this lets the mover go on */
    if (page == (uintptr_t)q_cowd.doorbell) {
        serve_request();
        return;
    }
    const struct q_span *span = span_of(page);
    if (q_share_mode() != Q_SHARE_FIRST || span == NULL)
        q_uffd_wake(&q_cowd.uffd, page, q_page_size());
    else if (state == OPEN)
        serve_open(page, span, m->arg.pagefault.flags);
    else if (state == ASIDE)
        serve_aside(page);
}

/* Wait for something to read, and meanwhile get rid of what there is to get rid of. */
static void unmap_meanwhile(int fd)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    struct timespec pause = {.tv_nsec = UNMAP_PAUSE_NS};

    if (!q_cowd_any_litter())
        return;
    q_uffd_set_blocking(fd, false);
    while (q_cowd_any_litter() &&
           q_arch_syscall6(SYS_ppoll, (long)&ready, 1, (long)&pause, 0, 0, 0) == 0) {
        pause.tv_nsec = UNMAP_PAUSE_NS; /* the kernel writes what remains */
        q_cowd_unmap_a_little();
    }
    q_uffd_set_blocking(fd, !q_cowd_any_litter()); /* a message may be gone when it is read */
}

void *q_cowd_thread(void *arg)
{
    struct uffd_msg m[BATCH] = {0};

    /* Before what may kill it, for who waits for it. */
    atomic_store_explicit(&q_cowd.tid, (int)q_arch_syscall6(SYS_gettid, 0, 0, 0, 0, 0, 0),
                          memory_order_relaxed);
    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-cowd", 0, 0, 0, 0);
    /* Writers wait while it is preempted. Without the right to ask it stays as the others are. */
    q_arch_syscall6(SYS_setpriority, PRIO_PROCESS, 0, NICE, 0, 0, 0);
    q_helper_begin();
    if (!q_cowd_open()) {
        q_helper_end();
        return arg;
    }
    for (;;) {
        unmap_meanwhile(q_cowd.uffd.fd);
        long n = q_arch_syscall6(SYS_read, q_cowd.uffd.fd, (long)m, sizeof(m), 0, 0, 0);
        for (long i = 0; i < n / (long)sizeof(m[0]); i++)
            serve(&m[i]);
    }
}
