/*
 * watch: what a program and all its descendants hold, over time.
 *
 * Looking costs the program something (the kernel walks its page tables meanwhile), so a watched
 * run is never a timed one.
 */
#ifndef BENCH_WATCH_H
#define BENCH_WATCH_H

#include <sys/resource.h>
#include <sys/types.h>

/* wait for the child like wait4(), looking at it again and again; returns its status */
int watch_until_end(pid_t child, struct rusage *usage);

/* what was seen, as the rest of a JSON object: ", \"watch\": {...}" */
void watch_report(int fd);

#endif
