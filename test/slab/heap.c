/* heap.c - see heap.h. */
#include "heap.h"

struct quire_heap_stat stat_of(struct quire_heap *h)
{
    struct quire_heap_stat st;

    quire_heap_stat(h, &st);
    return st;
}

size_t random_size(uint64_t *state, size_t most)
{
    uint64_t kind = conform_random(state) % 100;
    size_t n;

    if (kind < 75)
        n = conform_random(state) % 600;
    else if (kind < 95)
        n = conform_random(state) % 33000;
    else if (kind < 99)
        n = conform_random(state) % 300000;
    else
        n = conform_random(state) % (7u << 20);
    return n < most ? n : most;
}

static bool all_zero(const unsigned char *p, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p[i] != 0)
            return false;
    return true;
}

void fill(struct block *b, uint64_t *state)
{
    b->seed = (unsigned)conform_random(state);
    conform_fill(b->p, b->size, b->seed);
}

void make(struct quire_heap *h, struct block *b, uint64_t *state, size_t most)
{
    uint64_t how = conform_random(state) % 8;
    size_t align = 16;

    b->size = random_size(state, most);
    if (how == 0) {
        b->p = quire_heap_calloc(h, 1, b->size);
        CHECK(b->p == NULL || all_zero(b->p, b->size), "calloc of %zu bytes", b->size);
    } else if (how == 1) {
        align <<= conform_random(state) % 13;
        b->p = quire_heap_aligned(h, align, b->size);
    } else {
        b->p = quire_heap_alloc(h, b->size);
    }
    REQUIRE(b->p != NULL, "%zu bytes at %zu, errno %d", b->size, align, errno);
    CHECK((uintptr_t)b->p % align == 0, "%p", (void *)b->p);
    CHECK(quire_heap_usable_size(h, b->p) >= b->size);
    fill(b, state);
}
