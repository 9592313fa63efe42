/*
 * cache.h - named object caches: the kernel's kmem_cache.
 *
 *   thread                             cache (shared)
 *   heap->mags                         node[nid]: lock, partial, full, empty
 *     mag[cache id] --> magazine              |
 *       { object, its state byte }            v
 *       { object, its state byte }     slab (out of line)         memory: 64 KiB to 4 MiB
 *                                        state[k], free bits <--> |obj|obj|obj|not carved
 *
 * alloc pops from the thread's magazine, free pushes; neither locks. Empty
 * and full magazines exchange half of what they hold with the slabs, under
 * the node's lock.
 *
 * Nothing is ever written into a free object: what the constructor left, or a
 * lock-free reader may still be looking at, stays. So what is free is known
 * outside, exactly. Each object has a state:
 *
 *   NONE  not carved yet     IN_SLAB  free, its bit is set      (node's lock)
 *   LIVE  the program's      IN_MAG   free, in some magazine    (its thread)
 *
 * Who holds an object may write its state: the program (through free), the
 * magazine's thread, or whoever has the node's lock. So plain stores do.
 * Wrong use is what finds another state than LIVE.
 *
 * An object is found from its address as in slab.h: the unit's descriptor
 * (unit.h), then one multiplication. With d the stride, M = ceil(2^64 / d)
 * and e = d * M - 2^64, an offset k*d + r times M is, in 128 bits,
 * k * 2^64 + k*e + r*M: the upper half is k, and the lower at most `limit`,
 * objs * e, exactly when r is 0.
 *
 * Locks: q_caches.lock (which caches there are, threads' tables), then a
 * node's lock; see doc/locking.md. The constructor runs without any.
 */
#ifndef Q_SLAB_CACHE_H
#define Q_SLAB_CACHE_H

#include "slab/heap.h"
#include "slab/unit.h"

#define Q_CACHE_NAME 32u
#define Q_MAX_CACHES 2048u
#define Q_MAG_MAX 128u

#define Q_CACHE_HWALIGN 1u
#define Q_CACHE_POISON 2u
#define Q_CACHE_RED_ZONE 4u
#define Q_CACHE_TYPESAFE 8u
#define Q_CACHE_CHECKED (Q_CACHE_POISON | Q_CACHE_RED_ZONE)

enum q_object_state { Q_OBJ_NONE, Q_OBJ_LIVE, Q_OBJ_IN_MAG, Q_OBJ_IN_SLAB };

struct q_cache_slab {
    struct q_cache *cache;
    struct q_page *page;
    char *start;
    struct q_list list, *on; /* the node's partial, full or empty */
    uint32_t carved;         /* objects that were ever handed out */
    uint32_t nr_free;        /* of these, IN_SLAB */
    uint32_t nid;
    uint32_t hint;   /* no bit is set before this word */
    uint64_t *free;  /* a bit for each object, behind the states */
    uint8_t state[]; /* enum q_object_state; one more than objects, for what is left at the end */
};

struct q_cache_node {
    struct q_lock lock;
    struct q_list partial, full, empty;
    size_t nr_slabs, nr_empty;
    size_t nr_out; /* objects that are not in a slab: live, or in magazines */
};

struct q_cache {
    uint64_t magic;
    uint64_t mult, limit;
    uint32_t objs, stride, size, align;
    uint32_t id;   /* index in threads' tables; not among the words that free() writes */
    uint32_t left; /* bytes of the red zone before each object */
    uint32_t flags, order;
    uint32_t batch; /* a magazine holds twice as many */
    void (*ctor)(void *object);
    struct q_list list; /* q_caches.list */
    char name[Q_CACHE_NAME];
    struct q_cache_node node[];
};

struct q_mag_entry {
    void *object;
    uint8_t *state;
};

/*
 * A stack, of one thread for one cache; it goes with the cache. e[0] is empty for
 * ever: to find no object there is to find the stack empty.
 */
struct q_mag {
    struct q_mag_entry *top;  /* &e[0]: empty */
    struct q_mag_entry *last; /* the highest that top may be */
    struct q_cache *cache;    /* NULL: q_mag_none */
    struct q_mag_entry e[];
};

/* What a thread's table (heap->mags, grown under q_caches.lock) holds where there is none. */
extern struct q_mag q_mag_none __attribute__((visibility("hidden")));

/* The lock comes first: snapshots put the rest back. */
struct q_caches {
    struct q_lock lock;
    uint32_t nr;
    struct q_list list; /* oldest first */
    uint64_t ids[Q_MAX_CACHES / 64];
};

extern struct q_caches q_caches;

Q_INLINE uint32_t q_mag_nr(const struct q_mag *mag)
{
    return (uint32_t)(__atomic_load_n(&mag->top, __ATOMIC_RELAXED) - mag->e);
}

Q_INLINE void q_mag_set_top(struct q_mag *mag, struct q_mag_entry *top)
{
    /* Relaxed: whoever counts what there is reads it. */
    __atomic_store_n(&mag->top, top, __ATOMIC_RELAXED);
}

/* An object of the thread's magazine; NULL where it has none. */
Q_INLINE void *q_cache_pop(const struct q_cache *c)
{
    const struct q_heap *heap = q_heap;

    if (q_unlikely(c->id >= heap->nr_mags))
        return NULL;
    struct q_mag *mag = heap->mags[c->id];
    struct q_mag_entry *e = mag->top;
    void *p = e->object;
    if (q_unlikely(p == NULL))
        return NULL;
    q_mag_set_top(mag, e - 1);
    *e->state = Q_OBJ_LIVE;
    return p;
}

/* Free a live object of c into the thread's magazine. False, and nothing done: anything else. */
Q_INLINE bool q_cache_push(const struct q_cache *c, void *p)
{
    const struct q_slab *unit = q_slab_guess(p);
    struct q_product at = q_multiply((uint64_t)((char *)p - q_unit_start(unit)), c->mult);
    const struct q_heap *heap = q_heap;

    if (q_unlikely(q_unit_owner(unit) != c) || q_unlikely(at.low > c->limit) ||
        q_unlikely(c->id >= heap->nr_mags))
        return false;
    uint8_t *state = &((struct q_cache_slab *)q_unit_info(unit))->state[at.high];
    struct q_mag *mag = heap->mags[c->id];
    struct q_mag_entry *top = mag->top;
    if (q_unlikely(*state != Q_OBJ_LIVE) || q_unlikely(top == mag->last))
        return false;
    *state = Q_OBJ_IN_MAG;
    top[1] = (struct q_mag_entry){p, state};
    q_mag_set_top(mag, top + 1);
    return true;
}

/* cache.c: 0 and *out, or an errno. The caller is inside the allocator (q_enter), as in all below. */
int q_cache_create(const char *name, size_t size, size_t align, unsigned flags,
                   void (*ctor)(void *), struct q_cache **out);

/* Addresses of live objects, for the report. */
#define Q_LEAKS_SHOWN 16u
struct q_leaks {
    size_t nr;
    const void *object[Q_LEAKS_SHOWN];
};

/* All objects must be free: false, and what is not, otherwise, and the cache lives on. */
bool q_cache_destroy(struct q_cache *c, struct q_leaks *leaks);

/*
 * Give back what is empty: of slabs, and of the calling thread's magazine.
 * Bytes. q_caches_shrink(): of all caches but typesafe ones.
 */
size_t q_cache_shrink(struct q_cache *c);
size_t q_caches_shrink(void);

/* Whether c is a cache that exists; whether `then` is what one had at c. */
bool q_cache_valid(const struct q_cache *c);
bool q_cache_was_valid(const struct q_cache *then, const struct q_cache *c);

/* Inside: call fn for the lock of each node of each cache. q_caches.lock held. */
void q_caches_each_lock(void (*fn)(struct q_lock *l));

/* Nobody changes which caches there are, nor their lists and counters. For the cut of a snapshot. */
void q_caches_lock(void);
void q_caches_unlock(void);

struct q_cache_stat {
    size_t live, slabs, empty, cached; /* cached: free, in magazines */
};

/* q_caches.lock held. */
void q_cache_stat(struct q_cache *c, struct q_cache_stat *st);

/* What became of a free, or is wrong with an object. */
enum q_cache_result {
    Q_CACHE_OK,
    Q_CACHE_NO_MEMORY,
    Q_CACHE_NOT_OBJECT, /* no address of any cache */
    Q_CACHE_OTHER,      /* of another cache */
    Q_CACHE_INTERIOR,
    Q_CACHE_NEVER, /* on a boundary, but never handed out */
    Q_CACHE_TWICE,
    Q_CACHE_OVERRUN,    /* red zone: written before or behind the object */
    Q_CACHE_USED_FREE,  /* poison: written while it was free */
    Q_CACHE_INTERRUPTED /* in a signal handler: set by the public functions */
};

struct q_cache_fault {
    enum q_cache_result result;
    const void *object; /* OVERRUN, USED_FREE: whose */
    ptrdiff_t offset;   /* the first wrong byte, from the object on */
};

/* cache_mag.c: the ways around the fast paths. fault says what is wrong; an object may come with one. */
void *q_cache_alloc_slow(struct q_cache *c, struct q_cache_fault *fault);
void q_cache_free_slow(struct q_cache *c, void *p, struct q_cache_fault *fault);

/* The slab that holds p, and which of its objects; NULL where p lies in no cache. */
struct q_cache_slab *q_cache_slab_of(const void *p, size_t *k, size_t *offset);

/* cache_mag.c: a thread ends. cache_fork.c: fork; q_cache_after_fork() once the child's locks are free. */
void q_cache_thread_ends(struct q_heap *heap);
void q_cache_fork_prepare(bool patient);
void q_cache_fork_parent(void);
void q_cache_fork_child(void);
void q_cache_after_fork(void);

/*
 * Inside: cache_slab.c, cache_mag.c. Take up to n objects out of slabs; a bit of *fresh is
 * set for each that was just carved. Put n back, which may free slabs.
 */
uint32_t q_cache_take(struct q_cache *c, struct q_mag_entry *e, uint32_t n, uint64_t *fresh);
void q_cache_put(struct q_cache *c, const struct q_mag_entry *e, uint32_t n);
void q_cache_adopt_magazines(void);
void q_cache_relist(struct q_cache_node *node, struct q_cache_slab *s);
size_t q_cache_release_empty(struct q_cache *c, struct q_cache_node *node);
void q_cache_release_all(struct q_cache *c);

/* Inside: cache_check.c, for caches with Q_CACHE_CHECKED. */
void q_check_fresh(const struct q_cache *c, void *p);
void q_check_alloc(const struct q_cache *c, void *p, struct q_cache_fault *fault);
void q_check_free(const struct q_cache *c, void *p, struct q_cache_fault *fault);

#endif
