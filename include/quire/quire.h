/*
 * quire.h - quire's public interface beside the standard malloc functions.
 *
 * Linking with quire (or preloading it) replaces malloc, free and their
 * relatives for the whole process; nothing here is needed for that. Beside it
 * are page.h (memory by pages) and snapshot.h.
 *
 * All functions may be called by any thread at any time, except from a
 * signal handler where noted. None of them changes errno unless it says so.
 */
#ifndef QUIRE_QUIRE_H
#define QUIRE_QUIRE_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_VERSION_MAJOR 0
#define QUIRE_VERSION_MINOR 1
#define QUIRE_VERSION_PATCH 0

/* The version of the library in use, as "0.1.0". */
const char *quire_version(void);

/*
 * True (1) where p points to the start of a live object of quire's, 0
 * otherwise, for any pointer at all. Never complains.
 */
int quire_owns(const void *p);

/*
 * Give free memory back to the kernel until at most keep bytes of it stay
 * resident; what the calling thread holds back is included. Returns the
 * bytes given back. May take milliseconds; not for signal handlers.
 */
size_t quire_trim(size_t keep);

/*
 * Write the statistics table, as QUIRE_CONF=stats:1 prints it when the
 * program ends, to a file descriptor. Safe in signal handlers.
 */
void quire_stats_print(int fd);

/*
 * What the kernel shows of its memory in /proc, of quire's in this process, in
 * the same formats: "buddyinfo", "pagetypeinfo", "zoneinfo", "slabinfo",
 * "vmallocinfo", "numastat", "extfrag_index", "unusable_index". With
 * QUIRE_PROCFS_JSON the same as JSON. quire_procfs(3) says what is counted.
 *
 * quire_procfs() writes at most size bytes to buf, the last of them '\0', and
 * returns the length of the whole text (without '\0'), as snprintf does; buf
 * may be NULL where size is 0. quire_procfs_print() writes it to fd and
 * returns 0. Both return -1 and set errno where they fail:
 *   ENOENT    there is no such name
 *   EINVAL    a flag that does not exist, or no name
 *   ENOMEM    no room for the text
 *   EAGAIN    called in a signal handler that interrupted malloc
 *   or as of write(2)
 * quire_procfs_name() gives the names by number, from 0 on; NULL after the last.
 */
#define QUIRE_PROCFS_JSON 1u
ssize_t quire_procfs(const char *name, unsigned flags, char *buf, size_t size);
int quire_procfs_print(const char *name, unsigned flags, int fd);
const char *quire_procfs_name(unsigned index);

/* Names of C23 that older headers do not declare. */
void free_sized(void *p, size_t size);
void free_aligned_sized(void *p, size_t align, size_t size);

#ifdef __cplusplus
}
#endif

#endif
