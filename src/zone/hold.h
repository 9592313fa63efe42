/*
 * hold.h - memory that something above this layer still needs as it is.
 *
 * A snapshot shows memory as it was, also memory that the program has freed
 * since. Writing to it is noticed (src/cow); discarding, unmapping and moving
 * it is not, so this layer asks first. The answer is no in nearly every
 * process, and then costs one load.
 *
 * Locks: `held` is asked with the zone's lock (pages) or q_vm_lock (mappings)
 * held, and every cut is made with all of them held, so an answer stays true
 * for as long as the lock is. What stands behind the hooks may take only locks
 * of its own that are never held while one of these is waited for.
 */
#ifndef Q_ZONE_HOLD_H
#define Q_ZONE_HOLD_H

#include <stdatomic.h>

#include "base/types.h"

struct q_holder {
    /* Whether any byte of [addr, addr + len) is needed: leave it where it is. */
    bool (*held)(const void *addr, size_t len);
    /* A freed mapping that is needed changes hands: the holder unmaps it later. q_vm_lock held. */
    void (*keep)(void *addr, size_t len);
};

/* NULL while nothing is held. */
extern const struct q_holder *_Atomic q_holder;

Q_INLINE bool q_any_held(void)
{
    /* Relaxed: changed only with all locks held that readers hold one of. */
    return q_unlikely(atomic_load_explicit(&q_holder, memory_order_relaxed) != NULL);
}

Q_INLINE bool q_held(const void *addr, size_t len)
{
    return q_any_held() && atomic_load_explicit(&q_holder, memory_order_relaxed)->held(addr, len);
}

#endif
