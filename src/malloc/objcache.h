/* objcache.h - complaints about objects of caches, for objcache.c and misuse.c. */
#ifndef Q_MALLOC_OBJCACHE_H
#define Q_MALLOC_OBJCACHE_H

#include "base/msg.h"
#include "slab/cache.h"

/* Append what p is that lies in memory of a cache or a heap. */
void q_describe_owned(struct q_buf *b, const void *p);

/* Say that `caller` was given object p (or found it so) for cache c; then as q_complain(). */
void q_misuse_cache(const char *caller, const struct q_cache *c, const void *p,
                    const struct q_cache_fault *fault);

/* The same for what is no cache. */
void q_misuse_no_cache(const char *caller, const void *c);

#endif
