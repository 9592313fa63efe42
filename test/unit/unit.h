/*
 * unit.h - what the unit tests share.
 *
 * Criterion runs every test in a process of its own, so each may set q_opt as it likes and bring
 * up the core once. must() is an assertion that costs nothing while it holds (Criterion's own
 * report every success to the parent process, which is slow a million times over).
 */
#ifndef TEST_UNIT_H
#define TEST_UNIT_H

#include <stdlib.h>

#include <criterion/criterion.h>

#include "base/types.h"

#define must(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond))                                                                               \
            cr_assert(false, "%s:%d: does not hold: %s", __FILE__, __LINE__, #cond);               \
    } while (0)

#define must_eq(a, b)                                                                              \
    do {                                                                                           \
        unsigned long long must_a = (unsigned long long)(a), must_b = (unsigned long long)(b);     \
        if (must_a != must_b)                                                                      \
            cr_assert(false, "%s:%d: %s is %#llx, %s is %#llx", __FILE__, __LINE__, #a, must_a,    \
                      #b, must_b);                                                                 \
    } while (0)

/* Sanitizers take terabytes of address space for themselves, which limits on it do not allow. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNIT_SANITIZED 1
#else
#define UNIT_SANITIZED 0
#endif

/* xorshift64*, Vigna 2016. UNIT_SEED in the environment starts it elsewhere. */
struct rng {
    uint64_t s;
};

Q_INLINE struct rng rng_new(uint64_t salt)
{
    const char *env = getenv("UNIT_SEED");
    uint64_t seed = env != NULL ? strtoull(env, NULL, 0) : 1;

    return (struct rng){(seed * 0x9e3779b97f4a7c15u ^ salt * 0xbf58476d1ce4e5b9u) | 1};
}

Q_INLINE uint64_t rng_next(struct rng *r)
{
    r->s ^= r->s >> 12;
    r->s ^= r->s << 25;
    r->s ^= r->s >> 27;
    return r->s * 0x2545f4914f6cdd1du;
}

Q_INLINE size_t rng_below(struct rng *r, size_t n)
{
    return (size_t)((unsigned __int128)rng_next(r) * n >> 64);
}

#endif
