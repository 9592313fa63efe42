/*
 * malloc.h - what the files of this folder share.
 *
 *   request            served by
 *   ----------------   -----------------------------------------
 *   up to 32 KiB       slabs (src/slab)
 *   up to 1024 pages   a run of pages of exact length (src/zone)
 *   above              a mapping of its own (src/zone/vmalloc)
 */
#ifndef Q_MALLOC_MALLOC_H
#define Q_MALLOC_MALLOC_H

#include "slab/slub.h"

/* Largest request: what ptrdiff_t can measure, less room for rounding. */
#define Q_REQUEST_MAX ((size_t)PTRDIFF_MAX - ((size_t)1 << 26))

/*
 * At least n bytes at a multiple of align (a power of two). NULL with errno
 * set to ENOMEM where there is no memory.
 */
void *q_alloc(size_t n, size_t align, bool zero);

/* Free on behalf of the public function `caller`, with every check. errno is kept. */
void q_free_slow(void *p, const char *caller);

/* Bytes usable at p; 0, silently, where p is no live object. */
size_t q_size_of(const void *p);

/* Bytes usable at p; 0 after complaining where p is no live object. */
size_t q_usable(const void *p, const char *caller);

/* realloc() for everything its fast path does not settle. */
void *q_realloc_slow(void *p, size_t n, const char *caller);

/* realloc() had no memory for a smaller block, so some block may be larger than it was asked to be. */
extern bool q_shrink_failed __attribute__((visibility("hidden")));

/* Set errno to ENOMEM and return NULL. */
void *q_enomem(void);

/*
 * Say that `caller` was given p and what p is, then abort() or, with
 * misuse:report, return.
 */
void q_misuse(const char *caller, const void *p);

/* The same for a size that does not fit the object: expected is what it holds. */
void q_misuse_size(const char *caller, const void *p, size_t given, size_t holds);

/* Say it, then abort() or, with misuse:report, return. */
void q_complain(const char *text);

/* A thread's first allocation: sets up the process if need be. */
void q_malloc_first(void);

#endif
