/* snapshot.h - what the parts of the benchmark of snapshots share. */
#ifndef BENCH_SNAPSHOT_H
#define BENCH_SNAPSHOT_H

#include <stddef.h>

#include "quire/snapshot.h"

#define BLOCK 4000u

/* The heap: nr blocks of BLOCK bytes. */
extern char **block;
extern size_t nr;

double now_us(void);
void say(const char *what, double value);
quire_snapshot_t *take(void);

/* Microseconds for each page of a write to blocks [0, n) times stride. */
double write_pages(size_t n, size_t stride);

/* saving.c: a writer's latency while the heap is saved, and while a child of fork saves it. */
void while_saving(void);

/* resume.c: increments; an image mapped back, in a process of its own. */
void load_and_resume(void);
int map_back(const char *fd);

#endif
