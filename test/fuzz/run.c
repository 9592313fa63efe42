/*
 * run.c - the fuzz target without a fuzzer: the seeds, and so many inputs made from them, the same
 * each time.
 *
 *   fuzz-image [N]             TAP
 *   fuzz-image --seeds FOLDER  write the seeds there, for libFuzzer
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"
#include "cow/image.h"
#include "image.h"

static uint64_t rng = 88172645463325252u;

static uint64_t pick(uint64_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng % below;
}

/* Numbers that lie at borders. */
static uint64_t telling(void)
{
    static const uint64_t some[] = {
        0,          1,          15,         512,         513,        0x7fffffff,    0x80000000,
        0xffffffff, ~0ull,      ~0ull >> 1, 1ull << 63,  1ull << 47, 4096,          4095,
        1ull << 20, 1ull << 32, 48,         Q_SLAB_SIZE, 1ull << 16, 0x123400000000};

    return some[pick(sizeof(some) / sizeof(*some))] + pick(3) - 1;
}

/* Where headers, arrays and records are, most of the time. */
static size_t place(size_t size)
{
    size_t page = q_page_size(), at = pick(size);

    return pick(4) == 0 ? at : q_align_down(at, page) % size + pick(q_min(300, size - at));
}

static size_t change(uint8_t *in, size_t size)
{
    size_t at = FUZZ_HEAD + place(size - FUZZ_HEAD);
    uint64_t word = telling();

    switch (pick(6)) {
    case 0:
        in[at] ^= (uint8_t)(1u << pick(8));
        return size;
    case 1:
    case 2: /* a number, where numbers are */
        at = q_align_down(at - FUZZ_HEAD, 4) + FUZZ_HEAD;
        memcpy(in + at, &word, q_min(pick(2) == 0 ? 4 : 8, size - at));
        return size;
    case 3: /* a piece from elsewhere */
        memmove(in + at, in + pick(size), q_min(1 + pick(200), size - q_max(at, size / 2)) / 2);
        return size;
    case 4: /* an end */
        return FUZZ_HEAD + pick(size - FUZZ_HEAD) + 1;
    default:
        in[0] = (uint8_t)pick(8);
        return size;
    }
}

static void try_many(unsigned nr)
{
    static uint8_t in[FUZZ_SEED_MAX + 4096];

    for (unsigned k = 0; k < FUZZ_SEEDS; k++)
        LLVMFuzzerTestOneInput(in, fuzz_seed(k, in));
    printf("ok 1 - seeds\n");
    for (unsigned i = 0; i < nr; i++) {
        size_t size = fuzz_seed(i % FUZZ_SEEDS, in);

        for (uint64_t n = 1 + pick(4); n > 0; n--)
            size = change(in, size);
        LLVMFuzzerTestOneInput(in, size);
    }
    printf("ok 2 - %u inputs made from them\n", nr);
}

static int write_seeds(const char *folder)
{
    static uint8_t in[FUZZ_SEED_MAX];
    char path[4096];

    for (unsigned k = 0; k < FUZZ_SEEDS; k++) {
        size_t size = fuzz_seed(k, in);

        snprintf(path, sizeof(path), "%s/seed%u", folder, k);
        FILE *f = fopen(path, "wb");
        if (f == NULL || fwrite(in, 1, size, f) != size || fclose(f) != 0)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    q_base_init();
    if (argc > 2 && strcmp(argv[1], "--seeds") == 0)
        return write_seeds(argv[2]);
    alarm(300);
    printf("1..2\n");
    try_many(argc > 1 ? (unsigned)atoi(argv[1]) : 1000);
    return 0;
}
