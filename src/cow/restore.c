/*
 * restore.c - going back to a snapshot (QUIRE_SNAPSHOT_ROLLBACK).
 *
 * Pages with a saved version are compared with it, and copied back where they
 * differ. Then each is one of
 *
 *   changed      stays writable, and its version stays: the next round will
 *                write it again as likely as not, and then costs no fault
 *   unchanged    for as many rounds as it is worth: its version is dropped
 *                and it is protected, as it was right after the cut
 *
 * so pages that every round writes cost a copy each, and others a fault, a
 * copy and a comparison. The snapshot must be the newest: then its version of a page
 * is the page's newest, and no other snapshot shows the page itself as it is
 * now. Older ones show the same after as before. For one of a heap of the
 * program's, newer ones of other heaps do not matter: they have other pages.
 *
 * Nobody else may be in the heap meanwhile; the handler waits for
 * q_store.lock, so nothing that is protected is written while that is held.
 */
#include <string.h>

#include "cow/cow.h"
#include "cow/own.h"
#include "cow/undo.h"
#include "slab/arena_undo.h"
#include "slab/heap.h"
#include "zone/fork.h"
#include "zone/movable.h"
#include "zone/vmalloc.h"

#define IDLE_MAX 1u      /* a page stays writable for one round more */
#define IDLE_MAX_HOT 16u /* or, where that was right before, for as many as a fault costs */

static uintptr_t page_of(uintptr_t entry)
{
    return entry & ~(uintptr_t)Q_LOG_BITS;
}

static bool is_cold(uintptr_t entry)
{
    return (entry & Q_LOG_IDLE) > ((entry & Q_LOG_HOT) != 0 ? IDLE_MAX_HOT : IDLE_MAX);
}

void q_cow_compact_log(struct q_undo *u, uint32_t epoch)
{
    static uint32_t mark;
    size_t to = 0;

    mark++;
    for (size_t i = 0; i < u->nr_pages; i++) {
        uint32_t slot = q_store_find(page_of(u->page[i]), epoch);

        if (slot == 0 || q_store.version[slot].mark == mark)
            continue;
        q_store.version[slot].mark = mark;
        u->page[to++] = u->page[i];
    }
    u->nr_pages = to;
}

/* Another cut since has protected some of the logged pages: all are made writable. */
static int open_all(struct q_undo *u)
{
    for (size_t i = 0; i < u->nr_pages; i++)
        if (q_uffd_protect(q_cow_uffd(), page_of(u->page[i]), q_page_size(), false) != 0)
            return EIO;
    u->opened_at = q_cow.epoch;
    return 0;
}

/* The entry with what is known of the page now. */
static uintptr_t put_page_back(struct q_undo *u, uintptr_t entry, uint32_t epoch)
{
    uintptr_t page = page_of(entry);
    uint32_t slot = q_store_find(page, epoch);

    /* An earlier restore of a newer snapshot made it what it was, but it is writable now. */
    if (slot == 0)
        return entry | Q_LOG_IDLE;
    if (memcmp((const void *)page, q_store_page(slot), q_page_size()) == 0)
        return entry + ((entry & Q_LOG_IDLE) < Q_LOG_IDLE);
    memcpy((void *)page, q_store_page(slot), q_page_size());
    u->put_back++;
    bool again = (entry & Q_LOG_BITS) != 0 && (entry & Q_LOG_IDLE) <= 1;
    return page | 1 | (again ? Q_LOG_HOT : entry & Q_LOG_HOT);
}

/* Protect stretches of cold pages, drop their versions, and take them out of the log. */
static int close_cold(struct q_undo *u, uint32_t epoch)
{
    uintptr_t start = 0, end = 0;
    size_t to = 0;
    long ret = 0;

    for (size_t i = 0; i < u->nr_pages; i++) {
        uintptr_t page = page_of(u->page[i]);

        if (!is_cold(u->page[i])) {
            u->page[to++] = u->page[i];
            continue;
        }
        q_store_drop(page, epoch);
        if (page != end) {
            if (end > start && ret == 0)
                ret = q_uffd_protect(q_cow_uffd(), start, end - start, true);
            start = page;
        }
        end = page + q_page_size();
    }
    if (end > start && ret == 0)
        ret = q_uffd_protect(q_cow_uffd(), start, end - start, true);
    u->nr_pages = to;
    return ret != 0 ? EIO : 0;
}

/* q_store.lock held. An errno where nothing was put back. */
static int put_pages_back(struct quire_snapshot *s)
{
    struct q_undo *u = s->undo;
    int error = q_cow_error(s);

    if (error == 0 && q_cow.epoch != u->opened_at) {
        error = open_all(u);
        if (error != 0)
            q_cow_lose(error);
    }
    if (error != 0)
        return error;
    for (size_t i = 0; i < u->nr_pages; i++)
        u->page[i] = put_page_back(u, u->page[i], s->epoch);
    error = close_cold(u, s->epoch);
    if (error != 0)
        q_cow_lose(error); /* this time it still worked */
    return 0;
}

static uintptr_t put_back_now(uintptr_t snapshot, uintptr_t unused)
{
    return (uintptr_t)put_pages_back((struct quire_snapshot *)snapshot);
}

/* Signals blocked; q_store.lock is taken here. The stack may be in another heap, and in a snapshot of that. */
static int put_all_back(struct quire_snapshot *s)
{
    return (int)q_own_run(put_back_now, (uintptr_t)s, 0);
}

/* All locks of src/zone held, signals blocked. */
static int restore_all(struct quire_snapshot *s)
{
    if (q_cow.live != s || !q_vsettled())
        return EBUSY;
    int error = q_undo_check(s->undo);
    if (error != 0)
        return error;
    q_movable_reach(true);
    error = put_all_back(s);
    q_movable_reach(false);
    if (error != 0)
        return error;
    q_undo_put_back(s->undo);
    q_cow_take_kept_back(&s->undo->blocks);
    return 0;
}

/* Whether a newer snapshot shows pages of this one's heap, or may. */
static bool newer_shows(const struct quire_snapshot *s)
{
    const struct quire_snapshot *newer = q_cow.live;

    while (newer != NULL && newer != s && newer->heap != NULL && newer->heap != s->heap)
        newer = newer->older;
    return newer != s;
}

/*
 * Other threads go on, in other heaps and in malloc. Signals are blocked for the pages only: what is
 * given back afterwards may be memory whose writers save it (SIGBUS).
 */
static int restore_heap(struct quire_snapshot *s)
{
    struct q_undo *u = s->undo;

    if (newer_shows(s))
        return EBUSY;
    int error = q_undo_enter_heap(u);
    if (error != 0)
        return error == ENOMEM ? ENOBUFS : EINVAL;
    struct q_arena_newer newer = q_arena_find_newer(u->heap);
    uint64_t mask = q_signals_block();
    error = put_all_back(s);
    q_signals_restore(mask);
    if (error == 0) {
        q_arena_go_back(u->heap, &newer);
        u->restores++;
    }
    q_arena_leave(u->heap);
    return error;
}

/* api_lock held. */
static int restore(struct quire_snapshot *s)
{
    int error;

    q_sweep_finish();
    q_store_populate();
    q_enter();
    if (s->heap != NULL) {
        error = restore_heap(s);
    } else {
        uint64_t mask = q_signals_block();
        q_zone_fork_prepare(true);
        error = restore_all(s);
        q_zone_fork_parent();
        q_signals_restore(mask);
    }
    q_leave();
    return error;
}

Q_PUBLIC int quire_snapshot_restore(quire_snapshot_t *s)
{
    int error = q_snapshot_check(s);

    if (error == 0 && s->undo == NULL)
        error = EINVAL;
    if (error == 0 && q_cow_error(s) != 0)
        error = q_cow_error(s);
    if (error == 0 && q_cow_stack_in(&s->undo->guarded))
        error = EDEADLK;
    if (error == 0) {
        q_cow_settle();
        q_cow_lock_api();
        error = restore(s);
        q_cow_unlock_api();
    }
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}
