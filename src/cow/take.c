/* take.c - snapshots come and go. See cow.h for the cut and the locks. */
#include <pthread.h>
#include <time.h>

#include "cow/cow.h"
#include "cow/own.h"
#include "cow/share.h"
#include "cow/sigbus.h"
#include "slab/arena.h"
#include "slab/cache.h"
#include "slab/heap.h"
#include "zone/fork.h"
#include "zone/vmalloc.h"

#define PATIENCE_NS 10000000000u /* for mappings on their way; each takes milliseconds at most */

static struct q_lock api_lock;

void q_cow_lock_api(void)
{
    q_lock(&api_lock);
}

void q_cow_unlock_api(void)
{
    q_unlock(&api_lock);
}

void q_cow_api_reset(void)
{
    q_lock_reset(&api_lock);
}

/* --- structures ------------------------------------------------------------------------------ */

struct quire_snapshot *q_snapshot_new(int method)
{
    struct quire_snapshot *s =
        q_mmap(NULL, q_align_up(sizeof(*s), q_page_size()), PROT_READ | PROT_WRITE, 0);

    if (s == NULL)
        return NULL;
    s->magic = Q_SNAPSHOT_MAGIC;
    s->pid = q_getpid();
    s->method = method;
    s->holder_proc.fd = s->holder_mem.fd = s->holder_pipe.fd = -1;
    return s;
}

void q_snapshot_free(struct quire_snapshot *s)
{
    q_ranges_free(&s->ranges);
    if (s->undo != NULL)
        q_undo_leave_heap(s->undo);
    q_undo_free(s->undo);
    q_blocks_free(&s->blocks);
    s->magic = 0;
    q_munmap(s, q_align_up(sizeof(*s), q_page_size()));
}

int q_snapshot_check(const struct quire_snapshot *s)
{
    if (s == NULL || s->magic != Q_SNAPSHOT_MAGIC || s->released)
        return EINVAL;
    return s->pid == q_getpid() ? 0 : ESTALE;
}

/* --- the cut --------------------------------------------------------------------------------- */

/* Not one to go back to, which would bring the locks back as they were held; nobody else allocates then. */
static bool shows_caches(const struct quire_snapshot *s)
{
    return s->heap == NULL && s->undo == NULL;
}

static void unlock_zones(struct quire_snapshot *s)
{
    q_zone_fork_parent();
    if (shows_caches(s))
        q_caches_unlock();
    if (s->heap != NULL)
        q_arena_leave(s->heap);
}

/*
 * The lock of the heap that this is a snapshot of, if any; those of object
 * caches, so that it shows them whole (objects.c); all locks of src/zone,
 * with no mapping on its way between two addresses; and that of forks, where
 * this is to be one. It comes before the others, so it is only tried.
 */
static bool lock_zones(struct quire_snapshot *s, bool fork_too)
{
    struct timespec little = {.tv_nsec = 20000};
    uint64_t start = q_clock_coarse();

    do {
        if (s->heap != NULL)
            q_arena_enter(s->heap);
        if (shows_caches(s))
            q_caches_lock();
        q_zone_fork_prepare(true);
        if (q_vsettled() && (!fork_too || q_share_fork_trylock()))
            return true;
        unlock_zones(s);
        q_arch_syscall6(SYS_nanosleep, (long)&little, 0, 0, 0, 0, 0);
    } while (q_clock_coarse() - start < PATIENCE_NS);
    return false;
}

static bool in_window(const struct q_range *r)
{
    return r->start - q_mem.base < q_mem.size;
}

/* Mappings of their own, and sections, come and go. Registering one again costs little. */
static int register_ranges(const struct q_ranges *ranges)
{
    for (size_t i = 0; i < ranges->nr; i++) {
        const struct q_range *r = &ranges->at[i];

        if (!in_window(r) && !q_bus_register_rest(r->start, r->end))
            return EPERM;
    }
    return 0;
}

/*
 * Before Linux 6.4 pages that were never touched cannot be protected: let
 * reads of them come from the page of zeroes, which can.
 */
static int touch_ranges(const struct q_ranges *ranges)
{
    if ((q_cow_uffd()->features & Q_UFFD_WP_UNPOPULATED) != 0)
        return 0;
    for (size_t i = 0; i < ranges->nr; i++)
        if (q_madvise((void *)ranges->at[i].start, ranges->at[i].end - ranges->at[i].start,
                      22 /* MADV_POPULATE_READ */) != 0)
            return EPERM;
    return 0;
}

/*
 * q_store.lock held. On failure, what is protected already is opened again.
 * What was moved aside is protected there. That need not be all of a stretch:
 * the program may have split its mapping, or the zone have grown.
 */
static int protect(const struct q_ranges *ranges, bool moved)
{
    for (size_t i = 0; i < ranges->nr; i++) {
        uintptr_t at = ranges->at[i].start, end;

        for (; at < ranges->at[i].end; at = end) {
            end = ranges->at[i].end;
            if (moved && q_sweep_moved(at, &end))
                continue;
            if (q_uffd_protect(q_cow_uffd(), at, end - at, true) != 0)
                return EIO;
        }
    }
    return 0;
}

/* The stack that this runs on would be protected, and the handler wait for it. */
bool q_cow_stack_in(const struct q_ranges *ranges)
{
    return q_ranges_find(ranges, (uintptr_t)__builtin_frame_address(0)) != NULL ||
           q_ranges_find(ranges, q_thread_pointer()) != NULL;
}

/* Zone locks held. False: no memory. */
static bool collect_blocks(struct quire_snapshot *s)
{
    return !s->sized || q_blocks_collect(&s->blocks, &s->ranges);
}

/*
 * Zone locks held, and that of the heap, if it is of one. False: no memory, or nothing to show. To
 * an empty heap one can go back.
 */
static bool collect(struct quire_snapshot *s)
{
    bool all = s->heap != NULL ? q_ranges_collect_arena(&s->ranges, s->heap)
                               : q_ranges_collect(&s->ranges);

    return all && (s->ranges.nr > 0 || s->undo != NULL) && collect_blocks(s);
}

/* Zone locks held, signals blocked. */
static int prepare(struct quire_snapshot *s)
{
    int error = collect(s) ? 0 : ENOMEM;
    const struct q_ranges *guarded = q_cow_guarded(s);

    if (error == 0 && s->undo != NULL)
        error = s->heap != NULL ? q_undo_collect_heap(s->undo, s->heap) : q_undo_collect(s->undo);
    if (error == 0 && q_cow_stack_in(guarded))
        error = EDEADLK;
    if (error == 0)
        error = register_ranges(guarded);
    return error != 0 ? error : touch_ranges(guarded);
}

/* Zone locks and q_store.lock held, signals blocked. 0 or an errno. */
static uintptr_t cut_now(uintptr_t snapshot, uintptr_t lazy)
{
    struct quire_snapshot *s = (struct quire_snapshot *)snapshot;
    uint64_t t = q_clock_fine();

    s->epoch = ++q_cow.epoch;
    /* Relaxed: see quire_snapshot_touch(). */
    atomic_store_explicit(&q_cow.guarding, true, memory_order_relaxed);
    s->moved_bytes = lazy ? q_sweep_cut() : 0;
    int error = protect(q_cow_guarded(s), s->moved_bytes > 0);
    q_cow.cuts++;
    if (s->undo != NULL)
        s->undo->opened_at = s->epoch;
    s->older = q_cow.live;
    q_cow.live = s;
    if (error != 0) {
        q_cow_lose(error); /* the others, too: some of their pages are open now */
        q_cow.live = s->older;
        /* Not its own fault: a holder may still serve it. */
        atomic_store_explicit(&s->error, 0, memory_order_relaxed);
        s->epoch = 0;
    }
    if (s->moved_bytes > 0)
        q_sweep_publish();
    s->pause_ns = q_clock_fine() - t;
    return (uintptr_t)error;
}

/* Zone locks held, signals blocked. */
static int cut(struct quire_snapshot *s, bool lazy)
{
    int error = prepare(s);

    if (error != 0)
        return error;
    /* This stack is not in it, or that would be refused; but it may be in an earlier one. */
    error = (int)q_own_run(cut_now, (uintptr_t)s, lazy);
    q_cow_hold(q_cow.live != NULL);
    return error;
}

static int take_by_protection(struct quire_snapshot *s, bool lazy)
{
    int error = EAGAIN;

    s->faults_before = atomic_load_explicit(&q_cow.faults, memory_order_relaxed);
    s->saved_before = atomic_load_explicit(&q_cow.saved, memory_order_relaxed);
    s->touched_before = atomic_load_explicit(&q_cow.touched, memory_order_relaxed);
    s->own_faults_before = atomic_load_explicit(&q_cow.own_faults, memory_order_relaxed);
    q_store_populate();
    q_sweep_finish();
    if (!q_sweep_mend())
        return EIO;
    if (lazy)
        q_sweep_prepare();
    uint64_t mask = q_signals_block();
    q_enter();
    if (lock_zones(s, false)) {
        error = cut(s, lazy);
        unlock_zones(s);
    }
    q_leave();
    q_signals_restore(mask);
    if (lazy)
        q_sweep_start(s->moved_bytes > 0);
    return error;
}

static int take_by_holder(struct quire_snapshot *s)
{
    int error = EAGAIN;

    q_sweep_finish(); /* a child has no other way to it */
    uint64_t mask = q_signals_block();

    q_enter();
    if (lock_zones(s, true)) {
        uint64_t t = q_clock_fine();
        error = collect(s) ? q_holder_start(s) : ENOMEM;
        s->pause_ns = q_clock_fine() - t;
        unlock_zones(s);
        q_share_fork_unlock();
    }
    q_leave();
    q_signals_restore(mask);
    return error;
}

struct take_args {
    unsigned flags;
    struct q_arena *heap;
    struct quire_snapshot *result;
    int error;
};

void (*q_cow_settle_hook)(void);

void q_cow_settle(void)
{
    if (q_cow_settle_hook != NULL)
        q_cow_settle_hook();
}

/* A heap that needs no handler, in a process that has none. */
static bool by_its_writers(const struct q_arena *a)
{
    return a != NULL && a->sigbus && q_uffd_ours(&q_bus.uffd) && q_store_init();
}

/* What can be gone back to is made by protection alone, and all memory in the models with a window. */
static int prepare_rollback(struct quire_snapshot *s)
{
    const char *why;

    if (q_mem.sparse && s->heap == NULL)
        return ENOTSUP;
    s->undo = q_undo_new();
    if (s->undo == NULL)
        return ENOMEM;
    int error = q_cow_start(&why);
    if (error != 0 && !by_its_writers(s->heap))
        return error == EPERM ? ENOTSUP : error;
    if (s->heap != NULL)
        return q_undo_new_heap(s->undo) ? 0 : ENOMEM;
    q_cow_settle();
    q_heap_get();
    q_heap_adopt_orphans();
    return 0;
}

static int take_rollback(struct take_args *a)
{
    uint64_t t = q_clock_fine();
    struct quire_snapshot *s = q_snapshot_new(QUIRE_SNAPSHOT_BY_PROTECTION);

    if (s == NULL)
        return ENOMEM;
    s->heap = a->heap;
    int error = prepare_rollback(s);
    if (error == 0)
        error = take_by_protection(s, false);
    s->take_ns = q_clock_fine() - t;
    if (error != 0)
        q_snapshot_free(s);
    else
        a->result = s;
    return error == EPERM ? ENOTSUP : error;
}

static int take(struct take_args *a)
{
    const char *why = "not asked for";
    int error = EPERM;
    uint64_t t = q_clock_fine();

    struct quire_snapshot *s = q_snapshot_new(QUIRE_SNAPSHOT_BY_PROTECTION);
    if (s == NULL)
        return ENOMEM;
    s->sized = (a->flags & QUIRE_SNAPSHOT_SIZES) != 0;
    s->heap = a->heap;
    if ((a->flags & QUIRE_SNAPSHOT_HOLDER) == 0 &&
        (q_cow_start(&why) == 0 || by_its_writers(a->heap)))
        error = 0;
    if (error == 0) {
        error = take_by_protection(s, (a->flags & QUIRE_SNAPSHOT_LAZY) != 0);
        why = "the heap could not be protected";
    }
    if (error == EPERM || error == EIO) {
        s->method = QUIRE_SNAPSHOT_BY_HOLDER;
        s->why_not = why;
        error = take_by_holder(s);
    }
    s->take_ns = q_clock_fine() - t;
    if (error != 0)
        q_snapshot_free(s);
    else
        a->result = s;
    return error;
}

/* From a stack in the heap: let another thread do it. */
static void *take_elsewhere(void *arg)
{
    struct take_args *a = arg;

    a->error = take(a);
    return NULL;
}

/* All memory, or a heap of the program's that snapshots cover and the caller may use. */
static bool may_show(const struct q_arena *a)
{
    return a == NULL ||
           (q_arena_valid(a) && a->special == 0 && (!a->single || a->owner == q_thread_pointer()));
}

Q_PUBLIC quire_snapshot_t *quire_snapshot_take(void *heap, unsigned flags)
{
    struct take_args a = {.flags = flags, .heap = heap};
    pthread_t thread;

    unsigned how = flags & ~QUIRE_SNAPSHOT_SIZES;
    if ((heap != NULL && (flags & ~(QUIRE_SNAPSHOT_HOLDER | QUIRE_SNAPSHOT_ROLLBACK)) != 0) ||
        !may_show(heap) ||
        (how != 0 && how != QUIRE_SNAPSHOT_HOLDER && how != QUIRE_SNAPSHOT_LAZY &&
         flags != QUIRE_SNAPSHOT_ROLLBACK)) {
        errno = EINVAL;
        return NULL;
    }
    if (q_nodes[0] == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    q_cow_lock_api();
    a.error = flags == QUIRE_SNAPSHOT_ROLLBACK ? take_rollback(&a) : take(&a);
    if (a.error == EDEADLK && flags != QUIRE_SNAPSHOT_ROLLBACK) {
        int old;
        /* Waiting for it would be a place to be cancelled at, with the lock held. */
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
        a.error = pthread_create(&thread, NULL, take_elsewhere, &a);
        if (a.error == 0)
            pthread_join(thread, NULL);
        pthread_setcancelstate(old, NULL);
    }
    q_cow_unlock_api();
    if (a.error != 0)
        errno = a.error;
    return a.result;
}
