/* own.h - q_store.lock for a thread of the program's, on a stack that may lie in the heap (own.c). */
#ifndef Q_COW_OWN_H
#define Q_COW_OWN_H

#include <stdint.h>

/* Call fn with the lock held; it writes to no memory of its callers. All signals are blocked. */
uintptr_t q_own_run(uintptr_t (*fn)(uintptr_t a, uintptr_t b), uintptr_t a, uintptr_t b);

#endif
