/* image.h - what the fuzz target of images and its drivers share. */
#ifndef QUIRE_TEST_FUZZ_IMAGE_H
#define QUIRE_TEST_FUZZ_IMAGE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Input: one byte of enum fuzz_flags, four bytes of length, an image of that length, and, where
 * something follows, an increment to load onto it.
 */
#define FUZZ_HEAD 5u

enum fuzz_flags {
    FUZZ_REPAIR = 1, /* make the checksums right first: what comes after them is what is tried */
    FUZZ_MAP = 2,    /* map it, in a child */
    FUZZ_SAVE = 4,   /* save what was loaded, load that, compare */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Set right every checksum that can be found. */
void fuzz_repair(uint8_t *image, size_t size);

#define FUZZ_SEEDS 6u

/* Write the k-th good input to out, which has room; its length. */
size_t fuzz_seed(unsigned k, uint8_t *out);
#define FUZZ_SEED_MAX ((size_t)256 << 10)

#endif
