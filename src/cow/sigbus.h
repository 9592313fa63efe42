/*
 * sigbus.h - memory whose first writes are served by the thread that writes (QUIRE_HEAP_SIGBUS).
 *
 * It is registered with a userfaultfd of its own, whose faults are signals:
 *
 *   write ---> SIGBUS ---> on_sigbus(): save the page, un-protect it ---> write again
 *
 * That saves waking a handler, and needs no privilege, but a system call that
 * writes there gets EFAULT. So only heaps that were made for it have such
 * memory, by whole pageblocks and mappings; src/slab says which
 * (q_arena_hook). All else is as for other memory: who protects, which
 * snapshots, what is saved. Protecting and un-protecting work by either
 * descriptor.
 *
 *   heap      |  main  |  SIGBUS  |  main  ...
 *   registered  q_cow.uffd, q_bus.uffd
 *
 * Memory changes from one to the other while nobody uses it. Where a snapshot
 * guards it, it is protected anew at once; while one lives that may be gone
 * back to, none becomes SIGBUS memory: going back would free it again.
 *
 * Locks: q_bus.ranges changes with q_vm_lock (for fork) and q_store.lock held.
 */
#ifndef Q_COW_SIGBUS_H
#define Q_COW_SIGBUS_H

#include "cow/range.h"
#include "cow/uffd.h"

struct q_bus {
    struct q_uffd uffd;
    int pid; /* who opened it, or was refused; 0: nobody did */
    struct q_ranges ranges;
};

extern struct q_bus q_bus;

/* Before a heap of that kind is made. False: the kernel, or the process, cannot have such. */
bool q_bus_start(void);

/* Before a cut in a child, whose parent had such heaps: they become what they were. */
void q_bus_start_again(void);

/* Register all but SIGBUS memory of [start, end) with the main descriptor. */
bool q_bus_register_rest(uintptr_t start, uintptr_t end);

/* Call fn with the locks of q_bus.ranges, as q_own_run(). */
uintptr_t q_bus_run(uintptr_t (*fn)(uintptr_t a, uintptr_t b), uintptr_t a, uintptr_t b);

/* Un-protect all SIGBUS memory, where a snapshot that was not the last may have left some protected. */
void q_bus_open(void);

/* Whether any of it is SIGBUS memory. q_store.lock held; or not. */
Q_INLINE bool q_bus_has(uintptr_t start, uintptr_t end)
{
    return q_ranges_touch(&q_bus.ranges, start, end);
}

bool q_bus_has_locked(uintptr_t start, uintptr_t end);

/* Whether the program closed the descriptor while it is the only one. */
bool q_bus_gone(void);

/*
 * For the sweeper: hold it as well, in its own table; and where the program has closed its own, so
 * that writers cannot help themselves any more, end all snapshots.
 */
void q_bus_hold(void);

void q_bus_fork_child(void);

#endif
