/*
 * movable.h - runs of pages that quire may move, or drop, while nobody looks.
 *
 *   handle  ---page--->  | run of pages |        pins > 0: stays where it is
 *      ^                       |
 *      +----- private ---------+                 the head knows its handle
 *
 * A program holds a handle and pins it for as long as it uses the address.
 * Between pins compaction (compact.h) may move the run, and reclaim may drop
 * the content of a discardable one: `lost` then says so at the next pin.
 *
 * The head of such a run has a reference count of its own kind (page_ref.h), so
 * that neither free() nor quire_put_page() takes it for one of theirs, and in
 * `private` its handle's number + 1.
 *
 * With Q_MOVABLE_STRICT (always, in builds with checks) the run is accessible
 * while it is pinned and only then, so that who uses an address too long is
 * caught at once, whether or not anything was moved.
 *
 * Invariants, under q_movable_lock: page is NULL (dropped) or the head of a
 * run of nr pages whose private is the handle's number + 1; pins > 0 implies
 * page != NULL. Handles are never given back, only used again.
 *
 * Lock: q_movable_lock, outside zone->lock; nothing is allocated under it but
 * handles.
 */
#ifndef Q_ZONE_MOVABLE_H
#define Q_ZONE_MOVABLE_H

#include "zone/memmap.h"

#define Q_MOVABLE_ZERO 1u
#define Q_MOVABLE_DISCARDABLE 2u
#define Q_MOVABLE_STRICT 4u

struct q_movable {
    struct q_page *page;
    uint32_t nr, pins;
    uint32_t number;
    uint8_t flags;
    bool live, lost;
    bool used; /* pinned since reclaim last passed by */
    struct q_movable *spare;
};

enum q_pin { Q_PIN_OK, Q_PIN_NO_HANDLE, Q_PIN_NO_MEMORY, Q_PIN_WRONG };

/* A handle for a run of nr pages, not pinned; NULL: no memory. */
struct q_movable *q_movable_alloc(size_t nr, unsigned flags);

/* Pin it: its address is *at until it is unpinned as often. *lost: its content was dropped since. */
enum q_pin q_movable_pin(struct q_movable *h, void **at, bool *lost);

/* Q_PIN_WRONG: it is not pinned. */
enum q_pin q_movable_unpin(struct q_movable *h);

/* Q_PIN_WRONG: it is pinned. */
enum q_pin q_movable_free(struct q_movable *h);

/* Pages of a live handle; 0 where h is none. */
size_t q_movable_pages(const struct q_movable *h);

/* Drop discardable runs that are not pinned, least used first, until nr pages are free. Returns pages. */
size_t q_movable_shrink(size_t nr);

/* Pages that q_movable_shrink() could free now. */
size_t q_movable_droppable(void);

/*
 * For compact.c: the handle of a run that may be moved now, locked until
 * q_movable_ungrab(); q_movable_moved() tells where it is. NULL: it may not.
 */
struct q_movable *q_movable_grab(const struct q_page *page);
void q_movable_moved(struct q_movable *h, struct q_page *to);
void q_movable_ungrab(void);

/* Make a run accessible, or not, where its handle is strict. False where the kernel refuses. */
bool q_movable_open(const struct q_movable *h, struct q_page *page, bool open);

/* A number that differs whenever a handle came, went, moved or was dropped. */
size_t q_movable_changes(void);

/* Make all strict runs that are not pinned accessible, or not again. The lock is held. */
void q_movable_reach(bool open);

extern struct q_lock q_movable_lock;

#endif
