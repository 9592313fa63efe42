/*
 * meta.c - memory for permanent structures, cut from chunks that are never freed.
 *
 * What describes one node's memory comes from a pool on that node; while there
 * is one node, everything comes from the common pool. q_mem_lock guards them.
 */
#include "numa/topology.h"
#include "zone/memmap.h"

#define META_CHUNK ((size_t)1 << 18)

/* Where metadata is cut from: without regard to nodes, and for each node. */
struct pool {
    char *at;
    size_t left;
};
static struct pool common_pool, node_pool[Q_MAX_NODES];

/* More for a pool; nid: Q_MAX_NODES for the common one. q_mem_lock held. */
static void extend(struct pool *pool, size_t bytes, unsigned nid)
{
    size_t chunk = q_align_up(bytes, META_CHUNK);
    char *fresh = q_mmap(NULL, chunk, PROT_READ | PROT_WRITE, MAP_NORESERVE);

    if (fresh == NULL)
        return;
    if (nid < Q_MAX_NODES)
        q_node_bind(fresh, chunk, nid);
    /* A neighbour of the last chunk continues it. */
    if (pool->at == NULL || fresh != pool->at + pool->left) {
        pool->left = 0;
        /* Compiler only, here and below: `left` is never too much, for a child of fork. */
        atomic_signal_fence(memory_order_seq_cst);
        pool->at = fresh;
        atomic_signal_fence(memory_order_seq_cst);
    }
    pool->left += chunk;
}

static void *take(struct pool *pool, size_t bytes, unsigned nid)
{
    void *p = NULL;

    bytes = q_align_up(bytes, 2 * Q_CACHELINE);
    q_lock(&q_mem_lock);
    if (bytes > pool->left)
        extend(pool, bytes, nid);
    if (bytes <= pool->left) {
        p = pool->at;
        pool->left -= bytes;
        atomic_signal_fence(memory_order_seq_cst);
        pool->at += bytes;
        atomic_fetch_add_explicit(&q_mem.meta_bytes, bytes, memory_order_relaxed);
    }
    q_unlock(&q_mem_lock);
    return p;
}

void *q_meta_alloc(size_t bytes)
{
    return take(&common_pool, bytes, Q_MAX_NODES);
}

void *q_meta_alloc_node(size_t bytes, unsigned nid)
{
    return q_topology.bind ? take(&node_pool[nid], bytes, nid) : q_meta_alloc(bytes);
}
