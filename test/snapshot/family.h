/* family.h - what the tests of quire_fork share: processes that begin anew, and a table to check. */
#ifndef FAMILY_H
#define FAMILY_H

#include <quire/fork.h>
#include <sys/types.h>

#include "steps.h"

/*
 * Begins the running case in a program of its own, by exec: the harness runs cases in children,
 * and only a process that is no child can share its heap in full. `name` is the case's.
 */
void begin_afresh(const char *name);

/* Ends the case; first checks that forks are still what they were when it began afresh. */
void end_sharing(void) __attribute__((noreturn));

/* Skips the case where forks copy page tables; the reason is printed. */
void need_sharing(void);

/* A table of small and large records all over the heap; each holds its index and a version. */
struct record {
    uint64_t index, version, check;
};
struct table {
    size_t nr, size; /* records, and bytes of each */
    struct record **at;
};

void table_make(struct table *t, size_t nr, size_t size);

/* Writes a version to one record. */
void table_set(const struct table *t, size_t i, uint64_t version);

/* How many records are not whole. *sum: of their versions. */
size_t table_check(const struct table *t, uint64_t *sum);

/* How many records are not of this version. */
size_t table_not(const struct table *t, uint64_t version);

/* quire_fork(), and the child ends when its parent does. */
pid_t child(void);

/* Ends a child as it should: 0 where ok. */
void child_end(int ok) __attribute__((noreturn));

/*
 * A child that waits until its end of the pipe closes (go[1] is the parent's), then checks that all
 * is of this version.
 */
pid_t waiting_child(const struct table *t, int go[2], uint64_t version);

/* One byte through a pipe; false where the other end is gone. */
int tell(int fd);
int hear(int fd);

#endif
