/*
 * heap.h - heaps of one's own: with a limit, a place, and an end that frees all.
 *
 *   struct quire_heap *h = quire_heap_create(&(struct quire_heap_attr){.limit = 1 << 20});
 *   char *text = quire_heap_alloc(h, 100);         NULL once the heap holds 1 MiB
 *   ...
 *   quire_heap_destroy(h);                         text, and all the rest
 *
 * For what belongs together and ends together: a request, a document, a
 * tenant, a plug-in. Destroying a heap takes time by the 64 KiB of memory that
 * it holds, not by its objects, which are not looked at.
 *
 * Blocks up to 32 KiB are objects in chunks of 64 KiB, which hold objects of
 * many sizes; blocks up to the largest block of the page interface (4 MiB with
 * pages of 4 KiB) are runs of pages; larger ones have mappings of their own.
 * They are aligned to 16 bytes. They are not malloc's: free(), realloc() and
 * malloc_usable_size() refuse them. Those that are not in a special zone are
 * part of snapshots, and gone back with, as the rest of the memory is; a heap
 * can also go back by itself (quire/snapshot.h).
 *
 * Threads. A heap may be used by any thread at any time; one lock for each
 * call guards it. A heap with QUIRE_HEAP_SINGLE has no lock, and may be used
 * by one thread at a time, its owner: at first the one that made it,
 * afterwards the one that called quire_heap_own() last. In a signal handler
 * that interrupted malloc or one of these functions, those that allocate fail
 * with EAGAIN; the others must not be called. A child of fork(2) has its own
 * copy of every heap.
 *
 * Wrong use (a second free, an address in the middle of a block, a block of
 * another heap or malloc's, a heap that was destroyed, or is another thread's)
 * is answered by one line that names the function, the heap and the block, then
 * abort(); with misuse:report, the line, and nothing else happens.
 */
#ifndef QUIRE_HEAP_H
#define QUIRE_HEAP_H

#include <stddef.h>
#include <sys/types.h>

#include <quire/page.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quire_heap;

/* Flags of a heap; the sum of any of these. */
#define QUIRE_HEAP_SINGLE 1u /* one thread at a time, without a lock */
#define QUIRE_HEAP_NODE 2u   /* memory of `node`; of another one where that has none left */
#define QUIRE_HEAP_BIND 4u   /* with NODE: of no other */

/*
 * Or: a thread that writes to a page of it for the first time after a snapshot saves the page itself,
 * in a handler of SIGBUS, instead of waiting for another thread: about half the time, and any user
 * may (userfaultfd(2) without privilege, Linux 6.4). Such a heap's memory comes in pieces of 2 MiB.
 * In return, while a snapshot is alive:
 *  - System calls that write into the heap (read, recv, getrandom, clock_gettime) may fail with
 *    EFAULT, and a datagram is lost, unless quire_snapshot_touch() was called for the memory since
 *    the newest snapshot was taken.
 *  - Threads that write there do not block SIGBUS, and their stacks do not lie there; where they do,
 *    the kernel ends the process. 12 KiB of stack must be left, in signal handlers on a stack of
 *    their own, too.
 *  - The handler is installed when the first such heap is made. What was there before gets all
 *    signals that are not quire's, as it was installed (mask, SA_SIGINFO, SA_ONSTACK,
 *    SA_RESETHAND). A program that installs one afterwards keeps the old action, and calls it
 *    for addresses it does not know.
 * quire's own functions may be called as ever. Where the kernel refuses (also with the sparse memory
 * model or fork:shared) the heap is one without the flag; quire_heap_stat() tells.
 */
#define QUIRE_HEAP_SIGBUS 8u

/* How a heap is to be. All zero: for any thread, without a limit, anywhere. */
struct quire_heap_attr {
    size_t limit; /* bytes of memory the heap may hold; 0: any number */
    unsigned flags;
    int node;        /* with QUIRE_HEAP_NODE, as numactl numbers them */
    quire_gfp_t gfp; /* QUIRE_GFP_DMA32 or QUIRE_GFP_DMA: memory of that zone; or 0 */
};

/*
 * Make a heap; attr may be NULL. Without QUIRE_HEAP_NODE its memory comes from
 * where the policy of the calling thread says now, or if that has set none,
 * from where the policy of whoever allocates says.
 *
 * The limit counts whole chunks, runs and mappings; what the heap knows of
 * them (about 2 %) is malloc's. NULL, and errno:
 *   EINVAL   a flag or zone that does not exist or does not go with another
 *   ENXIO    no such node
 *   ENOMEM   no memory
 *   EAGAIN   called in a signal handler that interrupted malloc
 */
struct quire_heap *quire_heap_create(const struct quire_heap_attr *attr);

/* Free everything in the heap, and the heap. NULL does nothing. */
void quire_heap_destroy(struct quire_heap *heap);

/* Free everything in the heap, which is then as new. */
void quire_heap_reset(struct quire_heap *heap);

/* SINGLE: the calling thread is the owner from now on. No other may be using the heap. */
void quire_heap_own(struct quire_heap *heap);

/*
 * As malloc(3), calloc(3), realloc(3), aligned_alloc(3): NULL, and ENOMEM,
 * where there is no memory or the limit is reached; EINVAL where align is no
 * power of two; EAGAIN. A size of 0 gives a block of its own. realloc of NULL
 * allocates; to 0 bytes, it frees and returns NULL. Where it fails the block
 * stays as it is.
 */
void *quire_heap_alloc(struct quire_heap *heap, size_t size);
void *quire_heap_calloc(struct quire_heap *heap, size_t nr, size_t size);
void *quire_heap_realloc(struct quire_heap *heap, void *block, size_t size);
void *quire_heap_aligned(struct quire_heap *heap, size_t align, size_t size);

/* A copy of a string, with its end. */
char *quire_heap_strdup(struct quire_heap *heap, const char *text);

/* Free a block of the heap. NULL does nothing. errno is kept. */
void quire_heap_free(struct quire_heap *heap, void *block);

/* Bytes that may be used at a live block of the heap; 0, with a complaint, where it is none. */
size_t quire_heap_usable_size(struct quire_heap *heap, const void *block);

/* The heap whose live block begins at this address; NULL for any other. Its heap must stay meanwhile. */
struct quire_heap *quire_heap_of(const void *block);

/*
 * Move all that the heap holds to a node, and take what it needs from there
 * from now on; see quire_migrate() in quire/numa.h. How many pages lie on the
 * node now, or -1:
 *   ENXIO    no such node
 *   EINVAL   a heap in a special zone
 *   or as of move_pages(2); then a part has moved
 */
ssize_t quire_heap_migrate(struct quire_heap *heap, int node);

struct quire_heap_stat {
    size_t live;       /* blocks */
    size_t live_bytes; /* usable bytes of them */
    size_t held;       /* bytes of memory the heap holds, */
    size_t peak;       /* at most so far, */
    size_t limit;      /* and at most in any case; 0: no limit */
    size_t allocs;     /* blocks ever given */
    size_t failures;   /* times that there was no more memory, or too much */
    int sigbus;        /* QUIRE_HEAP_SIGBUS is in force */
};
void quire_heap_stat(struct quire_heap *heap, struct quire_heap_stat *st);

#ifdef __cplusplus
}
#endif

#endif
