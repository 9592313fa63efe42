/*
 * Look into another process without stopping it: what it has mapped, its memory, how it was
 * started. Everything read is checked: the process may be hostile, and the reader root.
 */
#ifndef QUIRE_TOOLS_PROCESS_H
#define QUIRE_TOOLS_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* One line of /proc/PID/maps. */
struct mapping {
    uint64_t start, end, offset;
    bool writable;
    char *path; /* "" for anonymous memory; " (deleted)" is cut off */
};

struct mappings {
    struct mapping *all;
    size_t count;
    const char *program; /* path of the program itself, one of all[].path; "" if unknown */
};

/* Read the mappings; returns 0 or an errno. A process without any has count 0. */
int process_mappings(pid_t pid, struct mappings *maps);
void mappings_free(struct mappings *maps);

/* Copy memory out of the process: all of it, or false. */
bool process_read(pid_t pid, uint64_t addr, void *buf, size_t len);

/* A value of the auxiliary vector (AT_SECURE and so on); false where it cannot be read. */
bool process_auxv(pid_t pid, uint64_t type, uint64_t *value);

/* An environment variable as the process got it when it started; false where not set. */
bool process_environ(pid_t pid, const char *name, char *value, size_t size);

/* The number it has itself as its process id: another one in a container. */
pid_t process_inner_pid(pid_t pid);

/* The short name, as ps(1) shows it; false where there is no such process. */
bool process_name(pid_t pid, char *name, size_t size);

#endif
