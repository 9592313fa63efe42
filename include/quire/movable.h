/*
 * movable.h - memory that may move, or be dropped, while nobody looks.
 *
 *   quire_movable_t *h = quire_movable_alloc(size, QUIRE_MOVABLE_DISCARDABLE);
 *   ...
 *   int lost;
 *   char *p = quire_movable_pin(h, &lost);      from here it stays where it is
 *   if (lost)
 *       fill(p);                                its content was dropped meanwhile
 *   use(p);
 *   quire_movable_unpin(h);                     from here p means nothing
 *
 * A handle stands for a run of whole pages, at most those of the largest block
 * (4 MiB in pages of 4 KiB). Between pins quire_compact() may move the run, so
 * that free pages come to lie together and can be given back or serve large
 * blocks. A discardable one may lose its content where memory is short: at the
 * limit, before anything fails with ENOMEM. It costs nothing then, and the next pin gives zeroed memory and says so. Caches that
 * keep what can be made again want this.
 *
 * Threads. All functions may be called by any thread at any time; pins are
 * counted, and each may be undone by another thread. In a signal handler that
 * interrupted malloc or one of these functions, allocating and pinning fail
 * with EAGAIN, and unpinning and freeing are wrong use. A child of fork(2) has its own copies. Going back to a snapshot
 * fails with EBUSY where handles came, went or moved since it was taken.
 *
 * Wrong use (a handle that is none, one unpin too many, freeing what is pinned)
 * is answered as in page.h: a line that names it, then abort(); with
 * misuse:report, the line, and nothing else happens.
 */
#ifndef QUIRE_MOVABLE_H
#define QUIRE_MOVABLE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quire_movable quire_movable_t;

#define QUIRE_MOVABLE_ZERO 1u        /* zeroed at first; otherwise the content is undefined */
#define QUIRE_MOVABLE_DISCARDABLE 2u /* may be dropped while it is not pinned */
/*
 * Accessible while it is pinned and only then: an address that is used too
 * long faults (SIGSEGV). Two system calls for each first pin and last unpin.
 * Builds with checks do it always.
 */
#define QUIRE_MOVABLE_STRICT 4u

/*
 * A handle for bytes of memory, rounded up to whole pages, not pinned. NULL and
 * errno: EINVAL for 0 bytes, more than the largest block, or a flag that does
 * not exist; ENOMEM; EAGAIN.
 */
quire_movable_t *quire_movable_alloc(size_t bytes, unsigned flags);

/*
 * The address of its memory, valid until the handle is unpinned as often as it
 * was pinned. *lost (lost may be NULL) becomes 1 where the content was dropped
 * since the last pin, else 0. NULL and errno: ENOMEM where there is no memory
 * for what was dropped, and the handle stays as it is; EAGAIN; EINVAL after a
 * complaint.
 */
void *quire_movable_pin(quire_movable_t *h, int *lost);
void quire_movable_unpin(quire_movable_t *h);

/* Free a handle that is not pinned, and its memory. NULL does nothing. */
void quire_movable_free(quire_movable_t *h);

/* Bytes of a handle's memory: whole pages. 0, and a complaint, where h is none. */
size_t quire_movable_size(const quire_movable_t *h);

/*
 * Move runs together, in every zone, but for those that quire_migrate() moved
 * to another node. Returns how many bytes of free memory now
 * lie in pageblocks (2 MiB) that are wholly free and were not before. Takes as
 * long as copying does; other threads go on, and wait for one run at most.
 */
size_t quire_compact(void);

#ifdef __cplusplus
}
#endif

#endif
