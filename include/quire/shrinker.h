/*
 * shrinker.h - memory that the program can give up when it is short.
 *
 *   static size_t count(void *cache) { return cache_bytes(cache); }
 *   static size_t scan(void *cache, size_t bytes) { return cache_evict(cache, bytes); }
 *   ...
 *   quire_shrinker_t *s = quire_shrinker_register("thumbnails", count, scan, cache);
 *
 * Before an allocation fails with ENOMEM, at the limit (options limit, cgroup)
 * or because the system gives no more, quire asks registered shrinkers to free
 * something, each in proportion to what it has, and tries again. The thread
 * kswapd (option kswapd) asks them, too, when memory is short outside.
 *
 * The callbacks run in whatever thread needs memory, several at once, with no
 * lock of quire's held: they may free, and allocate (which then fails without
 * asking them again). They must not wait for a lock that their own program
 * holds while it allocates: try it, and return QUIRE_SHRINK_BUSY where it is
 * taken; quire then waits a little, and asks again, a few times. They are
 * not called from signal handlers that interrupted quire, nor for allocations
 * that would fail anyhow (sizes above PTRDIFF_MAX, wrong arguments).
 */
#ifndef QUIRE_SHRINKER_H
#define QUIRE_SHRINKER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quire_shrinker quire_shrinker_t;

#define QUIRE_NR_SHRINKERS 64
#define QUIRE_SHRINK_BUSY ((size_t)-1)

/*
 * count returns how many bytes scan could free now, at a guess and quickly; 0:
 * do not ask. scan frees about so many bytes and returns how many it did; 0:
 * nothing could be freed now. arg is passed to both. The name, of which
 * nothing is copied, is for people. NULL and errno: EINVAL without a
 * callback, ENOSPC where there are QUIRE_NR_SHRINKERS already.
 */
quire_shrinker_t *quire_shrinker_register(const char *name, size_t (*count)(void *arg),
                                          size_t (*scan)(void *arg, size_t bytes), void *arg);

/*
 * Its callbacks are not called any more when this returns: it waits for those
 * that run. 0, or -1 and errno: EINVAL where s is not registered, EDEADLK from
 * inside a callback. s may be NULL.
 */
int quire_shrinker_unregister(quire_shrinker_t *s);

/*
 * Ask for about so many bytes now: discardable memory (movable.h) is dropped,
 * then shrinkers are asked. Returns how many bytes that gave.
 */
size_t quire_shrink(size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
