/*
 * init.c - when things are set up, and what happens at fork and at the end.
 *
 * The first allocation of the process, whoever makes it and however early,
 * sets up everything that allocation needs (q_slub_init). What needs a
 * working libc (fork handlers, the thread key) waits for the constructor,
 * which runs before any code that could start a second thread.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/msg.h"
#include "base/opt.h"
#include "cow/cow.h"
#include "cow/share.h"
#include "malloc/cgroup.h"
#include "malloc/malloc.h"
#include "malloc/reserve.h"
#include "malloc/shrink.h"
#include "quire/quire.h"
#include "quire/stat.h"
#include "slab/cache.h"
#include "stat/stat.h"
#include "zone/fork.h"

#define STRINGIFY2(x) #x
#define STRINGIFY(x) STRINGIFY2(x)
#define VERSION_STRING                                                                             \
    STRINGIFY(QUIRE_VERSION_MAJOR)                                                                 \
    "." STRINGIFY(QUIRE_VERSION_MINOR) "." STRINGIFY(QUIRE_VERSION_PATCH)

Q_PUBLIC struct quire_stat_page quire_stat_page = {
    .magic = QUIRE_STAT_MAGIC,
    .layout = QUIRE_STAT_LAYOUT,
    .size = sizeof(struct quire_stat_page),
    .version = VERSION_STRING,
};

Q_PUBLIC const char *quire_version(void)
{
    return VERSION_STRING;
}

/* Called from malloc.c, which also makes the linker take this file out of libquire.a. */
void q_malloc_first(void)
{
    /* Relaxed: whoever comes first, it says the same. */
    if (q_slub_init())
        __atomic_store_n(&quire_stat_page.serving, 1, __ATOMIC_RELAXED);
}

/*
 * From here to the end of the fork this thread holds all locks. A signal comes
 * in between all the more as the kernel keeps it back during the fork itself,
 * and other libraries' handlers may run: what they allocate is served as where
 * they interrupt the allocator.
 */
static void fork_prepare(void)
{
    /* Interrupted inside the allocator by the handler that forks: some locks are our own. */
    bool patient = !q_interrupted();

    q_enter();
    q_fork_begin(patient);
    q_share_fork_lock();
    q_slub_fork_prepare(patient);
    q_sweep_finish();
    q_zone_fork_prepare(patient);
    while (q_sweep_pending()) { /* a snapshot was quicker: a child would lack what it moved aside */
        q_zone_fork_parent();
        q_sweep_finish();
        q_zone_fork_prepare(patient);
    }
    q_share_fork_prepare();
}

static void fork_parent(void)
{
    q_share_fork_parent();
    q_zone_fork_parent();
    q_slub_fork_parent();
    q_share_fork_unlock();
    q_fork_end();
    q_leave();
}

static void reset_locks(void)
{
    q_zone_fork_child();
    q_slub_fork_child();
    q_stat_fork_child();
    q_fork_end_child();
    quire_stat_page.pid = (uint64_t)q_getpid();
}

static void fork_child(void)
{
    q_share_fork_child();
    reset_locks();
    q_lock_child_known();
    q_cow_fork_child();
    q_heap_after_fork();
    q_cache_after_fork();
    q_shrink_fork_child();
    q_leave();
}

/* The limit of the control group counts as the option does. No other thread is there yet. */
static void keep_to_cgroup(void)
{
    size_t limit = q_opt.cgroup[0] != '\0' ? q_cgroup_limit() : 0;

    if (limit != 0 && (q_opt.limit == 0 || limit < q_opt.limit))
        q_opt.limit = limit;
}

__attribute__((constructor(101))) static void quire_starts(void)
{
    if (!q_slub_init())
        return;
    q_lock_init(reset_locks);
    pthread_atfork(fork_prepare, fork_parent, fork_child);
    q_heap_hook_threads();
    q_cow_settle_hook = q_free_postponed;
    q_share_start();
    quire_stat_page.pid = (uint64_t)q_getpid();
    keep_to_cgroup();
    q_kswapd_start();
    if (q_opt.stats)
        q_stat_at_start();
}

__attribute__((destructor(101))) static void quire_ends(void)
{
    if (q_opt.stats)
        q_stat_at_exit();
}
