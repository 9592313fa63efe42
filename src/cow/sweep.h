/*
 * sweep.h - the cut that takes the same time whatever the heap's size
 * (QUIRE_SNAPSHOT_LAZY).
 *
 * Protecting 1 GiB in pages of 4 KiB takes tens of milliseconds. Moving its
 * page tables aside takes microseconds; then it is protected piece by piece:
 *
 *            heap                      shadow
 *   cut      [ missing ............ ]  [ all pages, nobody writes to them ]
 *   sweep    [ back ][ back ][ missing [         ][ piece: protect, move back ]
 *
 * A piece is as large as a pageblock. Who touches one that is away waits; it
 * is brought back next. What is written to a piece that is back is noticed as
 * ever. When all are back nothing is left of it: maps, registration and
 * protection are as after any other cut.
 *
 *   AWAY --claim--> MOVING --mremap--> HERE
 *
 * Whoever claims a piece brings it back: the sweeper, a thread that does this
 * and sees to the faults that holders of q_store.lock left behind (inbox.h);
 * and whoever needs the sweep to be over: fork, the next cut, release,
 * restore.
 *
 * Locks: regions and states are set up with all locks of src/zone and
 * q_store.lock held. Pieces are brought back with neither, so that nobody
 * waits for anything but the move itself. While one is away the list of
 * snapshots does not change.
 *
 * Where the kernel has no mapping left to move a piece home the sweeper copies
 * it, and snapshots are lost. So does the keeper where the sweeper was killed:
 * by a filter, maybe, that kills whoever moves memory.
 *
 * In a child that was made without fork's handlers what is away is missing.
 */
#ifndef Q_COW_SWEEP_H
#define Q_COW_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reserve room for what is moved aside. api_lock held; before the cut. */
void q_sweep_prepare(void);

/* Move the zones aside, as far as that is possible. The cut's locks held. Bytes moved. */
size_t q_sweep_cut(void);

/* After the cut's locks are released: give back what was not used, and start where anything was moved. */
void q_sweep_start(bool moved);

/* Bring everything back that is away, and wait for what others bring. */
void q_sweep_finish(void);

/* Before a cut, with nothing away: the memory is registered as any other. api_lock held. False: it cannot be. */
bool q_sweep_mend(void);

/* Whether anything is away. */
bool q_sweep_pending(void);

/* Whether the last such cut moved addr aside; *end: down to where that changes. The cut's locks held. */
bool q_sweep_moved(uintptr_t addr, uintptr_t *end);

/* Everything else of the cut is done: pieces may come back. The cut's locks held. */
void q_sweep_publish(void);

/* Whether any byte of this is away. Under a lock of the cut's. */
bool q_sweep_away(uintptr_t addr, size_t len);

/* Somebody waits for addr, which is away; and is woken when it is back. q_store.lock held. */
void q_sweep_want(uintptr_t addr);

/* The same for somebody who waits at another address: false where addr is here. q_store.lock held. */
bool q_sweep_want_elsewhere(uintptr_t addr);

/* Ring the sweeper's bell: there is something to do. */
void q_sweep_ring(void);

/* The sweeper's loop, until the keeper closes the descriptor. */
void q_sweep_loop(void);

/* In the keeper, once the sweeper is gone: bring back what is away. For a while, if that fails. */
void q_sweep_inherit(void);

/* sweep_copy.c: mappings that are held ready, so that the kernel's limit is not in the way. */
bool q_sweep_hold_spare(void);
void q_sweep_release_spare(void);

/* sweep_copy.c: memory at `at` again, of which all is missing, if mremap() has taken what was there. */
void q_sweep_close_hole(uintptr_t at, size_t len);

/* sweep_copy.c: protect what a snapshot guards of [from, to), which lies `distance` further now. */
struct q_ranges;
bool q_sweep_protect_for(const struct q_ranges *g, uintptr_t from, uintptr_t to,
                         uintptr_t distance);

/* sweep_copy.c, for the sweeper alone: fill missing pages with what lies at `from`, which goes. False: not all. */
bool q_sweep_copy(uintptr_t from, uintptr_t at, size_t len);

/* In a forked child. */
void q_sweep_forget(void);

#endif
