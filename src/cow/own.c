/*
 * own.c - threads of the program's that hold q_store.lock, and what a writer does for itself.
 *
 * They hold it on whatever stack they have. That may lie in the heap, and
 * whoever holds that lock must not write to what is protected. So:
 *
 *   count of cuts -> stack opened by writing -> lock -> still as many? -> go on
 *
 * Where the last answer is no, a cut came between and protected the stack
 * anew. Between taking the lock and that answer nothing is written, and from
 * then on only to q_own_run()'s own frame and below.
 *
 * The handlers, the sweeper and the keeper have stacks of ours, and need none of
 * this.
 */
#include "cow/own.h"

#include "cow/cow.h"
#include "cow/inbox.h"
#include "cow/sigbus.h"

#define NEED 4096u /* bytes of stack below q_own_run()'s frame, at most, while the lock is held */

/* Whoever writes to what is protected waits for a handler, still without the lock. */
static Q_NOINLINE void open_stack(void)
{
    volatile char room[NEED];

    room[0] = room[NEED - 1] = 0;
}

static Q_NOINLINE bool lock_at(uint32_t cuts)
{
    q_lock(&q_store.lock);
    if (q_likely(q_cow.cuts == cuts))
        return true;
    q_unlock(&q_store.lock);
    return false;
}

Q_NOINLINE uintptr_t q_own_run(uintptr_t (*fn)(uintptr_t a, uintptr_t b), uintptr_t a, uintptr_t b)
{
    for (;;) {
        /* Relaxed: looked at again under the lock. */
        uint32_t cuts = __atomic_load_n(&q_cow.cuts, __ATOMIC_RELAXED);

        /* The other end of this frame. */
        __atomic_fetch_add((uintptr_t *)__builtin_frame_address(0), 0, __ATOMIC_RELAXED);
        open_stack();
        if (lock_at(cuts))
            break;
        atomic_thread_fence(memory_order_seq_cst); /* as in q_store_unlock() */
        if (q_inbox_any())
            q_sweep_ring();
    }
    uintptr_t result = fn(a, b);
    q_store_unlock();
    return result;
}

/* --- touch ----------------------------------------------------------------------------------- */

/*
 * Whether it was saved since the newest cut, and is open. A version is
 * published before its page is un-protected, both under the lock; so the page
 * is open if the lock is seen free after the version was seen.
 */
static bool is_open(uintptr_t page)
{
    /* Relaxed: a cut that nobody has told of is later than this. */
    uint32_t epoch = __atomic_load_n(&q_cow.epoch, __ATOMIC_RELAXED);

    return q_store_find(page, epoch) != 0 &&
           /* Acquire: pairs with q_unlock(). */
           atomic_load_explicit(&q_store.lock.word, memory_order_acquire) == 0;
}

/* The first address from `at` on, up to end, that a snapshot guards. q_store.lock held. */
static uintptr_t next_guarded(uintptr_t at, uintptr_t end)
{
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older) {
        const struct q_ranges *g = q_cow_guarded(s);
        uintptr_t from = q_max(at, q_cow_gone(s));
        size_t i = q_cow_error(s) == 0 ? q_ranges_after(g, from) : g->nr;

        if (i < g->nr)
            end = q_min(end, q_max(g->at[i].start, from));
    }
    return end;
}

/* One step of touching [at, end): where to go on. q_store.lock held. */
static uintptr_t step(uintptr_t at, uintptr_t end)
{
    uintptr_t guarded = next_guarded(at, end);
    size_t left = (end - at) >> q_page_shift;

    if (q_sweep_away(at, 1))
        return at;
    if (guarded > at) {
        if (q_bus_has(at, guarded)) /* an earlier snapshot's protection */
            q_uffd_open_up(q_cow_uffd(), at, guarded - at);
        return guarded;
    }
    uint64_t before = atomic_load_explicit(&q_cow.saved, memory_order_relaxed);
    /* A single page may be one of many, a call for each. */
    long n = q_cow_save(at, left > 1 ? (unsigned)q_min(left, Q_LEAF_PAGES) : 0);
    atomic_fetch_add_explicit(&q_cow.touched,
                              atomic_load_explicit(&q_cow.saved, memory_order_relaxed) - before,
                              memory_order_relaxed);
    return at + ((uintptr_t)q_max(n, 1) << q_page_shift);
}

static Q_NOINLINE void touch(uintptr_t at, uintptr_t end)
{
    /* A child that ran no fork handlers: the descriptor is its parent's still, whose memory it would open. */
    if (q_cow.pid != 0 && q_cow.pid != q_getpid())
        return;
    q_store_populate();
    while (at < end) {
        if (is_open(at)) {
            at += q_page_size();
            continue;
        }
        if (q_sweep_pending()) /* brought back by being read */
            (void)*(volatile const char *)at;
        uint64_t mask = q_signals_block();
        at = q_own_run(step, at, end);
        q_signals_restore(mask);
    }
}

Q_PUBLIC void quire_snapshot_touch(const void *p, size_t len)
{
    uintptr_t at = q_align_down((uintptr_t)p, q_page_size());

    /* Relaxed: who was told of a snapshot sees it; one that is taken just now may undo this. */
    if (q_unlikely(atomic_load_explicit(&q_cow.guarding, memory_order_relaxed)) && len > 0)
        touch(at, q_align_up((uintptr_t)p + len, q_page_size()));
}
