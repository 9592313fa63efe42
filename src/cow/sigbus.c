/* sigbus.c - see sigbus.h: which memory that is, and the signal handler. */
#include "cow/sigbus.h"

#include <signal.h>

#include "cow/cow.h"
#include "cow/own.h"
#include "cow/share.h"
#include "slab/arena.h"
#include "zone/memmap.h"
#include "zone/vmalloc.h"

#define TRIES 3

struct q_bus q_bus = {.uffd = {.fd = -1}};

static struct sigaction before; /* whose SIGBUS it was */
static _Atomic bool helpless;   /* writers wait for the sweeper */

/* --- the signal ------------------------------------------------------------------------------ */

/* The program has closed the descriptors: the sweeper opens everything, by its own. */
static void ask_sweeper(void)
{
    /* Release: pairs with q_bus_hold(). */
    atomic_store_explicit(&helpless, true, memory_order_release);
    q_sweep_ring();
    q_cow_nap();
}

enum { OURS = 1, SAVED = 2 };

static uintptr_t save(uintptr_t page, uintptr_t unused)
{
    uint64_t before_it = atomic_load_explicit(&q_cow.saved, memory_order_relaxed);

    if (!q_bus_has(page, page + 1))
        return 0;
    q_cow_save(page, 0);
    /* Relaxed: numbers for people. */
    atomic_fetch_add_explicit(&q_cow.faults, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&q_cow.own_faults, 1, memory_order_relaxed);
    return atomic_load_explicit(&q_cow.saved, memory_order_relaxed) != before_it ? OURS | SAVED
                                                                                 : OURS;
}

/* Signals are blocked. False: it is not ours. */
static bool serve(uintptr_t page)
{
    q_store_populate();
    uintptr_t what = q_own_run(save, page, 0);
    if (what == OURS && !q_uffd_ours(q_cow_uffd())) /* it has come before */
        ask_sweeper();
    return what != 0;
}

/* What sigaction(2) promised the handler that was there before. */
static void pass_on(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    sigset_t mask = uc->uc_sigmask;
    bool sent = info->si_code <= 0; /* by kill(2) or its like */

    if (before.sa_handler == SIG_IGN && (before.sa_flags & SA_SIGINFO) == 0 && sent)
        return;
    if ((before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) &&
        (before.sa_flags & SA_SIGINFO) == 0) {
        struct sigaction none = {.sa_handler = SIG_DFL};

        /* The instruction runs again, and ends the process as it would have. */
        sigaction(SIGBUS, &none, NULL);
        if (sent)
            q_arch_syscall6(SYS_tgkill, q_getpid(), q_arch_syscall6(SYS_gettid, 0, 0, 0, 0, 0, 0),
                            SIGBUS, 0, 0, 0);
        return;
    }
    for (int i = 1; i < 65; i++)
        if (sigismember(&before.sa_mask, i) == 1)
            sigaddset(&mask, i);
    if ((before.sa_flags & SA_NODEFER) == 0)
        sigaddset(&mask, SIGBUS);
    struct sigaction was = before;
    if ((was.sa_flags & SA_RESETHAND) != 0)
        before = (struct sigaction){.sa_handler = SIG_DFL};
    q_arch_syscall6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, 8, 0, 0);
    if ((was.sa_flags & SA_SIGINFO) != 0)
        was.sa_sigaction(sig, info, context);
    else
        was.sa_handler(sig);
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
    if (info->si_code != BUS_ADRERR ||
        !serve(q_align_down((uintptr_t)info->si_addr, q_page_size())))
        pass_on(sig, info, context);
}

/* All signals are blocked meanwhile. On the stack that the one before asked for. */
static bool install(void)
{
    struct sigaction ours = {.sa_sigaction = on_sigbus}, now;

    if (sigaction(SIGBUS, NULL, &now) != 0)
        return false;
    if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_sigbus)
        return true; /* in a child */
    before = now;
    sigfillset(&ours.sa_mask);
    ours.sa_flags = SA_SIGINFO | SA_RESTART | (now.sa_flags & SA_ONSTACK);
    return sigaction(SIGBUS, &ours, NULL) == 0;
}

const struct q_uffd *q_cow_uffd(void)
{
    return q_cow.uffd.fd >= 0 ? &q_cow.uffd : &q_bus.uffd;
}

/* --- which memory ---------------------------------------------------------------------------- */

static bool main_is_open(void)
{
    return q_cow.uffd.fd >= 0 && q_cow.window_registered;
}

bool q_bus_register_rest(uintptr_t start, uintptr_t end)
{
    const struct q_ranges *r = &q_bus.ranges;

    for (size_t i = q_ranges_after(r, start); start < end; i++) {
        uintptr_t to = i < r->nr ? q_min(end, q_max(r->at[i].start, start)) : end;

        if (to > start && (q_cow.uffd.fd < 0 || q_uffd_register(&q_cow.uffd, start, to - start,
                                                                UFFDIO_REGISTER_MODE_WP) != 0))
            return false;
        if (i >= r->nr)
            return true;
        start = r->at[i].end;
    }
    return true;
}

/* Whether a page must be saved when it is written. */
static bool wants_saving(uintptr_t page)
{
    const struct quire_snapshot *s = q_cow_newest(page);
    const struct q_leaf *leaf = s != NULL ? q_store_leaf(page, false) : NULL;

    return s != NULL && (leaf == NULL || !q_store_alive(leaf) ||
                         q_store_newest(leaf, q_leaf_index(leaf, page)) < s->epoch);
}

/* What registering anew has un-protected. */
static void protect_again(uintptr_t at, uintptr_t end)
{
    bool ok = true;

    while (at < end && q_cow.live != NULL) {
        uintptr_t from = at;

        while (at < end && wants_saving(at))
            at += q_page_size();
        if (at > from)
            ok &= q_uffd_protect(q_cow_uffd(), from, at - from, true) == 0;
        at += q_page_size();
    }
    if (!ok)
        q_cow_lose(EIO);
}

/* Nobody will notice writes to it: what snapshots need is saved now. */
static void save_all(uintptr_t at, uintptr_t end)
{
    for (; at < end; at += q_page_size())
        if (wants_saving(at))
            q_cow_save(at, 1);
}

static bool hand(const struct q_uffd *from, const struct q_uffd *to, uintptr_t at, size_t bytes)
{
    for (int i = 0; i < TRIES && q_uffd_unregister(from, at, bytes) != 0; i++)
        ;
    bool ok = q_uffd_register(to, at, bytes, UFFDIO_REGISTER_MODE_WP) == 0;
    if (!ok)
        q_uffd_register(from, at, bytes, UFFDIO_REGISTER_MODE_WP);
    protect_again(at, at + bytes);
    return ok;
}

static bool any_goes_back(void)
{
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older)
        if (s->undo != NULL && s->heap == NULL)
            return true;
    return false;
}

static void take_over(uintptr_t at, size_t bytes)
{
    struct q_ranges *r = &q_bus.ranges;

    if (q_bus.uffd.fd < 0 || any_goes_back() || !q_ranges_reserve(r, r->nr + 1))
        return;
    if (main_is_open() ? hand(&q_cow.uffd, &q_bus.uffd, at, bytes)
                       : q_uffd_register(&q_bus.uffd, at, bytes, UFFDIO_REGISTER_MODE_WP) == 0) {
        q_ranges_add(r, at, at + bytes);
        q_ranges_sort(r);
    }
}

static void give_up(uintptr_t at, size_t bytes)
{
    if (main_is_open()) {
        /* It stays what the kernel has it for; there is room, since it was in the list. */
        if (!hand(&q_bus.uffd, &q_cow.uffd, at, bytes) &&
            q_ranges_add(&q_bus.ranges, at, at + bytes))
            q_ranges_sort(&q_bus.ranges);
    } else if (q_bus.uffd.fd >= 0) {
        save_all(at, at + bytes);
        q_uffd_unregister(&q_bus.uffd, at, bytes);
    }
}

/* Drop a stretch from the list; what is left of one that is cut in two needs room. */
static bool forget(uintptr_t start, uintptr_t end)
{
    struct q_ranges *r = &q_bus.ranges;
    size_t i = q_ranges_after(r, start);

    if (i == r->nr || r->at[i].start > start || !q_ranges_reserve(r, r->nr + 1))
        return false;
    struct q_range was = r->at[i];
    r->bytes -= was.end - was.start;
    r->at[i] = r->at[--r->nr];
    if (start > was.start)
        q_ranges_add(r, was.start, start);
    if (was.end > end)
        q_ranges_add(r, end, was.end);
    q_ranges_sort(r);
    return true;
}

uintptr_t q_bus_run(uintptr_t (*fn)(uintptr_t a, uintptr_t b), uintptr_t a, uintptr_t b)
{
    uint64_t mask = q_signals_block();

    q_lock(&q_vm_lock);
    a = q_own_run(fn, a, b);
    q_unlock(&q_vm_lock);
    q_signals_restore(mask);
    return a;
}

static uintptr_t has(uintptr_t start, uintptr_t end)
{
    return q_bus_has(start, end);
}

bool q_bus_has_locked(uintptr_t start, uintptr_t end)
{
    return q_bus_run(has, start, end) != 0;
}

static uintptr_t open_all(uintptr_t unused, uintptr_t either)
{
    for (size_t i = 0; i < q_bus.ranges.nr; i++) {
        const struct q_range *r = &q_bus.ranges.at[i];
        q_uffd_open_up(q_cow_uffd(), r->start, r->end - r->start);
    }
    return 0;
}

void q_bus_open(void)
{
    if (q_arena_hook != NULL)
        q_bus_run(open_all, 0, 0);
}

/* --- start ----------------------------------------------------------------------------------- */

/* The locks are held. */
static void open_bus(void)
{
    if (q_share_mode() != Q_SHARE_NONE)
        q_bus.uffd.refuse = "the heap is shared with children (option fork:shared)";
    else if (q_mem.sparse)
        q_bus.uffd.refuse = "the heap is in the sparse memory model";
    else if (q_uffd_open_for(&q_bus.uffd, Q_UFFD_WP_UNPOPULATED | UFFD_FEATURE_SIGBUS, 0) &&
             !install())
        q_uffd_close(&q_bus.uffd);
    q_bus.pid = q_getpid();
}

/* In a child: its parent's heaps go on as such, or as others do. The locks are held. */
static uintptr_t start_again(uintptr_t unused, uintptr_t either)
{
    struct q_ranges *r = &q_bus.ranges;

    if (q_bus.pid == q_getpid())
        return 0;
    q_uffd_close(&q_bus.uffd);
    open_bus();
    bool ok = q_bus.uffd.fd >= 0;
    for (size_t i = 0; ok && i < r->nr; i++)
        ok = q_uffd_register(&q_bus.uffd, r->at[i].start, r->at[i].end - r->at[i].start,
                             UFFDIO_REGISTER_MODE_WP) == 0;
    if (!ok) {
        q_uffd_close(&q_bus.uffd);
        r->nr = r->bytes = 0;
    }
    return 0;
}

void q_bus_start_again(void)
{
    if (q_arena_hook != NULL)
        q_bus_run(start_again, 0, 0);
}

/* Not 0: it is moved aside, and comes back first. */
static uintptr_t change(uintptr_t at, uintptr_t bytes_and_ours)
{
    size_t bytes = bytes_and_ours & ~(uintptr_t)1;

    if (q_sweep_away(at, bytes))
        return 1;
    start_again(0, 0);
    if ((bytes_and_ours & 1) != 0)
        take_over(at, bytes);
    else if (forget(at, at + bytes)) /* or it was never taken over */
        give_up(at, bytes);
    return 0;
}

static void hook(void *p, size_t bytes, bool ours)
{
    q_cow_meet_child(); /* the main descriptor is the parent's, and changes its memory */
    do
        q_sweep_finish();
    while (q_bus_run(change, (uintptr_t)p, bytes | ours) != 0);
}

bool q_bus_start(void)
{
    q_cow_meet_child();
    q_bus_run(start_again, 0, 0);
    if (!q_uffd_ours(&q_bus.uffd))
        return false;
    q_arena_hook = hook;
    q_sweep_ring();
    return true;
}

/* --- when the program closes it -------------------------------------------------------------- */

static struct q_uffd held = {.fd = -1}; /* a number of the sweeper's table */

bool q_bus_gone(void)
{
    return q_cow.uffd.fd < 0 && !q_uffd_ours(&q_bus.uffd);
}

void q_bus_hold(void)
{
    if (held.fd < 0 && q_bus.uffd.fd >= 0)
        held.fd = (int)q_cow_borrow(q_bus.uffd.fd);
    /* Acquire: pairs with ask_sweeper(). */
    if (!atomic_exchange_explicit(&helpless, false, memory_order_acquire) || held.fd < 0)
        return;
    q_lock(&q_store.lock);
    q_cow_mark_lost(EIO);
    for (size_t i = 0; i < q_bus.ranges.nr; i++)
        q_uffd_open_up(&held, q_bus.ranges.at[i].start,
                       q_bus.ranges.at[i].end - q_bus.ranges.at[i].start);
    q_store_unlock();
}

void q_bus_fork_child(void)
{
    q_uffd_close(&q_bus.uffd);
    q_bus.pid = 0;
    held.fd = -1;
}
