/* sizeclass.c - see sizeclass.h. */
#include "slab/sizeclass.h"

#include "base/msg.h"

#define EXCESS_MIN 1024
#define HOT_BYTES (32u << 10)
#define HOT_LEAST 8

struct q_class q_classes[Q_NR_CLASSES];

/* Inverse of an odd number mod 2^64: each Newton step doubles the bits that are right. */
static uint64_t inverse(uint64_t odd)
{
    uint64_t x = odd; /* right in the lowest 3 bits */

    for (int i = 0; i < 5; i++)
        x *= 2 - odd * x;
    return x;
}

static void set_class(unsigned c, uint32_t size)
{
    struct q_class *k = &q_classes[c];

    k->size = size;
    k->objs = (uint32_t)(Q_SLAB_SIZE / size);
    /* The first odd multiplier above 2^64 / size whose product exceeds 2^64 by enough. */
    k->mult = ~0ull / size + 1;
    while ((k->mult & 1) == 0 || k->mult * size < EXCESS_MIN)
        k->mult++;
    k->inv = inverse(k->mult);
    k->excess = (uint32_t)(k->mult * size);
    k->hot = (uint32_t)q_max(HOT_BYTES / size, HOT_LEAST);
    q_assert(k->mult * k->inv == 1 && k->mult * size <= 1u << 15);
}

void q_sizeclass_init(void)
{
    static const uint32_t last[] = {9360, 10912, 13104, 16384, 21824, 32768};
    unsigned c = 0;

    for (uint32_t size = 16; size <= 128; size += 16)
        set_class(c++, size);
    for (uint32_t step = 16; step <= 512; step *= 2)
        for (uint32_t i = 9; i <= 16; i++)
            set_class(c++, i * step);
    for (unsigned i = 0; i < sizeof(last) / sizeof(last[0]); i++)
        set_class(c++, last[i]);
    q_assert(c == Q_NR_CLASSES);
}

unsigned q_class_aligned(size_t n, size_t align)
{
    if (n > Q_SMALL_MAX || align > Q_SMALL_MAX)
        return Q_NR_CLASSES;
    for (unsigned c = q_class_of(q_max(n, align)); c < Q_NR_CLASSES; c++)
        if ((q_classes[c].size & (align - 1)) == 0)
            return c;
    return Q_NR_CLASSES;
}
