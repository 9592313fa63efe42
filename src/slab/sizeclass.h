/*
 * sizeclass.h - which object sizes there are.
 *
 *   16 32 48 ... 128             every 16 bytes
 *   144 160 ... 256              then eight to a doubling: at most 12.5 % is
 *   288 320 ... 512              lost to rounding, and every power of two is
 *   ...      ... 8192            a class, aligned to itself
 *   9360 10912 13104 16384 21824 32768     a slab cut into 7 6 5 4 3 2
 *
 * The last six round up by more, but what they round up is whole pages at
 * the end of the object that nobody touches.
 *
 * Each class also carries the constants of the test in slab.h.
 */
#ifndef Q_SLAB_SIZECLASS_H
#define Q_SLAB_SIZECLASS_H

#include "base/types.h"

#define Q_NR_CLASSES 62
#define Q_FIRST_SPACED 8 /* from here on eight classes to a doubling */
#define Q_LAST_SPACED 55 /* up to 8192 bytes */
#define Q_TABLE_MAX 1024 /* sizes up to here are looked up one by one, above by steps */
#define Q_TABLE_STEP_SHIFT 7
#define Q_SMALL_MAX 32768

struct q_class {
    uint32_t size;   /* bytes of an object, a multiple of 16 */
    uint32_t objs;   /* objects in a slab */
    uint64_t mult;   /* odd, a little above 2^64 / size */
    uint64_t inv;    /* mult * inv == 1 mod 2^64 */
    uint32_t excess; /* size * mult mod 2^64: at least 1024, at most 2^15 */
    uint32_t hot;    /* objects on a chain that are enough even for a busy class */
};

extern struct q_class q_classes[Q_NR_CLASSES];

/* Fill q_classes; before the first slab. */
void q_sizeclass_init(void);

/* The smallest class with size >= n, for n up to Q_SMALL_MAX. */
Q_INLINE unsigned q_class_of(size_t n)
{
    if (n <= 128)
        return n == 0 ? 0 : (unsigned)((n - 1) >> 4);
    if (q_likely(n <= 8192)) {
        unsigned k = q_fls(n - 1) - 7;
        return 8 * k + (unsigned)((n - 1) >> (4 + k));
    }
    if (n <= 13104)
        return n <= 9360 ? 56 : n <= 10912 ? 57 : 58;
    return n <= 16384 ? 59 : n <= 21824 ? 60 : 61;
}

/* The smallest class whose objects hold n bytes and all lie on multiples of align; Q_NR_CLASSES if none. */
unsigned q_class_aligned(size_t n, size_t align);

#endif
