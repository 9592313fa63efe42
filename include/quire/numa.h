/*
 * numa.h - memory of a node one names: where several memory nodes are.
 *
 *   char *table = quire_node_alloc(1 << 30, 1);      on node 1, whoever asks
 *   quire_mempolicy_set(QUIRE_MPOL_INTERLEAVE, NULL, 0);
 *   ...                                              what this thread allocates: over all nodes
 *   quire_migrate(table, 1 << 30, 0);                the pages move, the address stays
 *   free(table);
 *
 * Without any of this a thread gets memory of the node it runs on.
 *
 * Node numbers are the kernel's, as numactl prints them; with numa_fake:N they
 * are 0 to N-1, and everything works but that pages lie where they lie. Masks
 * of nodes have the form that set_mempolicy(2) wants: bit n of the array of
 * unsigned long is node n, and maxnode says how many bits there are.
 *
 * Quire uses the nodes that have memory and that the process may use. Where
 * the process was started under a policy (numactl), that stands above all of
 * this: quire then knows one node, and refuses others with ENXIO. So do
 * numa:off, and a machine with one node.
 *
 * Where a node is full the kernel gives memory of another one, by distance,
 * rather than kill the process; that is so for every policy here.
 *
 * Threads. All functions may be called by any thread. In a signal handler that
 * interrupted malloc they fail with EAGAIN. Errors: NULL or -1, and errno
 *   EINVAL   bad mode, an empty mask, a size of 0
 *   ENXIO    a node that does not exist or that quire may not use
 *   ENOTSUP  the kernel lacks it
 *   ENOMEM   no memory, or the configured limit is reached
 *   EAGAIN   see above
 */
#ifndef QUIRE_NUMA_H
#define QUIRE_NUMA_H

#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef QUIRE_NODE_LOCAL
#define QUIRE_NODE_LOCAL (-1) /* the node of the CPU on which the caller runs */
#endif

/*
 * At least `bytes` on a node, aligned as malloc's. Free it with free();
 * realloc() may move it to where the caller's policy says. Blocks of up to
 * 32 KiB come by way of a lock for each process, unless QUIRE_NODE_LOCAL is asked for.
 */
void *quire_node_alloc(size_t bytes, int node);

/* The policy of a thread: from which nodes malloc and the page interface take memory. */
enum quire_mempolicy {
    QUIRE_MPOL_DEFAULT,   /* LOCAL; over all nodes with the option numa:interleave */
    QUIRE_MPOL_LOCAL,     /* the node of the CPU that the thread runs on */
    QUIRE_MPOL_PREFERRED, /* the first node of the mask; others when it is full */
    QUIRE_MPOL_BIND,      /* of the nodes in the mask the nearest */
    QUIRE_MPOL_INTERLEAVE,
    QUIRE_MPOL_WEIGHTED_INTERLEAVE, /* by the kernel's weights, from Linux 6.9 on */
};

/*
 * Set the calling thread's policy. Memory it holds stays where it is. The mask
 * does not count for DEFAULT and LOCAL; NULL means all nodes for BIND and the
 * interleaving ones. Blocks above 1,024 pages are interleaved page by page;
 * smaller ones, and the slabs of 64 KiB that small objects lie in, take turns. A new
 * thread begins with DEFAULT; a child of fork(2) goes on with its parent's.
 * 0, or -1.
 */
int quire_mempolicy_set(enum quire_mempolicy mode, const unsigned long *nodes,
                        unsigned long maxnode);

/* What it is. nodes, maxnode: as in get_mempolicy(2); nodes may be NULL. 0, or -1 with EINVAL where it is too short. */
int quire_mempolicy_get(enum quire_mempolicy *mode, unsigned long *nodes, unsigned long maxnode);

/*
 * Move the pages that hold [addr, addr + bytes) to a node: whole pages, so
 * neighbours of small objects go along. Only what has memory moves. When the
 * block is freed its pages go back to the node it came from. Works while other
 * threads use the memory. Returns how many pages lie on the node now, or -1;
 * errno then may also be EFAULT: not memory of this process.
 */
ssize_t quire_migrate(void *addr, size_t bytes, int node);

/* The node on which the page at addr lies, asked of the kernel; -1 and ENOENT where it has no memory yet. */
int quire_node_of(const void *addr);

/* The nodes that quire uses, into a mask that may be NULL. Returns how many. */
int quire_nodes(unsigned long *nodes, unsigned long maxnode);

/* What was taken from a node, in blocks (slabs, runs, mappings), by numastat's names; and what it holds. */
struct quire_node_stat {
    size_t numa_hit;       /* was to come from this node, and did */
    size_t numa_miss;      /* was to come from another, and came from this */
    size_t numa_foreign;   /* was to come from this node, and came from another */
    size_t interleave_hit; /* of the hits, those of an interleaving policy */
    size_t local_node;     /* came from this node, for a thread that ran there */
    size_t other_node;     /* came from this node, for a thread that ran elsewhere */
    size_t used_bytes;     /* given out, without mappings */
    size_t free_bytes;     /* in the free lists */
    size_t resident_bytes; /* of the free ones, those that still hold memory */
};

/* Fill *stat, of size bytes: sizeof(*stat), so that later versions may add to it. 0, or -1. */
int quire_node_stat(int node, struct quire_node_stat *stat, size_t size);

#ifdef __cplusplus
}
#endif

#endif
