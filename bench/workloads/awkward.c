/*
 * awkward: sizes a little above what allocators like, a twentieth above each power of two from
 * 32 KiB to 2 MiB (2.1 MiB is the largest), all of each block written. An allocator that rounds to
 * powers of two or to huge pages shows it in peak memory; one that searches long shows it in time.
 */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

#define USAGE "[BLOCKS [ALIVE]]   (3000, 60)"

int main(int argc, char **argv)
{
    unsigned long blocks = argument(argc, argv, 1, 3000, 1, 100000000, USAGE);
    unsigned alive = (unsigned)argument(argc, argv, 2, 60, 1, 100000, USAGE);
    struct object *slots = calloc(alive, sizeof(*slots));
    struct rng rng = {22};
    uint64_t total = 0;

    if (!slots)
        fail("no memory for %u slots", alive);
    for (unsigned long i = 0; i < blocks; i++) {
        struct object *slot = &slots[rng_below(&rng, alive)];
        size_t power = (size_t)1 << (15 + rng_below(&rng, 7));

        if (slot->at)
            object_drop(slot);
        object_make(slot, power + power / 20, (uint32_t)i);
        total += slot->size;
    }
    for (unsigned i = 0; i < alive; i++) {
        if (slots[i].at)
            object_drop(&slots[i]);
    }
    free(slots);
    printf("ok awkward bytes=%llu\n", (unsigned long long)total);
    return 0;
}
