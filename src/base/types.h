/*
 * types.h - words that every layer uses.
 *
 * Sizes that the kernel decides (page size) are variables, set once by
 * q_base_init(); sizes that quire decides are constants here.
 */
#ifndef Q_BASE_TYPES_H
#define Q_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define q_likely(x) __builtin_expect(!!(x), 1)
#define q_unlikely(x) __builtin_expect(!!(x), 0)
#define Q_NOINLINE __attribute__((noinline))
#define Q_COLD __attribute__((cold, noinline))
#define Q_INLINE static inline __attribute__((always_inline))
#define Q_PUBLIC __attribute__((visibility("default")))
#define Q_CACHELINE 64

/* A slab is 64 KiB whatever the page size; slab descriptors are found by shifting it away. */
#define Q_SLAB_SHIFT 16
#define Q_SLAB_SIZE ((size_t)1 << Q_SLAB_SHIFT)

/* A pageblock is 2 MiB: one x86 huge page, and the unit of mobility and of giving memory back. */
#define Q_PAGEBLOCK_SHIFT 21
#define Q_PAGEBLOCK_SIZE ((size_t)1 << Q_PAGEBLOCK_SHIFT)

/* Buddy orders 0..10, as in the kernel. */
#define Q_MAX_ORDER 10
#define Q_NR_ORDERS (Q_MAX_ORDER + 1)

#define Q_MAX_NODES 64

/* log2 of the kernel's page size: 12, 14 or 16. Constant after q_base_init(). */
extern unsigned q_page_shift;

Q_INLINE size_t q_page_size(void)
{
    return (size_t)1 << q_page_shift;
}

/* Order of a slab and of a pageblock in pages of this kernel. */
Q_INLINE unsigned q_slab_order(void)
{
    return Q_SLAB_SHIFT - q_page_shift;
}

Q_INLINE unsigned q_pageblock_order(void)
{
    return Q_PAGEBLOCK_SHIFT - q_page_shift;
}

/* Bytes of the largest buddy block; the linear map grows in multiples of it. */
Q_INLINE size_t q_max_block_size(void)
{
    return q_page_size() << Q_MAX_ORDER;
}

Q_INLINE size_t q_align_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

Q_INLINE size_t q_align_down(size_t n, size_t to)
{
    return n & ~(to - 1);
}

Q_INLINE uint64_t q_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

Q_INLINE uint64_t q_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/*
 * Read a word that another thread may be writing. A plain load, because
 * compilers do not fold atomic loads into the instructions that use them;
 * aligned words of 64 bits are never torn on 64-bit machines. In a 32-bit
 * process the two halves may be of different times. Under ThreadSanitizer it
 * says what it means.
 */
#ifdef __SANITIZE_THREAD__
Q_INLINE uint64_t q_racy_read(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}
#else
Q_INLINE uint64_t q_racy_read(const uint64_t *word)
{
    return *word;
}
#endif

/* a * b, of 128 bits. */
struct q_product {
    uint64_t high, low;
};

Q_INLINE struct q_product q_multiply_halves(uint64_t a, uint64_t b)
{
    uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    uint64_t low = a0 * b0, left = a1 * b0, right = a0 * b1;
    uint64_t middle = (low >> 32) + (uint32_t)left + (uint32_t)right;

    return (struct q_product){a1 * b1 + (left >> 32) + (right >> 32) + (middle >> 32),
                              middle << 32 | (uint32_t)low};
}

#ifdef __SIZEOF_INT128__
Q_INLINE struct q_product q_multiply(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 all = (unsigned __int128)a * b;

    return (struct q_product){(uint64_t)(all >> 64), (uint64_t)all};
}
#else
Q_INLINE struct q_product q_multiply(uint64_t a, uint64_t b)
{
    return q_multiply_halves(a, b);
}
#endif

/* floor(log2(n)); n must not be 0. */
Q_INLINE unsigned q_fls(uint64_t n)
{
    return 63u - (unsigned)__builtin_clzll(n);
}

/* Smallest k with (1 << k) >= n; n must not be 0. */
Q_INLINE unsigned q_ceil_log2(uint64_t n)
{
    return n <= 1 ? 0 : q_fls(n - 1) + 1;
}

#endif
