/*
 * uffd.h - userfaultfd, by raw system calls.
 *
 * One descriptor for the process, opened when the first snapshot is taken.
 * The kernel's header may be older than the kernel, so what is needed of it
 * stands here. Results are 0 or a negative errno.
 */
#ifndef Q_COW_UFFD_H
#define Q_COW_UFFD_H

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "base/sys.h"

#define Q_UFFD_CONTINUE_WP 2ull            /* Linux 6.4: map it write-protected */
#define Q_UFFD_MINOR_SHMEM (1ull << 10)    /* Linux 5.14 */
#define Q_UFFD_WP_SHMEM (1ull << 12)       /* Linux 5.19 */
#define Q_UFFD_WP_UNPOPULATED (1ull << 13) /* Linux 6.4: also pages that were never touched */

struct q_uffd {
    int fd;             /* -1: none */
    uint64_t features;  /* what the kernel has */
    const char *refuse; /* why there is none: a sentence for people */
};

/* Open it, privileged device first. False: u->refuse says why. */
bool q_uffd_open(struct q_uffd *u);
/* The same; for UFFD_FEATURE_SIGBUS one that needs no privilege; with all features of `need`, and those of `like` that there are. */
bool q_uffd_open_for(struct q_uffd *u, uint64_t need, uint64_t like);
void q_uffd_close(struct q_uffd *u);

/* Whether the number is a userfaultfd still: the program may have closed it, and use it for something else. */
bool q_uffd_ours(const struct q_uffd *u);

/* Whether reading waits for a message, for all who have it. poll(2) waits only where that does not. */
void q_uffd_set_blocking(int fd, bool on);

/* mode: UFFDIO_REGISTER_MODE_* */
long q_uffd_register(const struct q_uffd *u, uintptr_t start, size_t len, uint64_t mode);

/* Protect, or un-protect and wake who waits. */
long q_uffd_protect(const struct q_uffd *u, uintptr_t start, size_t len, bool on);

/*
 * Un-protect whatever of a range can be, and wake who waits in it: the kernel
 * gives up at the first piece that is not registered (a page that the program
 * mapped over, say) without waking anybody.
 */
void q_uffd_open_up(const struct q_uffd *u, uintptr_t start, size_t len);

/* Fill a missing page from src, or with zeroes where src is NULL, and wake who waits. */
long q_uffd_fill(const struct q_uffd *u, uintptr_t at, const void *src);

/* Nothing in the range faults here any more; who waits goes on. */
long q_uffd_unregister(const struct q_uffd *u, uintptr_t start, size_t len);

/*
 * Map pages of a file that are in memory, up to the first that is not or is
 * mapped already, and wake who waits. Bytes; -EFAULT: the file has a hole
 * there; -EEXIST: it is mapped.
 */
long q_uffd_continue(const struct q_uffd *u, uintptr_t at, size_t len, bool protect);

/* Wake who waits for a page without filling it; what it does then is its own affair. */
long q_uffd_wake(const struct q_uffd *u, uintptr_t at, size_t len);

/* Wake everybody who waits for any page. */
void q_uffd_wake_all(const struct q_uffd *u);

#endif
