/*
 * fork.h - child processes that share the heap until one side writes.
 *
 *   QUIRE_CONF=fork:shared ./program
 *
 *   pid_t pid = quire_fork();         well under a millisecond, whatever the heap's size
 *   if (pid == 0) {
 *       ... the child: everything is at the same addresses; it may read, write,
 *           malloc, free, fork, exec, exit ...
 *   }
 *
 * With the option fork:shared a process keeps its heap in a file in memory
 * (memfd_create(2)). A child maps it private; the parent, before it writes to
 * a page the first time after a fork, has the kernel copy it for each child
 * that shares it still. So a fork copies no page tables of the heap, and a
 * child's own memory is what one of the two has written.
 *
 * fork(2) works the same way in such a process; without /proc it waits until
 * the child runs. Without the option, and where the kernel refuses what
 * it takes, quire_fork() is fork(2).
 *
 * What is shared so: blocks of up to 4 MiB. Larger ones have mappings of
 * their own, which the kernel is asked to put in huge pages (but with
 * huge:off): their page tables are copied, 2 MiB by 2 MiB. In such a process
 * snapshots (quire_snapshot_take) are made by a holder process.
 *
 * Rules. Memory protection that the program itself sets on malloc's memory
 * (mprotect) is lost at a fork. Memory that the kernel or a device writes
 * through pages it pinned before (io_uring's fixed buffers, O_DIRECT reads in
 * flight) may show in a child. A child made without fork handlers (_Fork,
 * clone) of a process that has not forked otherwise has no heap: touching it
 * ends it by SIGSEGV. While a child shares the heap, freed memory is not given
 * back to the kernel. vfork, posix_spawn and system are not concerned.
 */
#ifndef QUIRE_FORK_H
#define QUIRE_FORK_H

#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * As fork(2): 0 in the child, its pid in the parent, or -1 with errno as of
 * fork(2), or EDEADLK: the calling thread's stack lies in the heap that would
 * be shared. Any thread may call it; not from a signal handler.
 */
pid_t quire_fork(void);

enum quire_fork_method {
    QUIRE_FORK_COPY = 1,   /* the kernel's fork: page tables are copied */
    QUIRE_FORK_SHARED = 2, /* constant time, by a file in memory */
};

struct quire_fork_stat {
    int method;          /* enum quire_fork_method: what the next fork of this process will be */
    int sharing;         /* 1: a child shares the heap now */
    const char *why_not; /* why not QUIRE_FORK_SHARED; NULL where it is */
    uint64_t forks;  /* by this process, and before it was made, since fork:shared is in force */
    uint64_t faults; /* first touches after a fork that had to be served */
    uint64_t broken_bytes;     /* memory that was made private in children before a write here */
    uint64_t longest_stall_ns; /* longest time it took to serve one of them */
};

/* Fill *stat. 0. */
int quire_fork_stat(struct quire_fork_stat *stat);

#ifdef __cplusplus
}
#endif

#endif
