/*
 * fault.c - the handler: first writes to protected pages, first touches of views.
 *
 * Serving a fault costs several times what copying a page costs, so where
 * neighbours are written too, more than one page is saved at once:
 *
 *   around = 1, 1, 2, 4 ... 64, whole leaf    doubled when the fault hits the
 *                                             page behind what was served last
 *                                             in this leaf, else halved
 *
 * Handlers read, and put what they read into inbox.h's boxes; the one that
 * gets q_store.lock serves all that is there. Serving ends with the page
 * un-protected, all of it under q_store.lock: a resolver that came late would
 * open the next snapshot's page unsaved.
 */
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "base/msg.h"
#include "cow/cow.h"
#include "cow/inbox.h"

#define BATCH 16       /* messages read at once */
#define PATIENCE 10000 /* faults at a page that cannot be read */
#define TRIES 100      /* reads that fail, one after the other, before a handler gives up */
#define AROUND_LEAF 64 /* from here on the whole leaf */
#define RUN 64u        /* pages copied at once: stacks may be small (sigbus.c) */

const struct quire_snapshot *q_cow_newest(uintptr_t addr)
{
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older)
        if (q_cow_error(s) == 0 && addr >= q_cow_gone(s) &&
            q_ranges_find(q_cow_guarded(s), addr) != NULL)
            return s;
    return NULL;
}

/* A stretch of pages of one leaf. */
struct window {
    unsigned first, nr;
};

/* A leaf that nothing was saved of: if the one before was written from end to end, this one may be. */
static unsigned first_guess(const struct q_leaf *leaf)
{
    const struct q_leaf *before = q_store_leaf(leaf->base - 1, false);
    unsigned per_leaf = 1u << (Q_LEAF_SHIFT - q_page_shift);

    return before != NULL && q_store_alive(before) && before->around >= AROUND_LEAF &&
                   before->next == per_leaf
               ? 2 * AROUND_LEAF
               : 1;
}

/* How much to serve at once for a fault at page `at`, within the leaf and the snapshot's stretch. */
static struct window choose(struct q_leaf *leaf, unsigned at, const struct q_range *r)
{
    unsigned per_leaf = 1u << (Q_LEAF_SHIFT - q_page_shift);
    uintptr_t lo = q_max(r->start, leaf->base);
    uintptr_t hi = q_min(r->end, leaf->base + ((uintptr_t)1 << Q_LEAF_SHIFT));
    unsigned around = leaf->around > 0 ? leaf->around : first_guess(leaf);

    if (leaf->next == at && leaf->next != 0)
        around = around >= AROUND_LEAF ? per_leaf : 2 * around;
    else
        around = around > 1 ? around / 2 : 1;
    leaf->around = (uint16_t)around;
    unsigned first = at, end = at + around;
    if (around >= per_leaf) {
        first = 0;
        end = per_leaf;
    }
    first = (unsigned)q_max(first, q_leaf_index(leaf, lo));
    end = (unsigned)q_min(end, (hi - leaf->base) >> q_page_shift);
    leaf->next = (uint16_t)end;
    return (struct window){first, end - first};
}

/* Whether this is the thread that writes (own.c): nobody else has business with its one page. */
static bool by_itself(void)
{
    return atomic_load_explicit(&q_cow.serving, memory_order_relaxed) == 0;
}

/*
 * Copy pages of one run into slots. False: one of them cannot be read, or not
 * by this call. Not by plain loads: although somebody is writing to the page,
 * another thread may make it unreadable meanwhile.
 */
static bool copy_out(uintptr_t from, const uint32_t *slot, unsigned nr)
{
    q_assert(nr > 0);
    if (nr == 1 && by_itself()) {
        memcpy(q_store_page(slot[0]), (const void *)from, q_page_size());
        return true;
    }
    struct iovec to[RUN], src = {(void *)from, (size_t)nr << q_page_shift};

    unsigned n = 0;
    for (unsigned i = 0; i < nr; i++) {
        if (n > 0 && slot[i] == slot[i - 1] + 1)
            to[n - 1].iov_len += q_page_size();
        else
            to[n++] = (struct iovec){q_store_page(slot[i]), q_page_size()};
    }
    /* Of the two calls the one that pins the pool's huge pages, and not the heap's small ones. */
    long ret = q_arch_syscall6(SYS_process_vm_writev, q_cow.pid, (long)&src, 1, (long)to, n, 0);
    if (nr > 1 || ret == (long)src.iov_len)
        return ret == (long)src.iov_len;
    /* This one also reads what a protection key (pkeys(7)) hides from this thread alone. */
    return q_copy_carefully(q_store_page(slot[0]), (const void *)from, q_page_size());
}

/* A page is about to have a version: whoever wants to go back hears of its first since the cut. */
static void log_page(const struct q_leaf *leaf, unsigned index)
{
    uintptr_t page = leaf->base + ((uintptr_t)index << q_page_shift);
    uint32_t newest = q_store_newest(leaf, index);

    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older) {
        if (s->undo == NULL || newest >= s->epoch || q_cow_error(s) != 0 ||
            q_ranges_find(&s->undo->guarded, page) == NULL)
            continue;
        if (s->undo->nr_pages == s->undo->room)
            q_cow_compact_log(s->undo, s->epoch);
        q_undo_log(s->undo, page);
    }
}

/*
 * Save a run of pages, RUN at most, that have no version as new as epoch. 0; an errno; or
 * EAGAIN where they cannot be read at once.
 */
static int save_run(struct q_leaf *leaf, unsigned first, unsigned nr, uint32_t epoch)
{
    uint32_t slot[RUN];
    unsigned have = 0;
    bool ok = false;

    while (have < nr && (slot[have] = q_store_take()) != 0)
        have++;
    if (have == nr)
        ok = copy_out(leaf->base + ((uintptr_t)first << q_page_shift), slot, nr);
    if (!ok) {
        int error = have < nr ? ENOBUFS : EAGAIN;
        while (have > 0)
            q_store_give(slot[--have]);
        return error;
    }
    for (unsigned i = 0; i < nr; i++) {
        log_page(leaf, first + i);
        q_store_publish(leaf, first + i, slot[i], epoch);
    }
    atomic_fetch_add_explicit(&q_cow.saved, nr, memory_order_relaxed);
    return 0;
}

/* Save what is not saved yet of a window. */
static int save_window(struct q_leaf *leaf, struct window w, uint32_t epoch)
{
    unsigned end = w.first + w.nr, at = w.first;
    int error = 0;

    while (at < end && error == 0) {
        unsigned from = at;

        while (at < end && at - from < RUN && q_store_newest(leaf, at) < epoch)
            at++;
        if (at > from)
            error = save_run(leaf, from, at - from, epoch);
        while (at < end && q_store_newest(leaf, at) >= epoch)
            at++;
    }
    return error;
}

/* A write to a page that nobody shows any more. */
static void open_page(uintptr_t page)
{
    q_uffd_open_up(q_cow_uffd(), page, q_page_size());
}

/* Whether this page has come so often, without another between, that it will never be read. */
static bool page_fails_for_good(uintptr_t page)
{
    static uintptr_t last; /* under q_store.lock */
    static unsigned times;

    times = page == last ? times + 1 : 0;
    last = page;
    return times >= PATIENCE;
}

/* What of [page, page + nr pages) is in one leaf, and in the stretch r. */
static struct window exactly(const struct q_leaf *leaf, unsigned at, unsigned nr,
                             const struct q_range *r)
{
    uintptr_t hi = q_min(r->end, leaf->base + ((uintptr_t)1 << Q_LEAF_SHIFT));

    return (struct window){at, (unsigned)q_min(nr, ((hi - leaf->base) >> q_page_shift) - at)};
}

long q_cow_save(uintptr_t page, unsigned nr)
{
    const struct quire_snapshot *s = q_cow_newest(page);

    if (s == NULL) {
        open_page(page);
        return 1;
    }
    struct q_leaf *leaf = q_store_leaf(page, true);
    if (leaf == NULL) {
        q_cow_lose(ENOMEM);
        return 1;
    }
    unsigned at = q_leaf_index(leaf, page);
    struct window w = {at, 1};
    /* Neighbours may be in a newer snapshot that this page is not in; then they need saving for that. */
    if (s == q_cow.live) {
        struct q_range r = *q_ranges_find(q_cow_guarded(s), page);
        r.start = q_max(r.start, q_min(q_cow_gone(s), page)); /* it may have grown since */
        w = nr == 0 ? choose(leaf, at, &r) : exactly(leaf, at, nr, &r);
    }
    int error = save_window(leaf, w, s->epoch);
    if (error != 0 && w.nr > 1) {
        /* Something in it cannot be read, or does not fit: this page alone. */
        w = (struct window){at, 1};
        leaf->around = 1;
        error = save_window(leaf, w, s->epoch);
    }
    if (error == EAGAIN)
        return -EAGAIN;
    if (error == 0) {
        uintptr_t from = leaf->base + ((uintptr_t)w.first << q_page_shift);
        q_uffd_open_up(q_cow_uffd(), from, (size_t)w.nr << q_page_shift);
    } else {
        q_cow_lose(error);
    }
    return (long)(w.first + w.nr - at);
}

static void serve_write(uintptr_t page)
{
    if (q_cow_save(page, 0) != -EAGAIN)
        return;
    /* It became unreadable since the fault, so the write fails too, or comes again. */
    if (page_fails_for_good(page))
        q_cow_lose(EIO);
    q_uffd_wake(&q_cow.uffd, page, q_page_size());
}

/* A page that is not there: of a view, or moved aside, or never touched (sweep.c). */
static void serve_missing(uintptr_t page)
{
    if (q_view_fault(page))
        return;
    if (q_sweep_away(page, 1)) {
        q_sweep_want(page);
        return;
    }
    if (q_uffd_fill(&q_cow.uffd, page, NULL) != 0)
        q_uffd_wake(&q_cow.uffd, page, q_page_size());
}

static void serve(uintptr_t page, bool write)
{
    uint64_t t = q_clock_fine();

    if (!write) {
        serve_missing(page);
        return;
    }
    serve_write(page);
    atomic_fetch_add_explicit(&q_cow.faults, 1, memory_order_relaxed);
    t = q_clock_fine() - t;
    /* Relaxed: written under the lock alone. */
    if (t > atomic_load_explicit(&q_cow.longest_ns, memory_order_relaxed))
        atomic_store_explicit(&q_cow.longest_ns, t, memory_order_relaxed);
}

/* All that waits, unless somebody has the lock, who then sees to it. */
static void serve_all(int tid)
{
    uintptr_t page;
    bool write;

    while (q_inbox_any() && q_trylock(&q_store.lock)) {
        /* Relaxed: for the keeper, who looks a second later, should this thread be gone by then. */
        atomic_store_explicit(&q_cow.serving, tid, memory_order_relaxed);
        while (q_inbox_next(&page, &write))
            serve(page, write);
        atomic_store_explicit(&q_cow.serving, 0, memory_order_relaxed);
        q_unlock(&q_store.lock);
        atomic_thread_fence(memory_order_seq_cst); /* as in q_store_unlock() */
    }
}

/* Not by copying: what may kill a handler must leave the sweeper. */
void q_cow_wake_left(void)
{
    uintptr_t page;
    bool write;

    while (q_inbox_any() && q_trylock(&q_store.lock)) {
        while (q_inbox_next(&page, &write))
            q_uffd_wake(&q_cow.uffd, page, q_page_size());
        q_unlock(&q_store.lock);
        atomic_thread_fence(memory_order_seq_cst); /* as in q_store_unlock() */
    }
}

static void post(unsigned place, const struct uffd_msg *m)
{
    uintptr_t page = q_align_down(m->arg.pagefault.address, q_page_size());
    bool write = (m->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) != 0;

    if (m->event == UFFD_EVENT_PAGEFAULT && !q_inbox_post(place, page, write))
        q_uffd_wake(&q_cow.uffd, page, q_page_size()); /* it asks again */
}

/*
 * Where reading does not wait, as the keeper wants it: until there is something
 * to read. Without a sweeper, what somebody who holds the lock has left is come
 * back to: where anything is, not for long.
 */
static void wait_for_more(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct timespec little = {.tv_nsec = 1000000};

    q_uffd_set_blocking(fd, false);
    q_arch_syscall6(SYS_ppoll, (long)&p, 1, q_cow_orphaned() && q_inbox_any() ? (long)&little : 0,
                    0, 0, 0);
}

void q_cow_serve(int fd, unsigned place)
{
    struct uffd_msg m[BATCH] = {0};
    int tid = (int)q_arch_syscall6(SYS_gettid, 0, 0, 0, 0, 0, 0);
    long n = 0;

    for (unsigned failed = 0; failed < TRIES;) {
        if (q_cow_orphaned() || n == -EAGAIN)
            wait_for_more(fd);
        n = q_arch_syscall6(SYS_read, fd, (long)m, sizeof(m), 0, 0, 0);

        for (long i = 0; i < n / (long)sizeof(m[0]); i++)
            post(place, &m[i]);
        serve_all(tid);
        if (n > 0)
            failed = 0;
        else if (n != -EINTR && n != -EAGAIN)
            failed++;
    }
    /* At once, while the others still hold the descriptor: without any all pages would be open. */
    q_lock(&q_store.lock);
    atomic_store_explicit(&q_cow.serving, tid, memory_order_relaxed); /* as in serve_all() */
    q_cow_lose(EIO);
    atomic_store_explicit(&q_cow.serving, 0, memory_order_relaxed);
    q_store_unlock();
}
