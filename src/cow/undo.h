/*
 * undo.h - what going back needs beside saved pages; of all memory, and of one heap.
 *
 * A snapshot taken with QUIRE_SNAPSHOT_ROLLBACK protects more than it shows:
 *
 *   guarded   zones up to their frontiers, free pages too; mappings; and the
 *             arrays that describe them (slab descriptors, mem_map,
 *             pageblocks). Changes cost a first-write fault each, and are
 *             put back page by page.
 *   copy      the small, always busy rest: heaps, shared lists, zones, lists
 *             of the CPUs. Copied at the cut, put back whole.
 *   blocks    the table of mappings, compared only where it changed.
 *   page[]    the log: each guarded page that has a saved version; some twice,
 *             some that have none any more (restore.c).
 *
 *   zone   | guarded ............. | frontier at the cut ... frontier now |
 *                                    was never used: emptied, described by zeroes
 *
 * Locks of the copy are not part of it. Whoever is in the middle of malloc at
 * the cut would be put back into it, so threads must be quiet then; heaps that
 * are busy are refused. Heaps that came or went since mean threads that did.
 *
 * Of one heap of the program's, what it has at the cut is guarded, and nothing
 * else: its own book-keeping is put back by slab/arena_undo.h.
 *
 * The log is written under q_store.lock by the handler; the rest under
 * api_lock and all locks of src/zone, or that of the heap.
 */
#ifndef Q_COW_UNDO_H
#define Q_COW_UNDO_H

#include "cow/range.h"

/*
 * A log entry is a page's address with what was seen of it in the low bits:
 * 0 as long as nothing; 1 where it was found changed last time, and one more
 * for each time since that it was not.
 */
#define Q_LOG_IDLE 0xffu
#define Q_LOG_HOT 0x100u /* found changed when it might have been protected again */
#define Q_LOG_BITS 0x1ffu

struct q_arena;
struct q_arena_cut;

struct q_undo {
    struct q_ranges guarded;
    struct q_arena *heap; /* NULL: of all memory */
    uint64_t serial;      /* the heap's */
    struct q_arena_cut *cut;
    struct q_ranges blocks; /* one entry for each mapping, unjoined */
    uintptr_t *page;        /* the log */
    size_t nr_pages, room;
    uint32_t opened_at; /* epoch of the cut since which all logged pages are writable */
    char *copy;
    size_t copy_bytes;
    size_t pages_in_use, pages_carved, vm_changes;
    uint32_t nr_heaps;
    size_t movable_changes;
    unsigned nr_threads;
    uint64_t restores, put_back; /* times; pages */
};

struct q_undo *q_undo_new(void);
void q_undo_free(struct q_undo *u);

/* The log's memory, for what is guarded. False: none. */
bool q_undo_make_log(struct q_undo *u);

/* Fill u. 0; ENOMEM; EBUSY: a thread is inside malloc. All locks of src/zone held. */
int q_undo_collect(struct q_undo *u);

/* 0, or EBUSY where threads came or went since. The same locks. */
int q_undo_check(const struct q_undo *u);

/*
 * Put everything but the guarded pages back, which are back already. The same
 * locks; not q_store.lock, since what is written may be protected.
 */
void q_undo_put_back(struct q_undo *u);

/*
 * undo_heap.c: the same for one heap: room, before any lock is taken; then between q_arena_enter()
 * and q_arena_leave().
 */
bool q_undo_new_heap(struct q_undo *u);
int q_undo_collect_heap(struct q_undo *u, struct q_arena *a);

/* Enter the heap again. 0; ESRCH: it is no more; EPERM: another thread's own; ENOMEM: see arena_undo.h. */
int q_undo_enter_heap(const struct q_undo *u);

/* Whether only another thread may end it: the heap has an owner. */
bool q_undo_heap_is_others(const struct q_undo *u);

/* The heap does without, if it is of one: what was kept for it is freed, and the cut. Once is enough. */
void q_undo_leave_heap(struct q_undo *u);

/* A guarded page has its first version since the cut. q_store.lock held. */
Q_INLINE void q_undo_log(struct q_undo *u, uintptr_t page)
{
    if (u->nr_pages < u->room) /* always: half of it is enough for each page once */
        u->page[u->nr_pages++] = page;
}

#endif
