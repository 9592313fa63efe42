/*
 * cache_check.c - red zones and poison of object caches that ask for them.
 *
 *   | left zone | object, `size` bytes | zone up to the stride |
 *      0xbb: free, 0xcc: live           0x6b ... 0x6b 0xa5 while free
 *
 * The bytes are those that the kernel uses, so that people who know them from
 * there recognise them. All of this runs for one object at a time, which
 * nobody else holds.
 */
#include <string.h>

#include "slab/cache.h"

#define RED_FREE 0xbb
#define RED_LIVE 0xcc
#define POISON_FREE 0x6b
#define POISON_END 0xa5

static void set_zones(const struct q_cache *c, char *p, int byte)
{
    if ((c->flags & Q_CACHE_RED_ZONE) == 0)
        return;
    memset(p - c->left, byte, c->left);
    memset(p + c->size, byte, c->stride - c->left - c->size);
}

static void poison(const struct q_cache *c, char *p)
{
    if ((c->flags & Q_CACHE_POISON) == 0)
        return;
    memset(p, POISON_FREE, c->size - 1);
    p[c->size - 1] = (char)POISON_END;
}

/* Note the first byte of [from, from + n) that is not `byte`. */
static bool differs(const char *object, ptrdiff_t from, size_t n, unsigned char byte,
                    enum q_cache_result what, struct q_cache_fault *fault)
{
    const unsigned char *at = (const unsigned char *)object + from;

    for (size_t i = 0; i < n; i++) {
        if (at[i] == byte)
            continue;
        *fault = (struct q_cache_fault){what, object, from + (ptrdiff_t)i};
        return true;
    }
    return false;
}

static bool zones_differ(const struct q_cache *c, const char *p, unsigned char byte,
                         struct q_cache_fault *fault)
{
    if ((c->flags & Q_CACHE_RED_ZONE) == 0)
        return false;
    return differs(p, -(ptrdiff_t)c->left, c->left, byte, Q_CACHE_OVERRUN, fault) ||
           differs(p, (ptrdiff_t)c->size, c->stride - c->left - c->size, byte, Q_CACHE_OVERRUN,
                   fault);
}

void q_check_fresh(const struct q_cache *c, void *p)
{
    set_zones(c, p, RED_FREE);
    poison(c, p);
}

void q_check_alloc(const struct q_cache *c, void *p, struct q_cache_fault *fault)
{
    bool bad = zones_differ(c, p, RED_FREE, fault);

    if (!bad && (c->flags & Q_CACHE_POISON) != 0 &&
        !differs(p, 0, c->size - 1, POISON_FREE, Q_CACHE_USED_FREE, fault))
        differs(p, (ptrdiff_t)c->size - 1, 1, POISON_END, Q_CACHE_USED_FREE, fault);
    set_zones(c, p, RED_LIVE);
}

void q_check_free(const struct q_cache *c, void *p, struct q_cache_fault *fault)
{
    zones_differ(c, p, RED_LIVE, fault);
    set_zones(c, p, RED_FREE);
    poison(c, p);
}
