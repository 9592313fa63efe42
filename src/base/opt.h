/*
 * opt.h - options, from QUIRE_CONF="name:value,name:value".
 *
 * Read once, before the first allocation: first the default compiled in with
 * -Dconf=..., then the environment. An unknown name or a bad value gives one
 * line on stderr and is ignored. In set-user-id programs (AT_SECURE) the
 * environment is ignored entirely. Nothing changes afterwards, so readers
 * need no lock.
 */
#ifndef Q_BASE_OPT_H
#define Q_BASE_OPT_H

#include "base/types.h"

enum q_misuse { Q_MISUSE_ABORT, Q_MISUSE_REPORT };
enum q_huge { Q_HUGE_AUTO, Q_HUGE_OFF, Q_HUGE_ON };
enum q_numa { Q_NUMA_AUTO, Q_NUMA_OFF, Q_NUMA_INTERLEAVE };
enum q_fork { Q_FORK_COPY, Q_FORK_SHARED };
enum q_model { Q_MODEL_AUTO, Q_MODEL_FLAT, Q_MODEL_SPARSE };

struct q_options {
    unsigned long stats;     /* 1: print a table when the program ends */
    char stats_file[256];    /* append the table to this file instead of stderr */
    unsigned long misuse;    /* enum q_misuse */
    unsigned long huge;      /* enum q_huge */
    unsigned long decay_ms;  /* free memory stays resident at most about this long while active */
    unsigned long limit;     /* bytes the heap may hold; 0: no limit */
    unsigned long numa;      /* enum q_numa */
    unsigned long numa_fake; /* pretend this many nodes; 0: ask the kernel */
    unsigned long model;     /* enum q_model */
    unsigned long window;    /* bytes of address space to reserve; 0: by memory size */
    unsigned long spare;     /* bytes of empty slabs kept for reuse, process-wide */
    unsigned long populate;  /* 1: fault pages in ahead of use, in proportion */
    unsigned long kswapd;    /* 1: a thread gives memory back in the background */
    char cgroup[256];        /* "auto", or a directory: limits of a control group count */
    unsigned long fork;      /* enum q_fork */
    unsigned long verbose;   /* 1: say how the heap was set up */
};

extern struct q_options q_opt;

/* Read everything; call once, before anything looks at q_opt. */
void q_opt_init(void);

struct q_buf;
/* "name:value,..." as it is in force, for the statistics. */
void q_opt_print(struct q_buf *out);

#endif
