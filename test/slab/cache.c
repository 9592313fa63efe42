/* cache.c - see cache.h. */
#include "cache.h"

static uint64_t state = 11;

size_t below(size_t n)
{
    return (size_t)(conform_random(&state) % n);
}

struct quire_cache *make(size_t size, size_t align, unsigned flags)
{
    struct quire_cache *c = quire_cache_create("test", size, align, flags, NULL);

    REQUIRE(c != NULL, "size %zu, align %zu, flags %u, errno %d", size, align, flags, errno);
    return c;
}

size_t live_of(struct quire_cache *c)
{
    struct quire_cache_stat st;

    quire_cache_stat(c, &st);
    return st.live;
}

void end(struct quire_cache *c)
{
    CHECK(live_of(c) == 0, "%zu live", live_of(c));
    CHECK(quire_cache_destroy(c) == 0, "errno %d", errno);
}
