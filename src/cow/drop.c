/*
 * drop.c - a snapshot that is given up from its lowest address on, as it is used.
 *
 *             gone
 *   snapshot    |--- shown, protected, kept ----------------------->
 *   heap     ---|-- written without a fault; pages that were copied are free again
 *
 * Who saves a snapshot goes through it once, by ascending address. What lies
 * behind is of no use any more, so writes there need not be noticed, and the
 * copies that earlier writes cost are used for later ones. So saving takes
 * the memory of what is written before it has been saved, and no more.
 *
 * Where other snapshots live the protection stays, and so does what they need.
 *
 * `gone` only grows. A reader looks at it after it has copied, as at the
 * snapshot's error; it is set before anything is opened or given away. Whoever
 * decides by an older value keeps too much.
 */
#include "cow/cow.h"
#include "cow/own.h"
#include "slab/heap.h"

/* Epochs of the snapshots that are not s and need something of [from, to), ascending. Under api_lock. */
static size_t others(const struct quire_snapshot *s, uintptr_t from, uintptr_t to, uint32_t *epoch)
{
    size_t nr = 0;

    for (const struct quire_snapshot *o = q_cow.live; o != NULL; o = o->older)
        if (o != s && q_cow_error(o) == 0 && q_cow_gone(o) < to &&
            q_ranges_touch(q_cow_guarded(o), from, to)) {
            if (nr == Q_MAX_PRUNED)
                return nr + 1;
            epoch[nr++] = o->epoch;
        }
    return nr;
}

static struct {
    uint32_t epoch[Q_MAX_PRUNED];
    size_t nr;
} need; /* under api_lock */

/* q_store.lock held. */
static uintptr_t drop_copies(uintptr_t from, uintptr_t to)
{
    if (need.nr <= Q_MAX_PRUNED)
        q_store_prune_pages(from, to, need.epoch, need.nr);
    return 0;
}

/* A stretch in one leaf. */
static void drop_piece(const struct quire_snapshot *s, uintptr_t from, uintptr_t to)
{
    need.nr = others(s, from, to, need.epoch);
    q_own_run(drop_copies, from, to);
    /* Without the lock: no cut comes between, and who writes there meanwhile finds that nobody shows it. */
    if (need.nr == 0)
        q_uffd_open_up(q_cow_uffd(), from, to - from);
}

/* api_lock held. */
static void drop_protected(struct quire_snapshot *s, uintptr_t from, uintptr_t end)
{
    const struct q_ranges *r = q_cow_guarded(s);
    uintptr_t leaf = (uintptr_t)1 << Q_LEAF_SHIFT, to;

    for (size_t i = q_ranges_after(r, from); i < r->nr && r->at[i].start < end; i++) {
        uintptr_t stop = q_min(r->at[i].end, end);

        for (uintptr_t at = q_max(r->at[i].start, from); at < stop; at = to) {
            to = q_min(q_align_down(at, leaf) + leaf, stop);
            drop_piece(s, at, to);
        }
    }
    q_cow_unmap_kept();
}

int q_snapshot_may_drop(const struct quire_snapshot *s)
{
    int error = q_snapshot_check(s);

    if (error == 0 && (s->undo != NULL || s->method == QUIRE_SNAPSHOT_BY_IMAGE))
        error = EINVAL;
    if (error == 0 && (s->view != NULL || s->branches > 0))
        error = EBUSY;
    return error != 0 ? error : q_cow_error(s);
}

int q_snapshot_drop(struct quire_snapshot *s, uintptr_t end)
{
    end = q_align_down(end, q_page_size());
    q_cow_lock_api();
    uintptr_t from = q_cow_gone(s);
    int error = q_snapshot_may_drop(s);
    if (error == 0 && end > from) {
        q_sweep_finish();
        /* Sequentially consistent: seen by whoever sees a page below it changed. */
        atomic_store_explicit(&s->gone, end, memory_order_seq_cst);
        if (s->method == QUIRE_SNAPSHOT_BY_PROTECTION) {
            uint64_t mask = q_signals_block();
            q_enter();
            drop_protected(s, from, end);
            q_leave();
            q_signals_restore(mask);
        }
    }
    q_cow_unlock_api();
    return error;
}

Q_PUBLIC int quire_snapshot_drop(quire_snapshot_t *s, const void *end)
{
    int error = q_snapshot_check(s);

    if (error == 0)
        error = q_snapshot_drop(s, (uintptr_t)end);
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}
