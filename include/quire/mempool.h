/*
 * mempool.h - elements that are there when memory is not: the kernel's mempool.
 *
 *   struct quire_mempool *pool = quire_mempool_create_cache(16, requests);
 *   struct request *r = quire_mempool_alloc(pool, 0);       never NULL: waits if it must
 *   ...
 *   quire_mempool_free(pool, r);
 *
 * For work that must go on when memory is used up, because it is what frees
 * memory: writing a log, answering a request that is under way. A pool gets
 * its elements from an allocator of the program's choice and keeps min_nr of
 * them in reserve.
 *
 *   alloc   from the allocator; where that has none, from the reserve; where
 *           that is empty, waits until somebody frees (or gives up, NOWAIT)
 *   free    into the reserve while that holds less than min_nr, else to the
 *           allocator
 *
 * So at any time the reserve and the elements in use are min_nr or more: as
 * long as no more than min_nr are in use at once, alloc succeeds without
 * waiting, whatever the allocator says. If each user needs one element at a
 * time and frees it without getting another, one element is enough for
 * progress. Who needs two at a time must get them from two pools.
 *
 * Threads. All functions may be called by any thread at any time, but for
 * quire_mempool_resize(), of which one may run at a time, and
 * quire_mempool_destroy(), which is the last thing done with a pool. None
 * takes a lock, so a child of fork(2) may go on with its copy. In signal
 * handlers they are as safe as the allocator is.
 *
 * Wrong use (an element that is in the reserve, or is none of the pool's cache
 * or size; a free without an alloc; a pool that was destroyed) is answered by
 * one line that names the function, and abort(); with misuse:report, the
 * line. Elements of the allocator's own are the allocator's to check.
 */
#ifndef QUIRE_MEMPOOL_H
#define QUIRE_MEMPOOL_H

#include <stddef.h>

#include <quire/slab.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quire_mempool;

/* Flags of quire_mempool_alloc(). */
#define QUIRE_MEMPOOL_NOWAIT 1u

/*
 * A pool of min_nr elements (1 to 1,000,000) that alloc(data) makes and
 * release(element, data) takes back. alloc may return NULL, and should do so soon
 * rather than wait. Both are called without locks, by whatever thread, and may
 * call anything.
 *
 * The reserve is filled at once. NULL, and errno:
 *   EINVAL   min_nr, or a function missing
 *   ENOMEM   no memory for the pool, or alloc() returned NULL
 *   EAGAIN   called in a signal handler that interrupted malloc
 */
struct quire_mempool *quire_mempool_create(size_t min_nr, void *(*alloc)(void *data),
                                           void (*release)(void *element, void *data), void *data);

/* The same with objects of a cache, which must outlive the pool. */
struct quire_mempool *quire_mempool_create_cache(size_t min_nr, struct quire_cache *cache);

/* The same with blocks of malloc's, of `size` bytes. */
struct quire_mempool *quire_mempool_create_malloc(size_t min_nr, size_t size);

/*
 * An element. With QUIRE_MEMPOOL_NOWAIT, NULL and ENOMEM where there is none;
 * without, it waits, and asks the allocator again ten times a second.
 */
void *quire_mempool_alloc(struct quire_mempool *pool, unsigned flags);

/* Give an element back. NULL does nothing. errno is kept. */
void quire_mempool_free(struct quire_mempool *pool, void *element);

/*
 * Change min_nr, and fill or empty the reserve to match. 0; or -1 with EINVAL,
 * ENOMEM (then it is as it was, but what could be had stays in the reserve
 * until it is needed) or EAGAIN.
 */
int quire_mempool_resize(struct quire_mempool *pool, size_t min_nr);

/*
 * Free the reserve and the pool. 0; or -1 with EBUSY where elements are in use,
 * and the pool lives on. NULL does nothing.
 */
int quire_mempool_destroy(struct quire_mempool *pool);

struct quire_mempool_stat {
    size_t min_nr;
    size_t reserve;      /* elements in it now */
    size_t in_use;       /* allocated and not freed */
    size_t from_reserve; /* how often the allocator had none, so far */
    size_t waits;        /* how often that was not enough */
};

/* Numbers for people: other threads may be at work. */
void quire_mempool_stat(const struct quire_mempool *pool, struct quire_mempool_stat *st);

#ifdef __cplusplus
}
#endif

#endif
