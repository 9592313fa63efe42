/*
 * release.c - the end of a snapshot, budget and statistics.
 *
 * The last one to go un-protects what it protected. Pages that only an
 * earlier one protected stay so until they are written: one fault each, and
 * nothing is saved.
 */
#include "cow/cow.h"
#include "cow/inbox.h"
#include "cow/own.h"
#include "cow/sigbus.h"
#include "slab/heap.h"
#include "zone/fork.h"
#include "zone/memmap.h"

#define UNPROTECT_BYTES                                                                            \
    ((size_t)32 << 20) /* at once, so that nobody waits long for the address space */

bool q_cow_any_live(void)
{
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older)
        if (q_cow_error(s) == 0)
            return true;
    return false;
}

/* Epochs of what still lives, ascending. Nobody changes the list: api_lock is held. */
static size_t live_epochs(uint32_t *epoch, size_t room)
{
    size_t nr = 0;

    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older) {
        if (q_cow_error(s) != 0)
            continue;
        if (nr == room)
            return room + 1;
        epoch[nr++] = s->epoch;
    }
    return nr;
}

static void unprotect(const struct q_ranges *ranges)
{
    for (size_t i = 0; i < ranges->nr; i++) {
        uintptr_t at = ranges->at[i].start, end = ranges->at[i].end;

        while (at < end) {
            size_t len = q_min(UNPROTECT_BYTES, end - at);
            /* A mapping that is not registered is moved (realloc) without our being asked. */
            if (at - q_mem.base < q_mem.size || q_bus_has_locked(at, at + len) ||
                q_uffd_unregister(&q_cow.uffd, at, len) != 0)
                q_uffd_open_up(q_cow_uffd(), at, len);
            at += len;
        }
    }
}

/* Whether it was the last. All locks of src/zone and q_store.lock held. */
static uintptr_t unlink_live(uintptr_t snapshot, uintptr_t unused)
{
    struct quire_snapshot **at = &q_cow.live;

    while (*at != NULL && *at != (struct quire_snapshot *)snapshot)
        at = &(*at)->older;
    if (*at != NULL)
        *at = (*at)->older;
    if (q_cow_any_live())
        return false;
    q_store_reset();
    q_cow_hold(false);
    return true;
}

static bool left_some; /* pages that another had protected than those that still live */

/* api_lock held, signals blocked. */
static void release_protected(struct quire_snapshot *s)
{
    uint32_t epoch[Q_MAX_PRUNED];

    q_zone_fork_prepare(true);
    bool last = q_own_run(unlink_live, (uintptr_t)s, 0) != 0;
    q_zone_fork_parent();
    if (last) {
        if (q_cow_error(s) == 0)
            unprotect(q_cow_guarded(s));
        if (left_some)
            q_bus_open(); /* system calls write there again */
        left_some = false;
        atomic_store_explicit(&q_cow.guarding, false, memory_order_relaxed);
        q_store_shrink();
    } else {
        left_some = true;
        size_t nr = live_epochs(epoch, Q_MAX_PRUNED);
        if (nr <= Q_MAX_PRUNED)
            q_store_prune(epoch, nr);
    }
    q_cow_unmap_kept();
}

void q_snapshot_end(struct quire_snapshot *s)
{
    q_sweep_finish();
    uint64_t mask = q_signals_block();
    q_enter();
    q_view_end(s);
    if (s->method == QUIRE_SNAPSHOT_BY_PROTECTION)
        release_protected(s);
    else if (s->method == QUIRE_SNAPSHOT_BY_HOLDER)
        q_holder_end(s);
    else
        q_image_close(s);
    q_leave();
    q_signals_restore(mask);
    q_snapshot_free(s);
}

/* 0 or an errno. api_lock held. */
static int may_release(const struct quire_snapshot *s)
{
    if (s->increments > 0)
        return EBUSY;
    if (s->undo == NULL || s->heap == NULL)
        return 0;
    /* Going back to that would bring the heap's own book-keeping for this one back. */
    for (const struct quire_snapshot *newer = q_cow.live; newer != NULL && newer != s;
         newer = newer->older)
        if (newer->undo != NULL && newer->heap == NULL)
            return EBUSY;
    return q_undo_heap_is_others(s->undo) ? EINVAL : 0;
}

Q_PUBLIC int quire_snapshot_release(quire_snapshot_t *s)
{
    int error = q_snapshot_check(s);

    if (error == EINVAL) {
        errno = EINVAL;
        return -1;
    }
    if (error == ESTALE) { /* a forked child's copy: what it held is the parent's */
        q_cow_meet_child();
        q_holder_forget(s);
        q_image_free(s);
        q_snapshot_free(s);
        return 0;
    }
    q_cow_lock_api();
    error = may_release(s);
    if (error == 0) {
        s->released = true;
        if (s->branches == 0)
            q_snapshot_end(s);
        else if (s->undo != NULL)
            q_undo_leave_heap(s->undo); /* branches do not go back */
    }
    q_cow_unlock_api();
    if (error != 0)
        errno = error;
    return error != 0 ? -1 : 0;
}

Q_PUBLIC int quire_snapshot_budget(size_t bytes)
{
    int error = 0;

    q_cow_meet_child();
    q_cow_lock_api();
    if (q_cow.live != NULL) {
        error = EBUSY;
    } else {
        uint64_t mask = q_signals_block();
        q_store.budget = bytes;
        q_store_resize();
        q_signals_restore(mask);
    }
    q_cow_unlock_api();
    if (error != 0)
        errno = error;
    return error != 0 ? -1 : 0;
}

Q_PUBLIC int quire_snapshot_stat(const quire_snapshot_t *s, struct quire_snapshot_stat *st)
{
    int error = q_snapshot_check(s);

    if (error != 0) {
        errno = error;
        return -1;
    }
    *st = (struct quire_snapshot_stat){
        .method = s->method,
        .error = q_cow_error(s),
        .pause_ns = s->pause_ns,
        .take_ns = s->take_ns,
        .bytes = s->ranges.bytes,
        .ranges = s->ranges.nr,
        .moved_bytes = s->moved_bytes,
        .why_not = s->why_not,
    };
    if (s->undo != NULL) {
        st->restores = s->undo->restores;
        st->restored_pages = s->undo->put_back;
    }
    if (s->method != QUIRE_SNAPSHOT_BY_PROTECTION)
        return 0;
    /* Relaxed: numbers for people. */
    st->faults = atomic_load_explicit(&q_cow.faults, memory_order_relaxed) - s->faults_before;
    st->saved_bytes = (atomic_load_explicit(&q_cow.saved, memory_order_relaxed) - s->saved_before)
                      << q_page_shift;
    st->touched_bytes =
        (atomic_load_explicit(&q_cow.touched, memory_order_relaxed) - s->touched_before)
        << q_page_shift;
    st->sigbus_faults =
        atomic_load_explicit(&q_cow.own_faults, memory_order_relaxed) - s->own_faults_before;
    st->held_bytes = (uint64_t)atomic_load_explicit(&q_store.held, memory_order_relaxed)
                     << q_page_shift;
    st->longest_stall_ns = atomic_load_explicit(&q_cow.longest_ns, memory_order_relaxed);
    return 0;
}

void q_cow_fork_child(void)
{
    /* The parent may have been in the middle of its first snapshot. */
    q_lock_reset(&q_store.lock);
    q_cow_api_reset();
    /* The descriptor serves the parent's memory; the handler did not come along. */
    q_uffd_close(&q_cow.uffd);
    q_bus_fork_child();
    /* Without handlers there may be snapshots whose writers save pages themselves. */
    if (q_cow.pid == 0 && !atomic_load_explicit(&q_cow.guarding, memory_order_relaxed))
        return;
    q_cow.pid = 0;
    q_cow.window_registered = false;
    atomic_store_explicit(&q_cow.guarding, false, memory_order_relaxed);
    q_inbox_reset();
    q_sweep_forget();
    q_cow.live = q_cow.views = NULL;
    q_branch_fork_child();
    q_store_forget();
    q_cow_hold_fork_child();
}

void q_cow_meet_child(void)
{
    if (q_cow.pid != 0 && q_cow.pid != q_getpid())
        q_cow_fork_child();
}
