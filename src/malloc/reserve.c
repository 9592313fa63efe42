/* reserve.c - see reserve.h. */
#include "malloc/reserve.h"

#define REGION_BYTES ((size_t)1 << 20)
#define LARGE ((size_t)4096) /* from here on a mapping of its own */
#define NR_MAPPINGS 4096u
#define MAGIC 0x7265736572766521ull

/* Before every reserve object. */
struct header {
    uint64_t magic; /* ^ address of the object */
    size_t bytes;
};

static char region[REGION_BYTES] __attribute__((aligned(4096)));

/* Live objects in the upper half, bytes given out in the lower. */
static _Atomic uint64_t state;

struct q_object *_Atomic q_postponed;

/* Objects too large for the region, or that came when it was full. */
static struct {
    _Atomic uintptr_t addr; /* of the object; 0: free entry */
    char *base;             /* of its mapping */
    size_t mapped, bytes;
} mapping[NR_MAPPINGS];

static _Atomic uint32_t nr_mappings; /* entries ever used: bounds the search */

static bool in_region(const void *p)
{
    return (uintptr_t)p - (uintptr_t)region < REGION_BYTES;
}

static void *from_region(uint64_t at, size_t n, size_t align)
{
    char *object = (char *)q_align_up((uintptr_t)region + at + sizeof(struct header), align);
    struct header *h = (struct header *)object - 1;

    h->magic = MAGIC ^ (uintptr_t)object;
    h->bytes = n;
    return object;
}

static void *from_mapping(size_t n, size_t align)
{
    size_t bytes = q_align_up(q_max(n, 1) + align, q_page_size());
    char *base = bytes > n ? q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0) : NULL;

    if (base == NULL)
        return NULL;
    uintptr_t object = q_align_up((uintptr_t)base, align);
    for (uint32_t i = 0; i < NR_MAPPINGS; i++) {
        uintptr_t none = 0;

        /* Claim the entry with a value that is nobody's address, fill it, then publish it. */
        if (!atomic_compare_exchange_strong_explicit(&mapping[i].addr, &none, 1,
                                                     memory_order_acquire, memory_order_relaxed))
            continue;
        mapping[i].base = base;
        mapping[i].mapped = bytes;
        mapping[i].bytes = n;
        uint32_t seen = atomic_load_explicit(&nr_mappings, memory_order_relaxed);
        while (seen <= i &&
               !atomic_compare_exchange_weak_explicit(&nr_mappings, &seen, i + 1,
                                                      memory_order_relaxed, memory_order_relaxed))
            ;
        /* Release: whoever finds the address sees the rest. */
        atomic_store_explicit(&mapping[i].addr, object, memory_order_release);
        return (void *)object;
    }
    q_munmap(base, bytes);
    return NULL;
}

static int find_mapping(const void *p)
{
    uint32_t nr = atomic_load_explicit(&nr_mappings, memory_order_relaxed);

    for (uint32_t i = 0; (uintptr_t)p > 1 && i < nr; i++)
        if (atomic_load_explicit(&mapping[i].addr, memory_order_acquire) == (uintptr_t)p)
            return (int)i;
    return -1;
}

void *q_reserve_alloc(size_t n, size_t align)
{
    size_t room = q_align_up(n + align + sizeof(struct header), 16);
    uint64_t now, old = atomic_load_explicit(&state, memory_order_relaxed);

    while (n < LARGE && align < LARGE && (old & 0xffffffff) + room <= REGION_BYTES) {
        now = old + (1ull << 32) + room;
        /* Acquire: the region may just have been freed by another thread. */
        if (atomic_compare_exchange_weak_explicit(&state, &old, now, memory_order_acquire,
                                                  memory_order_relaxed))
            return from_region(old & 0xffffffff, n, align);
    }
    return from_mapping(n, align);
}

size_t q_reserve_size(const void *p)
{
    const struct header *h = (const struct header *)p - 1;
    int i;

    if (in_region(p) && in_region(h) && ((uintptr_t)p & 15) == 0)
        return h->magic == (MAGIC ^ (uintptr_t)p) ? q_max(h->bytes, 1) : 0;
    i = find_mapping(p);
    return i >= 0 ? q_max(mapping[i].bytes, 1) : 0;
}

void q_reserve_free(void *p)
{
    uint64_t now, old = atomic_load_explicit(&state, memory_order_relaxed);
    int i = find_mapping(p);

    if (i >= 0) {
        /* Nobody may find the address here once the kernel can give it to somebody else. */
        atomic_store_explicit(&mapping[i].addr, 1, memory_order_relaxed);
        q_munmap(mapping[i].base, mapping[i].mapped);
        atomic_store_explicit(&mapping[i].addr, 0, memory_order_release);
        return;
    }
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
    struct q_object *o = p, *old = atomic_load_explicit(&q_postponed, memory_order_relaxed);

    do {
        o->next = old;
        /* Release: the link before the object can be seen. */
    } while (!atomic_compare_exchange_weak_explicit(&q_postponed, &old, o, memory_order_release,
                                                    memory_order_relaxed));
}

void q_free_postponed(void)
{
    /* Acquire: the links. Taken whole, so no ABA. */
    struct q_object *o = atomic_exchange_explicit(&q_postponed, NULL, memory_order_acquire);

    while (o != NULL) {
        struct q_object *next = o->next;
        q_free_slow(o, "free");
        o = next;
    }
}
