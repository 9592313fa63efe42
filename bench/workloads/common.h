/*
 * What the workloads share: a seeded generator, byte patterns that are written and later checked,
 * arguments, and a look at one's own resident memory.
 *
 * Every object a workload allocates is filled completely from a key and compared completely before
 * it is freed, so an allocator that hands out overlapping, misaligned or recycled live memory fails
 * the run instead of winning it.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

/* splitmix64: every seed is a good one, and one draw costs a few cycles */
static inline uint64_t mix64(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static inline uint64_t rng_next(struct rng *rng)
{
    rng->state += 0x9e3779b97f4a7c15ULL;
    return mix64(rng->state);
}

/* uniform in [0, n), n > 0 */
static inline uint32_t rng_below(struct rng *rng, uint32_t n)
{
    return (uint32_t)(((rng_next(rng) >> 32) * n) >> 32);
}

/* uniform in [low, high] */
static inline size_t rng_size(struct rng *rng, uint32_t low, uint32_t high)
{
    return low + rng_below(rng, high - low + 1);
}

/*
 * Sizes as programs have them: most are small. Three out of four lie in the lowest eighth of
 * [low, high], one in four anywhere.
 */
static inline size_t rng_size_skewed(struct rng *rng, uint32_t low, uint32_t high)
{
    uint32_t small = low + (high - low) / 8;

    return rng_next(rng) >> 62 ? rng_size(rng, low, small) : rng_size(rng, low, high);
}

/* one line to stderr, exit status 1 */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* malloc that ends the run where there is no memory, or where it is not aligned for any type */
void *must_alloc(size_t size) __attribute__((malloc));

void pattern_write(void *object, size_t size, uint64_t key);
void pattern_check(const void *object, size_t size, uint64_t key);

/* an object, its length and the key of its pattern */
struct object {
    void *at;
    uint32_t size;
    uint32_t key;
};

void object_make(struct object *object, size_t size, uint32_t key);
void object_drop(struct object *object);

/* argument i as a number, or fallback where it is absent; a bad one prints usage and exits 2 */
unsigned long argument(int argc, char **argv, int i, unsigned long fallback, unsigned long low,
                       unsigned long high, const char *usage);

struct resident {
    long rss_kb;
    long pss_kb;
    long anon_kb;
};

/* what the kernel holds for this process now; allocates nothing */
void resident_now(struct resident *now);

/* seconds on the monotonic clock, and a pause that signals do not shorten */
double seconds_now(void);
void pause_for(double seconds);

#endif
