/*
 * hold.c - what the zones ask (zone/hold.h): memory that a snapshot still shows is neither discarded
 * nor unmapped.
 *
 * Pages of the zones stay where they are, and free. A mapping that the program
 * freed changes hands: it is `kept`, and unmapped when nobody shows it any
 * more, or is the program's again when that goes back.
 *
 * Locks: the list of what is kept is guarded by q_vm_lock; going back holds it with all the others.
 */
#include <string.h>

#include "cow/cow.h"
#include "zone/hold.h"
#include "zone/vmalloc.h"

static struct {
    void *addr;
    size_t bytes;
} * kept;
static size_t nr_kept, room;

static bool held(const void *addr, size_t len)
{
    if (q_sweep_away((uintptr_t)addr, len)) /* what is done to it now would be lost */
        return true;
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older)
        if (q_cow_error(s) == 0 && q_cow_gone(s) < (uintptr_t)addr + len &&
            q_ranges_touch(q_cow_guarded(s), q_max((uintptr_t)addr, q_cow_gone(s)),
                           (uintptr_t)addr + len))
            return true;
    return false;
}

static bool make_room(void)
{
    size_t bytes = q_align_up(q_max(2 * room, 1) * sizeof(*kept), q_page_size());
    void *now = q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);

    if (now == NULL)
        return false;
    if (kept != NULL) {
        memcpy(now, kept, nr_kept * sizeof(*kept));
        q_munmap(kept, q_align_up(room * sizeof(*kept), q_page_size()));
    }
    kept = now;
    room = bytes / sizeof(*kept);
    return true;
}

static void keep(void *addr, size_t bytes)
{
    if (nr_kept == room && !make_room())
        return; /* it is never unmapped, rather than too early */
    kept[nr_kept].addr = addr;
    kept[nr_kept++].bytes = bytes;
}

static const struct q_holder holder = {.held = held, .keep = keep};

void q_cow_hold(bool any)
{
    /* Relaxed: who looks holds one of the locks that are held here. */
    atomic_store_explicit(&q_holder, any ? &holder : NULL, memory_order_relaxed);
}

/* Take out of the list what nobody shows any more; its length, 0: there is none. */
static size_t pick(void **addr)
{
    for (size_t i = 0; i < nr_kept; i++) {
        size_t bytes = kept[i].bytes;

        *addr = kept[i].addr;
        if (q_held(*addr, bytes))
            continue;
        kept[i] = kept[--nr_kept];
        return bytes;
    }
    return 0;
}

void q_cow_unmap_kept(void)
{
    size_t bytes;
    void *addr;

    do {
        q_lock(&q_vm_lock);
        bytes = pick(&addr);
        q_unlock(&q_vm_lock);
        if (bytes > 0)
            q_munmap(addr, bytes);
    } while (bytes > 0);
}

void q_cow_take_kept_back(const struct q_ranges *blocks)
{
    size_t to = 0;

    for (size_t i = 0; i < nr_kept; i++) {
        uintptr_t at = (uintptr_t)kept[i].addr;
        const struct q_range *r = q_ranges_find(blocks, at);

        if (r == NULL || r->start != at)
            kept[to++] = kept[i];
    }
    nr_kept = to;
}

void q_cow_hold_fork_child(void)
{
    q_cow_hold(false);
    for (size_t i = 0; i < nr_kept; i++)
        q_munmap(kept[i].addr, kept[i].bytes);
    nr_kept = 0;
}
