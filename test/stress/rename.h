/*
 * rename.h - quire under other names, for builds where a sanitizer must keep malloc for itself.
 *
 * Included before everything else, in quire's own sources and in the programs of this folder alike,
 * so that what the programs call is quire and what libc and the sanitizer call is not.
 */
#ifndef TEST_STRESS_RENAME_H
#define TEST_STRESS_RENAME_H

#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ThreadSanitizer, too, says goodbye in the last round of destructors: let quire be before it. */
#ifdef __SANITIZE_THREAD__
#undef PTHREAD_DESTRUCTOR_ITERATIONS
#define PTHREAD_DESTRUCTOR_ITERATIONS 3
#endif

#define malloc renamed_malloc
#define free renamed_free
#define calloc renamed_calloc
#define realloc renamed_realloc
#define reallocarray renamed_reallocarray
#define memalign renamed_memalign
#define aligned_alloc renamed_aligned_alloc
#define posix_memalign renamed_posix_memalign
#define valloc renamed_valloc
#define pvalloc renamed_pvalloc
#define malloc_usable_size renamed_malloc_usable_size
#define malloc_trim renamed_malloc_trim
#define cfree renamed_cfree
#define free_sized renamed_free_sized
#define free_aligned_sized renamed_free_aligned_sized

void *malloc(size_t n);
void free(void *p);
void *calloc(size_t nr, size_t n);
void *realloc(void *p, size_t n);
void *reallocarray(void *p, size_t nr, size_t n);
void *memalign(size_t align, size_t n);
void *aligned_alloc(size_t align, size_t n);
int posix_memalign(void **out, size_t align, size_t n);
void *valloc(size_t n);
void *pvalloc(size_t n);
size_t malloc_usable_size(void *p);
int malloc_trim(size_t pad);
void cfree(void *p);

#endif
