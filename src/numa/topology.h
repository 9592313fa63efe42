/*
 * topology.h - which CPUs and memory nodes there are, and where we run.
 *
 * Everything comes from sysfs and raw system calls; libnuma is not needed.
 * Nodes that hold memory we may use get dense numbers 0..q_nr_nodes-1 here
 * ("nid"); the kernel's own numbers, which may have gaps, are kept beside
 * them. CPUs of nodes without memory belong to the nearest node that has
 * some. Nodes without CPUs are nobody's local node and therefore serve only
 * as fallback.
 *
 * Fixed after q_topology_init(), so readers need no lock.
 */
#ifndef Q_NUMA_TOPOLOGY_H
#define Q_NUMA_TOPOLOGY_H

#include "base/types.h"

struct q_topology {
    unsigned nr_cpus;                           /* possible CPUs: the highest number plus one */
    unsigned nr_nodes;                          /* nodes with memory that we may use, at least 1 */
    bool bind;                                  /* memory is bound to its node with mbind */
    uint16_t kernel_id[Q_MAX_NODES];            /* nid -> the kernel's number */
    uint8_t *cpu_nid;                           /* CPU -> nid; NULL while there is one node */
    uint8_t distance[Q_MAX_NODES][Q_MAX_NODES]; /* 10 is local, as in ACPI's SLIT */
};

extern struct q_topology q_topology;

/* Read the machine. scratch gives memory for the CPU map (one byte per CPU). */
void q_topology_init(void *(*scratch)(size_t bytes));

/* The CPU this thread runs on right now: a hint, stale as soon as it is read. */
unsigned q_this_cpu(void);

/* The node of that CPU. */
unsigned q_this_nid(void);

/*
 * Prefer node nid for the pages of [addr, addr + len). Preferred, not bound:
 * when the node is full the kernel may go elsewhere instead of killing us.
 * Returns 0 or a negative errno; failing is harmless.
 */
long q_node_bind(void *addr, size_t len, unsigned nid);

/* A node by the kernel's number, -1 for this CPU's; q_topology.nr_nodes where we know none such. */
unsigned q_find_node(int kernel_id);

/* The kernel's number of the node that a page lies on now, or a negative errno (ENOENT: no memory yet). */
int q_kernel_node_at(const void *addr);

/* The same as our number; -1 where it is none of ours, or not known. */
int q_node_at(const void *addr);

/*
 * Move those pages of [addr, addr + len) that have memory to node nid; both
 * are multiples of the page size. How many lie there now, or a negative errno.
 */
long q_node_move(void *addr, size_t len, unsigned nid);

/* mbind() with a mode of the kernel's for the nodes in nids. 0 or a negative errno. */
long q_nodes_bind(void *addr, size_t len, unsigned mode, uint64_t nids);

#endif
