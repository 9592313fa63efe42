/* shrink.c - see shrink.h and quire/shrinker.h. */
#include "malloc/shrink.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <time.h>

#include "base/opt.h"
#include "malloc/malloc.h"
#include "quire/shrinker.h"
#include "zone/movable.h"
#include "zone/page_alloc.h"

#define LIVE (1u << 31)
#define TRIES_MAX 16u               /* as the kernel's MAX_RECLAIM_RETRIES */
#define BUSY_NS 1000000l            /* until whoever holds the program's lock may be done */
#define ASK_MIN ((size_t)256 << 10) /* less is not worth a walk */

struct quire_shrinker {
    _Atomic uint32_t state;
    size_t (*count)(void *arg);
    size_t (*scan)(void *arg, size_t bytes);
    void *arg;
    const char *name;
};

static struct quire_shrinker shrinkers[QUIRE_NR_SHRINKERS];

/* This thread is asking: what fails in a callback fails. */
static __thread bool inside __attribute__((tls_model("initial-exec")));

/* The one whose callback it is in, about to enter or just leaving. */
static __thread struct quire_shrinker *current __attribute__((tls_model("initial-exec")));

static bool enter(struct quire_shrinker *s)
{
    uint32_t old = atomic_load_explicit(&s->state, memory_order_relaxed);

    current = s;
    /* Compiler only: what a signal handler that forks may see. */
    atomic_signal_fence(memory_order_seq_cst);
    do {
        if ((old & LIVE) == 0) {
            current = NULL;
            return false;
        }
        /* Acquire: the callbacks, stored before LIVE was set. */
    } while (!atomic_compare_exchange_weak_explicit(&s->state, &old, old + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    return true;
}

static void leave(struct quire_shrinker *s)
{
    /* Release: what the callback did comes before the unregistering that waits, with its 1. */
    if (atomic_fetch_sub_explicit(&s->state, 1, memory_order_release) == 2)
        q_futex(&s->state, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX);
    atomic_signal_fence(memory_order_seq_cst);
    current = NULL;
}

/* What each has, 0 where there is none; all of it in *total. */
static void count_all(size_t have[QUIRE_NR_SHRINKERS], size_t *total, bool *busy)
{
    *total = 0;
    for (unsigned i = 0; i < QUIRE_NR_SHRINKERS; i++) {
        have[i] = 0;
        if (!enter(&shrinkers[i]))
            continue;
        have[i] = shrinkers[i].count(shrinkers[i].arg);
        leave(&shrinkers[i]);
        if (have[i] == QUIRE_SHRINK_BUSY) {
            *busy = true;
            have[i] = 0;
        }
        have[i] = q_min(have[i], SIZE_MAX / QUIRE_NR_SHRINKERS);
        *total += have[i];
    }
}

size_t q_shrink(size_t bytes, size_t least, bool *busy)
{
    size_t have[QUIRE_NR_SHRINKERS], total, freed = 0;
    int saved = errno;

    *busy = false;
    if (inside)
        return 0;
    inside = true;
    count_all(have, &total, busy);
    if (total < least)
        total = bytes = 0; /* all of it would be given up in vain */
    else if (bytes == 0)
        bytes = total / 8;
    for (unsigned i = 0; i < QUIRE_NR_SHRINKERS && freed < bytes; i++) {
        /* In proportion, but no crumbs. */
        size_t share = total > 0 ? (size_t)((double)bytes * (double)have[i] / (double)total) : 0;

        if (have[i] == 0 || !enter(&shrinkers[i]))
            continue;
        size_t got =
            shrinkers[i].scan(shrinkers[i].arg, q_min(q_max(share, q_page_size()), have[i]));
        *busy |= got == QUIRE_SHRINK_BUSY;
        freed += got != QUIRE_SHRINK_BUSY ? got : 0;
        leave(&shrinkers[i]);
    }
    inside = false;
    errno = saved;
    return freed;
}

bool q_memory_is_short(size_t bytes, unsigned *tries)
{
    size_t in_use = atomic_load_explicit(&q_pages_in_use, memory_order_relaxed) << q_page_shift;
    size_t need = bytes;

    if (*tries >= TRIES_MAX || bytes > Q_REQUEST_MAX || q_interrupted())
        return false;
    if (q_opt.limit != 0 && in_use + bytes > q_opt.limit)
        need = in_use + bytes - q_opt.limit;
    /* Harder each time: what is freed need not lie together. */
    size_t more = q_max(need, ASK_MIN) * (1 + *tries);
    bool busy;
    if (q_shrink(more, ++*tries == 1 ? need : 0, &busy) > 0)
        return true;
    if (busy)
        q_arch_syscall6(SYS_nanosleep, (long)&(struct timespec){0, BUSY_NS}, 0, 0, 0, 0, 0);
    return busy;
}

Q_PUBLIC quire_shrinker_t *quire_shrinker_register(const char *name, size_t (*count)(void *arg),
                                                   size_t (*scan)(void *arg, size_t bytes),
                                                   void *arg)
{
    if (count == NULL || scan == NULL) {
        errno = EINVAL;
        return NULL;
    }
    for (unsigned i = 0; i < QUIRE_NR_SHRINKERS; i++) {
        struct quire_shrinker *s = &shrinkers[i];
        uint32_t none = 0;

        /* Claimed as if in a callback and not live, so that nobody calls it yet. */
        if (!atomic_compare_exchange_strong_explicit(&s->state, &none, 1, memory_order_acquire,
                                                     memory_order_relaxed))
            continue;
        s->name = name;
        s->count = count;
        s->scan = scan;
        s->arg = arg;
        /* Release: the fields before LIVE. */
        atomic_store_explicit(&s->state, LIVE, memory_order_release);
        return s;
    }
    errno = ENOSPC;
    return NULL;
}

Q_PUBLIC int quire_shrinker_unregister(quire_shrinker_t *s)
{
    size_t off = (uintptr_t)s - (uintptr_t)shrinkers;

    if (s == NULL)
        return 0;
    if (inside || off >= sizeof(shrinkers) || off % sizeof(*s) != 0) {
        errno = inside ? EDEADLK : EINVAL;
        return -1;
    }
    uint32_t old = atomic_load_explicit(&s->state, memory_order_relaxed);
    do {
        if ((old & LIVE) == 0) {
            errno = EINVAL;
            return -1;
        }
        /* LIVE becomes a 1 of this thread's, lest another be given the place meanwhile. */
    } while (!atomic_compare_exchange_weak_explicit(&s->state, &old, (old & ~LIVE) + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    /* Acquire: pairs with leave(). */
    while ((old = atomic_load_explicit(&s->state, memory_order_acquire)) > 1)
        q_futex(&s->state, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, old);
    /* Release: what was read of the place comes before it is another's. */
    atomic_store_explicit(&s->state, 0, memory_order_release);
    return 0;
}

Q_PUBLIC size_t quire_shrink(size_t bytes)
{
    size_t freed = 0;

    if (q_interrupted() || bytes == 0)
        return 0;
    q_enter();
    if (q_slub_init())
        freed = q_movable_shrink((bytes >> q_page_shift) + 1) << q_page_shift;
    q_leave();
    bool busy;
    return freed < bytes ? freed + q_shrink(bytes - freed, 0, &busy) : freed;
}

void q_shrink_fork_child(void)
{
    /* Relaxed: there is no other thread. One that forked in a callback still has to leave it. */
    for (unsigned i = 0; i < QUIRE_NR_SHRINKERS; i++) {
        struct quire_shrinker *s = &shrinkers[i];
        uint32_t old = atomic_load_explicit(&s->state, memory_order_relaxed);
        uint32_t mine = s == current && (old & ~LIVE) != 0;

        atomic_store_explicit(&s->state, (old & LIVE) | mine, memory_order_relaxed);
    }
}
