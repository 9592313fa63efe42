/*
 * slab.h - named caches of objects of one type, and pools with a reserve.
 *
 *   struct quire_cache *conns = quire_cache_create("conn", sizeof(struct conn), 0,
 *                                                  QUIRE_CACHE_HWALIGN, conn_init);
 *   struct conn *c = quire_cache_alloc(conns);
 *   ...
 *   quire_cache_free(conns, c);
 *   quire_cache_destroy(conns);            says what was not freed
 *
 * What the kernel's kmem_cache is there. Objects of a cache lie together, in
 * slabs of 64 KiB to 4 MiB that hold nothing else. Nothing of quire's is ever
 * written into a free object (but see QUIRE_CACHE_POISON), so what the
 * constructor made, or the program left behind, is still there when the object
 * is handed out again.
 *
 * Objects are not malloc's: free(), realloc() and malloc_usable_size() refuse
 * them. They count against the same limit and are part of snapshots.
 *
 * Threads. All functions may be called by any thread at any time, but for
 * quire_cache_destroy(), which is the last thing done with a cache. An object
 * may be freed by another thread than allocated it. Each thread keeps up to
 * 16 KiB of free objects of each cache (one, where they are larger), which go
 * back when it ends. Not for signal handlers: one that interrupted malloc or
 * one of these functions gets EAGAIN from what allocates. A child of fork(2)
 * has its own copy of everything.
 *
 * Wrong use (a second free, an address in the middle of an object, an object
 * of another cache or none at all, a cache that was destroyed) is answered by
 * one line that names the function, the cache and the object, then abort();
 * with misuse:report, the line, and nothing else happens. Two frees of one
 * object by two threads at the same instant may both succeed.
 */
#ifndef QUIRE_SLAB_H
#define QUIRE_SLAB_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct quire_cache;

/* Names have at most so many characters, all printable, no blank, quote or backslash. */
#define QUIRE_CACHE_NAME_MAX 31

/* The sum of any of these. */
#define QUIRE_CACHE_HWALIGN 1u  /* no object shares a cache line with another in part */
#define QUIRE_CACHE_POISON 2u   /* notice writes to free objects, at the next alloc */
#define QUIRE_CACHE_RED_ZONE 4u /* notice writes just before or behind an object, at free */
#define QUIRE_CACHE_TYPESAFE 8u /* see below */

/*
 * Make a cache of objects of size bytes (1 to the largest block, 4 MiB with
 * pages of 4 KiB) at multiples of align (a power of two up to 64 KiB; 0: what
 * a type of that size may need, at most 16).
 *
 * ctor, if any, is called once for each object, when its place in a slab is
 * first used: not for each quire_cache_alloc(). So objects must be freed in
 * the state that it left. It runs in whatever thread allocates, without locks,
 * and may allocate; it must return.
 *
 * POISON and RED_ZONE are for finding bugs: each object costs more, and each
 * call takes a lock. POISON cannot be had with a constructor or TYPESAFE.
 *
 * TYPESAFE (the kernel's SLAB_TYPESAFE_BY_RCU, without RCU): memory of the
 * cache stays memory of the cache, and a free object keeps its content until
 * somebody who allocated it writes. So a thread without any lock may follow a
 * pointer to an object that is freed meanwhile, and finds an object of the
 * type: the same, or another one. It must then make sure, by a key or a
 * version in the object. Slabs are given back by quire_cache_shrink() alone,
 * which is for moments when no such reader is at work, and destroy.
 *
 * NULL, and errno:
 *   EINVAL   a bad name, size, alignment or flag, or flags that exclude each other
 *   ENOSPC   2048 caches exist
 *   ENOMEM   no memory
 *   EAGAIN   called in a signal handler that interrupted malloc
 */
struct quire_cache *quire_cache_create(const char *name, size_t size, size_t align, unsigned flags,
                                       void (*ctor)(void *object));

/* An object; its content is as described above, undefined at first. NULL: ENOMEM, EAGAIN. */
void *quire_cache_alloc(struct quire_cache *cache);

/* The same, all zero. EINVAL where the cache has a constructor. */
void *quire_cache_zalloc(struct quire_cache *cache);

/* Give an object back. NULL does nothing. errno is kept. */
void quire_cache_free(struct quire_cache *cache, void *object);

/*
 * nr objects into objects[]: all of them, and 1 is returned, or none, and 0
 * with errno as above.
 */
int quire_cache_alloc_bulk(struct quire_cache *cache, size_t nr, void **objects);

/* Give nr objects back; entries that are NULL are passed over. */
void quire_cache_free_bulk(struct quire_cache *cache, size_t nr, void **objects);

/*
 * Give the slabs that are empty back to the page allocator, which may keep
 * them (see quire_trim()), with what the calling thread keeps. Returns bytes.
 */
size_t quire_cache_shrink(struct quire_cache *cache);

/*
 * Destroy a cache all of whose objects are free. 0; or -1 with EBUSY, where
 * some are not: then their number and the addresses of the first 16 are
 * written to standard error, and the cache lives on. NULL does nothing.
 */
int quire_cache_destroy(struct quire_cache *cache);

/* 1 where object is the address of a live object of the cache; else 0, for any address at all. */
int quire_cache_owns(const struct quire_cache *cache, const void *object);

/* The size asked for, and the name. */
size_t quire_cache_size(const struct quire_cache *cache);
const char *quire_cache_name(const struct quire_cache *cache);

struct quire_cache_stat {
    size_t live;     /* objects in the program's hands */
    size_t cached;   /* free objects that threads keep */
    size_t slabs;    /* slabs there are, */
    size_t empty;    /* of them without an object in use or kept */
    size_t stride;   /* bytes from one object to the next */
    size_t per_slab; /* objects in a slab */
    size_t bytes;    /* of all slabs */
};

/* What there is. Other threads may be at work, so live and cached may be a few off. */
void quire_cache_stat(struct quire_cache *cache, struct quire_cache_stat *st);

#ifdef __cplusplus
}
#endif

#endif
