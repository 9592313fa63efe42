/*
 * limit.h - what counts against the configured limit, and what is done at it.
 *
 *   pages in use   given out by zones, special zones and as mappings
 *   resting        free, but resident: counts as soon as there is no room for it
 *
 * Every page is charged before it is given out and uncharged when it is free.
 * The sum never exceeds the limit, not for a moment. No locks: the sum is one
 * atomic word, everything else a hint.
 */
#ifndef Q_ZONE_LIMIT_H
#define Q_ZONE_LIMIT_H

#include <stdatomic.h>

#include "base/opt.h"

/* Pages given out now, over all zones and as own mappings. */
extern _Atomic size_t q_pages_in_use;

/* Of these, pages of slabs that hold objects: what is given out but not carved yet is not touched. */
extern _Atomic size_t q_pages_carved;

/* So many more are given out, or not any more; false, and nothing changed, where the limit forbids it. */
bool q_charge(size_t pages);
void q_uncharge(size_t pages);

/* The same for memory that going back to a snapshot leaves as it is; counted in the sum, too. */
extern _Atomic size_t q_pages_outside;
bool q_charge_outside(size_t pages);
void q_uncharge_outside(size_t pages);

/*
 * Before giving up on nr pages: what rests in the mapping cache and the special zones counts
 * against limits on address space and memory, what waits on other CPUs' lists could merge, and
 * what is discardable is dropped. True where there was something. No lock from q_movable_lock on
 * is held.
 */
bool q_last_resort(size_t nr);

/*
 * After an allocation: what is free and still resident counts, too. Gives
 * back as much of it as is too much under the limit, where there is one. No
 * lock from q_movable_lock on is held.
 */
void q_keep_below_limit(void);
Q_INLINE void q_keep_to_limit(void)
{
    if (q_unlikely(q_opt.limit != 0))
        q_keep_below_limit();
}

#endif
