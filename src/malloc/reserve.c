/* reserve.c - see reserve.h. */
#include "malloc/reserve.h"

#define REGION_BYTES ((size_t)1 << 20)
#define MAGIC 0x7265736572766521ull

/* Before every reserve object. */
struct header {
    uint64_t magic; /* ^ address of the object */
    size_t bytes;
};

static char region[REGION_BYTES] __attribute__((aligned(4096)));

/* Live objects in the upper half, bytes given out in the lower. */
static _Atomic uint64_t state;

static struct q_object *_Atomic postponed;

static bool in_region(const void *p)
{
    return (uintptr_t)p - (uintptr_t)region < REGION_BYTES;
}

static void *with_header(char *start, size_t n, size_t align)
{
    char *object = (char *)q_align_up((uintptr_t)start + sizeof(struct header), align);
    struct header *h = (struct header *)object - 1;

    h->magic = MAGIC ^ (uintptr_t)object;
    h->bytes = n;
    return object;
}

void *q_reserve_alloc(size_t n, size_t align)
{
    size_t room = q_align_up(n + align + sizeof(struct header), 16);
    uint64_t now, old = atomic_load_explicit(&state, memory_order_relaxed);

    if (room < n)
        return NULL;
    while ((old & 0xffffffff) + room <= REGION_BYTES) {
        now = old + (1ull << 32) + room;
        /* Acquire: the region may just have been freed by another thread. */
        if (atomic_compare_exchange_weak_explicit(&state, &old, now, memory_order_acquire,
                                                  memory_order_relaxed))
            return with_header(region + (old & 0xffffffff), n, align);
    }
    return NULL;
}

size_t q_reserve_size(const void *p)
{
    const struct header *h = (const struct header *)p - 1;

    if (!in_region(p) || !in_region(h) || ((uintptr_t)p & 15) != 0)
        return 0;
    return h->magic == (MAGIC ^ (uintptr_t)p) ? q_max(h->bytes, 1) : 0;
}

void q_reserve_free(void *p)
{
    uint64_t now, old = atomic_load_explicit(&state, memory_order_relaxed);

    ((struct header *)p - 1)->magic = 0;
    do {
        now = old - (1ull << 32);
        if (now >> 32 == 0)
            now = 0;
        /* Release: whoever reuses the region comes after our last access. */
    } while (!atomic_compare_exchange_weak_explicit(&state, &old, now, memory_order_release,
                                                    memory_order_relaxed));
}

void q_free_later(void *p)
{
    struct q_object *o = p, *old = atomic_load_explicit(&postponed, memory_order_relaxed);

    do {
        o->next = old;
        /* Release: the link before the object can be seen. */
    } while (!atomic_compare_exchange_weak_explicit(&postponed, &old, o, memory_order_release,
                                                    memory_order_relaxed));
}

void q_free_postponed(void)
{
    if (q_likely(atomic_load_explicit(&postponed, memory_order_relaxed) == NULL))
        return;
    /* Acquire: the links. Taken whole, so no ABA. */
    struct q_object *o = atomic_exchange_explicit(&postponed, NULL, memory_order_acquire);

    while (o != NULL) {
        struct q_object *next = o->next;
        q_free_slow(o, "free");
        o = next;
    }
}
