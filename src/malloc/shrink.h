/*
 * shrink.h - asking the program for memory before an allocation fails.
 *
 * Nothing here takes a lock. A shrinker's word says whether it is registered
 * and how many threads are in its callbacks:
 *
 *      31       30                        0
 *    +------+----------------------------+
 *    | LIVE |   threads in a callback     |
 *    +------+----------------------------+
 *
 * Who wants to call it adds one, if LIVE is set; who unregisters it turns LIVE
 * into one of its own, waits for the others to go, and only then makes it 0.
 */
#ifndef Q_MALLOC_SHRINK_H
#define Q_MALLOC_SHRINK_H

#include "base/types.h"

/*
 * An allocation of so many bytes failed: true where something was freed since,
 * so that it is worth trying again. *tries is 0 at first. Outside q_enter().
 */
bool q_memory_is_short(size_t bytes, unsigned *tries);

/*
 * Ask all shrinkers for about so many bytes in all, 0 meaning an eighth of what they have; but
 * none where they have less than `least` in all. *busy: some could not say.
 */
size_t q_shrink(size_t bytes, size_t least, bool *busy);

/* In a forked child, where no other thread is in a callback: theirs are no longer counted. */
void q_shrink_fork_child(void);

/* kswapd.c: start the thread, if the options say so. */
void q_kswapd_start(void);

/* kswapd.c: what kswapd does in each round, by itself; for tests, too. */
struct q_kswapd {
    size_t events;     /* allocations and frees seen by the zones so far */
    uint32_t quiet_ms; /* since when there were no more */
    bool emptied;      /* all that is free has gone since */
};
void q_kswapd_round(struct q_kswapd *k, uint32_t now_ms);

#endif
