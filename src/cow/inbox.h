/*
 * inbox.h - faults that have been read and not been served yet.
 *
 * Whoever reads from userfaultfd must come back to it soon: an mremap() of
 * protected memory waits until its event is read (sweep.c moves memory while
 * it holds q_store.lock). So a handler never waits for that lock. It puts
 * what it read into its own box, and whoever holds the lock next serves all:
 *
 *   handler 0 -> [ fault fault ] \
 *   handler 1 -> [ fault       ]  > the one that gets the lock; else, when the
 *   handler 2 -> [             ] /  holder goes, the sweeper has them ask again (q_store_unlock)
 *
 * Each box has one writer; readers hold q_store.lock.
 */
#ifndef Q_COW_INBOX_H
#define Q_COW_INBOX_H

#include <stdbool.h>
#include <stdint.h>

/* A fault at a page. False: the box is full, and somebody must wake who waits for that page, later. */
bool q_inbox_post(unsigned box, uintptr_t page, bool write);

/* Whether there is anything in any box. */
bool q_inbox_any(void);

/* Take one out; false: none. q_store.lock held. */
bool q_inbox_next(uintptr_t *page, bool *write);

/* In a forked child. */
void q_inbox_reset(void);

#endif
