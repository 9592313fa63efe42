/*
 * stress.h - what the stress programs share: objects that know what they should hold, a clock that
 * ends them, and a check of what stays resident.
 *
 * usage of every program: NAME [SECONDS [THREADS [SEED]]]
 */
#ifndef TEST_STRESS_H
#define TEST_STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct stress {
    unsigned seconds, threads;
    uint64_t seed;
};

extern struct stress stress;

/* Read the arguments. Prints what is being done, with the seed that repeats it. */
void stress_start(int argc, char **argv, unsigned seconds, unsigned threads);

/* True once the time is over. */
bool stress_over(void);

/* Complain and end the program. */
_Noreturn void stress_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Kilobytes resident now; 0 under a sanitizer, which keeps a lot for itself. */
long stress_resident(void);

/* Says "ok" and how much was done; returns the exit status. */
int stress_end(void);

/* xorshift64*, one per thread. */
struct rng {
    uint64_t s;
};

struct rng rng_for(uint64_t salt);
uint64_t rng_next(struct rng *r);
size_t rng_below(struct rng *r, size_t n);

/* A size from all the ranges that are served differently, small ones most. */
size_t random_size(struct rng *r);

/*
 * A block: the header lies at its start, the rest is a pattern that depends on the seed. Every
 * function checks all of it that is cheap to check: both ends and a sample of the middle.
 */
struct block {
    size_t size; /* asked for, with the header */
    uint64_t seed, check;
    struct block *next; /* for the programs */
};

/* By malloc, calloc, aligned_alloc, posix_memalign, memalign or realloc, as it comes. */
struct block *block_new(struct rng *r, size_t size);
void block_check(const struct block *b);
struct block *block_resize(struct rng *r, struct block *b, size_t size);
void block_free(struct block *b);

extern _Atomic uint64_t stress_ops;

#endif
