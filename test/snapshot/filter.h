/* filter.h - system calls that a sandbox forbids: filters of seccomp(2), for the calling process. */
#ifndef QUIRE_TEST_SNAPSHOT_FILTER_H
#define QUIRE_TEST_SNAPSHOT_FILTER_H

#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * From now on, in all threads, system call nr is answered by `action`
 * (SECCOMP_RET_*); where `which` is not 0, only where that argument (from 1)
 * is this value. False: no filters here.
 */
bool filter_call(unsigned nr, unsigned which, uint32_t value, uint32_t action);

#endif
