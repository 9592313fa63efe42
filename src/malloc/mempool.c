/*
 * mempool.c - quire/mempool.h: elements in reserve.
 *
 *   pool: min_nr, held, in_use
 *     chunks --> [slot slot slot ...] --> [slot ...]      added by resize, never removed
 *                 NULL: empty
 *
 * No lock: an element is put into the reserve by exchanging an empty slot for
 * it, and taken by exchanging it for an empty slot. A search looks at all
 * slots, which is rare: only when the allocator has failed since.
 *
 * held counts the elements in slots, after the fact: up after an element was
 * put, down after one was taken. Whoever frees an element that came from the
 * reserve sees it counted down, since its taker has done that before handing
 * it on. So an element goes to the allocator only while min_nr others are held
 * or being used: held + in use never falls below min_nr, which is what is
 * promised.
 */
#include <errno.h>
#include <time.h>

#include "base/msg.h"
#include "malloc/malloc.h"
#include "malloc/reserve.h"
#include "quire/mempool.h"
#include "slab/cache.h"

#define MAGIC 0x716d656d706f6f6cull
#define MAX_NR ((size_t)1000000)
#define RETRY_NS 100000000

struct chunk {
    struct chunk *_Atomic next;
    size_t nr;
    void *_Atomic slot[];
};

struct pool {
    uint64_t magic;
    void *(*alloc)(void *data);
    void (*release)(void *element, void *data);
    void *data;
    struct quire_cache *cache; /* pools of a cache */
    size_t size;               /* pools of malloc's */
    size_t room;               /* slots in all chunks; for resize */
    struct chunk *_Atomic chunks;
    _Atomic size_t min_nr, held, in_use, from_reserve, waits;
    _Atomic uint32_t waiting, wakes;
};

static struct pool *inner(const struct quire_mempool *pool)
{
    return (struct pool *)(uintptr_t)pool;
}

static bool fail(int error)
{
    errno = error;
    return false;
}

static void complain(const char *caller, const struct pool *pool, const void *p, const char *what)
{
    char text[200];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "%s(%p, %p): %s", caller, (const void *)pool, p, what);
    q_complain(text);
}

static bool valid(const char *caller, const struct pool *pool)
{
    if (q_likely(pool != NULL && pool->magic == (MAGIC ^ (uintptr_t)pool)))
        return true;
    complain(caller, pool, NULL, "not a pool, or one that was destroyed");
    return fail(EINVAL);
}

/* --- the reserve ----------------------------------------------------------------------------- */

/* Any element; NULL: there is none. */
static void *take(struct pool *pool)
{
    /* Acquire: the slots of a chunk that was just added. */
    struct chunk *c = atomic_load_explicit(&pool->chunks, memory_order_acquire);

    for (; c != NULL; c = atomic_load_explicit(&c->next, memory_order_acquire)) {
        for (size_t i = 0; i < c->nr; i++) {
            void *p = atomic_load_explicit(&c->slot[i], memory_order_relaxed);

            /* Acquire: what the thread that freed the element did with it. */
            if (p == NULL || !atomic_compare_exchange_strong_explicit(
                                 &c->slot[i], &p, NULL, memory_order_acquire, memory_order_relaxed))
                continue;
            /* Relaxed: who frees p comes after this, by whatever means p gets there. */
            atomic_fetch_sub_explicit(&pool->held, 1, memory_order_relaxed);
            return p;
        }
    }
    return NULL;
}

/* Into an empty slot; false: there is none. */
static bool put(struct pool *pool, void *p)
{
    struct chunk *c = atomic_load_explicit(&pool->chunks, memory_order_acquire);

    for (; c != NULL; c = atomic_load_explicit(&c->next, memory_order_acquire)) {
        for (size_t i = 0; i < c->nr; i++) {
            void *none = NULL;

            if (atomic_load_explicit(&c->slot[i], memory_order_relaxed) != NULL)
                continue;
            /* Release: pairs with take(). Sequentially consistent: see wake(). */
            if (!atomic_compare_exchange_strong(&c->slot[i], &none, p))
                continue;
            atomic_fetch_add_explicit(&pool->held, 1, memory_order_relaxed);
            return true;
        }
    }
    return false;
}

static bool holds(struct pool *pool, const void *p)
{
    struct chunk *c = atomic_load_explicit(&pool->chunks, memory_order_acquire);

    for (; c != NULL; c = atomic_load_explicit(&c->next, memory_order_acquire))
        for (size_t i = 0; i < c->nr; i++)
            if (atomic_load_explicit(&c->slot[i], memory_order_relaxed) == p)
                return true;
    return false;
}

/* Room for nr elements in all. */
static bool make_room(struct pool *pool, size_t nr)
{
    if (nr <= pool->room)
        return true;
    size_t more = nr - pool->room;
    struct chunk *c = q_alloc(sizeof(*c) + more * sizeof(c->slot[0]), 16, true);
    if (c == NULL)
        return false;
    c->nr = more;
    c->next = atomic_load_explicit(&pool->chunks, memory_order_relaxed);
    /* Release: pairs with the loads above. One thread at a time resizes. */
    atomic_store_explicit(&pool->chunks, c, memory_order_release);
    pool->room = nr;
    return true;
}

/* Until min_nr are held; false: the allocator has no more. */
static bool fill(struct pool *pool, size_t nr)
{
    while (atomic_load_explicit(&pool->held, memory_order_relaxed) < nr) {
        void *p = pool->alloc(pool->data);

        if (p == NULL)
            return false;
        if (!put(pool, p)) { /* others have filled it meanwhile */
            pool->release(p, pool->data);
            return true;
        }
    }
    return true;
}

/* --- waiting --------------------------------------------------------------------------------- */

/*
 * A waiter says so and looks once more; who puts an element looks afterwards
 * whether anybody waits. All sequentially consistent, so at least one of the
 * two sees the other.
 */
static void *wait_for_one(struct pool *pool)
{
    struct timespec timeout = {.tv_nsec = RETRY_NS};

    atomic_fetch_add(&pool->waiting, 1);
    uint32_t seen = atomic_load(&pool->wakes);
    atomic_thread_fence(memory_order_seq_cst);
    void *p = take(pool);
    if (p == NULL)
        q_arch_syscall6(SYS_futex, (long)&pool->wakes, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, (long)seen,
                        (long)&timeout, 0, 0);
    atomic_fetch_sub(&pool->waiting, 1);
    return p;
}

static void wake(struct pool *pool)
{
    if (q_likely(atomic_load(&pool->waiting) == 0))
        return;
    atomic_fetch_add(&pool->wakes, 1);
    q_futex(&pool->wakes, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

/* --- the functions --------------------------------------------------------------------------- */

static void destroy(struct pool *pool)
{
    void *p;

    while ((p = take(pool)) != NULL)
        pool->release(p, pool->data);
    pool->magic = 0;
    for (struct chunk *c = pool->chunks, *next; c != NULL; c = next) {
        next = c->next;
        q_free_slow(c, "quire_mempool_destroy");
    }
    q_free_slow(pool, "quire_mempool_destroy");
}

static struct quire_mempool *create(size_t min_nr, const struct pool *like)
{
    if (min_nr == 0 || min_nr > MAX_NR) {
        fail(EINVAL);
        return NULL;
    }
    if (q_interrupted()) {
        fail(EAGAIN);
        return NULL;
    }
    struct pool *pool = q_alloc(sizeof(*pool), 16, true);
    if (pool == NULL)
        return NULL;
    pool->alloc = like->alloc;
    pool->release = like->release;
    pool->cache = like->cache;
    pool->size = like->size;
    pool->data = like->data != NULL || like->size == 0 ? like->data : pool;
    pool->magic = MAGIC ^ (uintptr_t)pool;
    pool->min_nr = min_nr;
    if (!make_room(pool, min_nr) || !fill(pool, min_nr)) {
        destroy(pool);
        fail(ENOMEM);
        return NULL;
    }
    return (struct quire_mempool *)pool;
}

Q_PUBLIC struct quire_mempool *quire_mempool_create(size_t min_nr, void *(*alloc)(void *data),
                                                    void (*release)(void *element, void *data),
                                                    void *data)
{
    if (alloc == NULL || release == NULL) {
        fail(EINVAL);
        return NULL;
    }
    return create(min_nr, &(struct pool){.alloc = alloc, .release = release, .data = data});
}

static void *alloc_object(void *cache)
{
    return quire_cache_alloc(cache);
}

static void free_object(void *object, void *cache)
{
    quire_cache_free(cache, object);
}

Q_PUBLIC struct quire_mempool *quire_mempool_create_cache(size_t min_nr, struct quire_cache *cache)
{
    if (!q_cache_valid((const struct q_cache *)cache)) {
        fail(EINVAL);
        return NULL;
    }
    return create(
        min_nr, &(struct pool){
                    .alloc = alloc_object, .release = free_object, .data = cache, .cache = cache});
}

static void *alloc_block(void *pool)
{
    return q_alloc(((struct pool *)pool)->size, 16, false);
}

static void free_block(void *p, void *pool)
{
    q_free_slow(p, "quire_mempool_free");
}

Q_PUBLIC struct quire_mempool *quire_mempool_create_malloc(size_t min_nr, size_t size)
{
    if (size == 0) {
        fail(EINVAL);
        return NULL;
    }
    return create(min_nr,
                  &(struct pool){.alloc = alloc_block, .release = free_block, .size = size});
}

static void *alloc_or_wait(struct pool *pool, unsigned flags)
{
    void *p = pool->alloc(pool->data);

    if (q_likely(p != NULL))
        return p;
    atomic_fetch_add_explicit(&pool->from_reserve, 1, memory_order_relaxed);
    p = take(pool);
    if (p != NULL || (flags & QUIRE_MEMPOOL_NOWAIT) != 0)
        return p;
    atomic_fetch_add_explicit(&pool->waits, 1, memory_order_relaxed);
    while ((p = wait_for_one(pool)) == NULL && (p = take(pool)) == NULL &&
           (p = pool->alloc(pool->data)) == NULL)
        ;
    return p;
}

Q_PUBLIC void *quire_mempool_alloc(struct quire_mempool *outer, unsigned flags)
{
    struct pool *pool = inner(outer);
    int saved = errno;

    if (!valid("quire_mempool_alloc", pool))
        return NULL;
    if ((flags & ~QUIRE_MEMPOOL_NOWAIT) != 0) {
        fail(EINVAL);
        return NULL;
    }
    void *p = alloc_or_wait(pool, flags);
    if (p == NULL) {
        fail(ENOMEM);
        return NULL;
    }
    /* Relaxed: a sum; who destroys the pool comes after all others. */
    atomic_fetch_add_explicit(&pool->in_use, 1, memory_order_relaxed);
    errno = saved;
    return p;
}

/* Before p goes into the reserve: the allocator will not look at it for long. */
static const char *wrong_with(struct pool *pool, const void *p)
{
    if (holds(pool, p))
        return "already free";
    if (pool->cache != NULL && !quire_cache_owns(pool->cache, p))
        return "not a live object of the pool's cache";
    /* In a signal handler that interrupted the allocator the size of a large block cannot be asked for. */
    if (pool->size != 0 && !q_interrupted() && q_size_of(p) < pool->size)
        return "not a live block of the pool's size";
    return NULL;
}

Q_PUBLIC void quire_mempool_free(struct quire_mempool *outer, void *p)
{
    static const char caller[] = "quire_mempool_free";
    struct pool *pool = inner(outer);
    int saved = errno;

    if (p == NULL || !valid(caller, pool))
        return;
    if (atomic_load_explicit(&pool->in_use, memory_order_relaxed) == 0) {
        complain(caller, pool, p, "more elements than the pool gave");
        return;
    }
    /* See the head of this file. */
    if (q_unlikely(atomic_load_explicit(&pool->held, memory_order_relaxed) <
                   atomic_load_explicit(&pool->min_nr, memory_order_relaxed))) {
        const char *wrong = wrong_with(pool, p);

        if (wrong != NULL) {
            complain(caller, pool, p, wrong);
            return;
        }
        if (put(pool, p))
            p = NULL;
    }
    if (p != NULL)
        pool->release(p, pool->data);
    atomic_fetch_sub_explicit(&pool->in_use, 1, memory_order_relaxed);
    wake(pool);
    errno = saved;
}

Q_PUBLIC int quire_mempool_resize(struct quire_mempool *outer, size_t min_nr)
{
    struct pool *pool = inner(outer);
    void *p;

    if (!valid("quire_mempool_resize", pool))
        return -1;
    if (min_nr == 0 || min_nr > MAX_NR)
        return (int)fail(EINVAL) - 1;
    if (q_interrupted())
        return (int)fail(EAGAIN) - 1;
    if (!make_room(pool, min_nr))
        return (int)fail(ENOMEM) - 1;
    /* First, so that what is freed meanwhile stays. */
    size_t old = atomic_exchange_explicit(&pool->min_nr, min_nr, memory_order_relaxed);
    if (!fill(pool, min_nr)) {
        atomic_store_explicit(&pool->min_nr, old, memory_order_relaxed);
        return (int)fail(ENOMEM) - 1;
    }
    while (atomic_load_explicit(&pool->held, memory_order_relaxed) > min_nr &&
           (p = take(pool)) != NULL)
        pool->release(p, pool->data);
    return 0;
}

Q_PUBLIC int quire_mempool_destroy(struct quire_mempool *outer)
{
    struct pool *pool = inner(outer);

    if (outer == NULL)
        return 0;
    if (!valid("quire_mempool_destroy", pool))
        return -1;
    if (atomic_load_explicit(&pool->in_use, memory_order_relaxed) != 0)
        return (int)fail(EBUSY) - 1;
    destroy(pool);
    return 0;
}

Q_PUBLIC void quire_mempool_stat(const struct quire_mempool *outer, struct quire_mempool_stat *st)
{
    const struct pool *pool = inner(outer);

    *st = (struct quire_mempool_stat){0};
    if (!valid("quire_mempool_stat", pool))
        return;
    st->min_nr = atomic_load_explicit(&pool->min_nr, memory_order_relaxed);
    st->reserve = atomic_load_explicit(&pool->held, memory_order_relaxed);
    st->in_use = atomic_load_explicit(&pool->in_use, memory_order_relaxed);
    st->from_reserve = atomic_load_explicit(&pool->from_reserve, memory_order_relaxed);
    st->waits = atomic_load_explicit(&pool->waits, memory_order_relaxed);
}
