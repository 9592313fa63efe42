/*
 * pieces.h - what the tests of giving memory up share: a cache for shrinkers to ask, and the
 * program run again with other options.
 */
#ifndef QUIRE_TEST_PAGES_PIECES_H
#define QUIRE_TEST_PAGES_PIECES_H

#include <pthread.h>

#include "../conform/conform.h"
#include "quire/shrinker.h"

#define PIECE ((size_t)64 << 10)
#define NR 1024

/* A cache of pieces, under a lock that the callbacks only try. */
struct cache {
    pthread_mutex_t lock;
    char *piece[NR];
    unsigned nr;
    _Atomic unsigned counts, scans;
    _Atomic size_t given;
};
extern struct cache cache;

/* The callbacks; `arg` is the cache. */
size_t count(void *arg);
size_t scan(void *arg, size_t bytes);

/* So many pieces are in it afterwards. */
void fill_cache(unsigned nr);

/* Run another case of this program with these options; that it was not skipped is seen there. */
void run_with(const char *options, const char *name);

/* Such a case is skipped where nobody runs it so. */
void only_with(const char *option);

/* 20 ms. */
void nap(void);

#endif
