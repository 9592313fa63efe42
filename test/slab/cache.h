/* cache.h - what the tests of object caches share. */
#ifndef QUIRE_TEST_SLAB_CACHE_H
#define QUIRE_TEST_SLAB_CACHE_H

#include "../conform/conform.h"
#include "quire/slab.h"

/* A number below n, the same in every run. */
size_t below(size_t n);

/* A cache named "test"; its live objects; its end, with none left. */
struct quire_cache *make(size_t size, size_t align, unsigned flags);
size_t live_of(struct quire_cache *c);
void end(struct quire_cache *c);

#endif
