/*
 * branch.h - a snapshot as memory to write to: as often as one likes, each for itself.
 *
 *   quire_snapshot_t *s = quire_snapshot_take(NULL, 0);
 *   quire_branch_t *a = quire_branch(s), *b = quire_branch(s);
 *
 *   struct game *ga = quire_branch_ptr(a, game);     the game as it was, to be changed at will;
 *   struct game *gb = quire_branch_ptr(b, game);     neither b, nor the heap, nor s see it
 *
 * A branch is the whole snapshot at a constant distance from the heap. A page
 * of it comes, as a copy, when it is first touched, and belongs to the branch
 * from then on. Pointers inside it still point into the heap: add the
 * distance to follow them. It is memory, not a heap: nothing in it can be
 * freed or resized.
 *
 * Branches and their snapshot are released in any order: a snapshot that is
 * released first stays until its last branch has gone, for them alone.
 *
 * Threads. All functions may be called by any thread, but none from a signal
 * handler. Whoever releases a branch must know that nobody uses it still. A
 * child of fork(2) does not have its parent's branches: functions fail with
 * ESTALE, and touching one kills; quire_branch_release() frees the handle.
 */
#ifndef QUIRE_BRANCH_H
#define QUIRE_BRANCH_H

#include <stddef.h>

#include "quire/snapshot.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quire_branch quire_branch_t;

/*
 * Make a branch of a snapshot, a loaded image included. NULL and errno:
 *   EINVAL    not a snapshot
 *   ENOTSUP   there is no userfaultfd
 *   ENOMEM    not enough address space
 *   ENOBUFS, ESTALE, EIO   as of quire_snapshot_read()
 */
quire_branch_t *quire_branch(quire_snapshot_t *snap);

/* What to add to an address of the heap. Constant as long as the branch lives. */
ptrdiff_t quire_branch_distance(const quire_branch_t *branch);

/* Where the branch has what was at p; NULL and EFAULT where p was not in the heap, or ESTALE. */
void *quire_branch_ptr(const quire_branch_t *branch, const void *p);

/* Bytes of pages that the branch holds by now. */
size_t quire_branch_size(const quire_branch_t *branch);

/*
 * 0, or why pages that were not touched before are lost, as of
 * quire_snapshot_read(): touching one of them raises SIGSEGV. What was
 * touched stays as it is.
 */
int quire_branch_error(const quire_branch_t *branch);

/* Forget it, and what was written to it. 0, or -1 and EINVAL where it can be told that it is none. */
int quire_branch_release(quire_branch_t *branch);

#ifdef __cplusplus
}
#endif

#endif
