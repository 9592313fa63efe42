/*
 * big: blocks of megabytes come and go, a few alive at a time. Everything hangs on what happens to
 * the address range of a freed block: unmapped at once it costs a system call and fresh page faults
 * each time, kept for ever it costs memory.
 *
 * Every block is written in stripes: PER_CENT of each 64 KiB, so that the page faults of a program
 * that fills its buffers, or of one that does not, are there; the stripes are checked.
 */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

#define USAGE "[BLOCKS [LOW_KB [HIGH_KB [ALIVE [PER_CENT]]]]]   (400, 1024, 65536, 4, 10)"

#define STRIPE (64 << 10)
/* bytes at the end of each block that are always written: one that is too short fails there */
#define END 16

struct block {
    unsigned char *at;
    size_t size;
    uint64_t key;
};

/* what is written of a stripe that begins at `at`; the end of the block is END's */
static size_t stripe_length(const struct block *block, size_t at, unsigned per_cent)
{
    size_t room = (size_t)STRIPE * per_cent / 100, left = block->size - END - at;

    return left < room ? left : room;
}

static void block_make(struct block *block, size_t size, uint64_t key, unsigned per_cent)
{
    *block = (struct block){must_alloc(size), size, key};
    for (size_t at = 0; at < size - END; at += STRIPE)
        pattern_write(block->at + at, stripe_length(block, at, per_cent), key + at);
    pattern_write(block->at + size - END, END, ~key);
}

static void block_drop(struct block *block, unsigned per_cent)
{
    if (!block->at)
        return;
    for (size_t at = 0; at < block->size - END; at += STRIPE)
        pattern_check(block->at + at, stripe_length(block, at, per_cent), block->key + at);
    pattern_check(block->at + block->size - END, END, ~block->key);
    free(block->at);
    block->at = NULL;
}

int main(int argc, char **argv)
{
    unsigned long blocks = argument(argc, argv, 1, 400, 1, 100000000, USAGE);
    uint32_t low = (uint32_t)argument(argc, argv, 2, 1024, 1, 1 << 22, USAGE);
    uint32_t high = (uint32_t)argument(argc, argv, 3, 65536, low, 1 << 22, USAGE);
    unsigned alive = (unsigned)argument(argc, argv, 4, 4, 1, 4096, USAGE);
    unsigned per_cent = (unsigned)argument(argc, argv, 5, 10, 1, 100, USAGE);
    struct block *slots = calloc(alive, sizeof(*slots));
    struct rng rng = {21};
    uint64_t total = 0;

    if (!slots)
        fail("no memory for %u slots", alive);
    for (unsigned long i = 0; i < blocks; i++) {
        struct block *slot = &slots[rng_below(&rng, alive)];
        size_t size = rng_size_skewed(&rng, low, high) << 10;

        block_drop(slot, per_cent);
        block_make(slot, size, i, per_cent);
        total += size;
    }
    for (unsigned i = 0; i < alive; i++)
        block_drop(&slots[i], per_cent);
    free(slots);
    printf("ok big bytes=%llu\n", (unsigned long long)total);
    return 0;
}
