/*
 * stat.h - counting what is there, on demand.
 *
 * The fast paths count nothing. Numbers come from walking the slab
 * descriptors and zones when somebody asks, and from counters that the slow
 * paths keep.
 */
#ifndef Q_STAT_STAT_H
#define Q_STAT_STAT_H

#include "slab/slub.h"
#include "zone/vmalloc.h"

struct q_class_stat {
    size_t slabs, live, free; /* now; free: carved and not in use */
    uint64_t allocated;       /* objects handed to malloc, ever */
};

struct q_stat {
    struct q_class_stat cls[Q_NR_CLASSES];
    size_t slab_live_bytes, slab_free_bytes, slab_free_objs, slab_bytes;
    size_t run_bytes, runs;
    size_t mapped_bytes;     /* of the zones that were ever used */
    size_t free_blocks;      /* in the buddy lists */
    size_t dirty_bytes;      /* free and resident */
    size_t given_back_bytes; /* ever */
    size_t huge_bytes;       /* asked to be huge */
    size_t meta_bytes;
    struct q_vstat large;
};

/* Fill st. Takes zone locks briefly. */
void q_stat_read(struct q_stat *st);

/*
 * Blocks taken from a node, as the kernel's numastat counts pages: numa_hit,
 * numa_miss, numa_foreign, interleave_hit, local_node, other_node.
 */
#define Q_NR_NUMASTAT 6
void q_stat_numa(unsigned nid, size_t n[Q_NR_NUMASTAT]);

/* The table of QUIRE_CONF=stats:1. */
void q_stat_print(int fd);

/*
 * The same when the program ends, to stderr or to the file of stats_file.
 * Programs close stderr before that, so a duplicate is kept from the start.
 */
void q_stat_at_start(void);
void q_stat_at_exit(void);

/* fork: the child may print, whatever the parent was doing. */
void q_stat_fork_child(void);

#endif
