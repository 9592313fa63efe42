/*
 * kswapd.c - giving memory back in the background (option kswapd:1).
 *
 * Without it all upkeep is done by threads that allocate and free, and a
 * process that goes idle keeps what it had then. This thread looks ten times
 * a second:
 *
 *   always               what has rested for decay_ms goes back
 *   quiet for decay_ms   so does everything that is free, once
 *   memory is short      so it does, a quarter of what is discardable is
 *   outside (cgroup.h)   dropped, and shrinkers are asked for an eighth
 *
 * It has all signals blocked, holds no lock between rounds, and is not copied
 * by fork: a child that does not exec has none. A program whose other threads
 * have all ended it ends (base/helper.h).
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/helper.h"
#include "base/opt.h"
#include "malloc/cgroup.h"
#include "malloc/malloc.h"
#include "malloc/shrink.h"
#include "numa/topology.h"
#include "zone/movable.h"
#include "zone/page_alloc.h"
#include "zone/pageblock.h"
#include "zone/reclaim.h"
#include "zone/special.h"
#include "zone/vmalloc.h"

#define ROUND_MS 100
#define STACK_BYTES ((size_t)512 << 10)
#define ROUNDS_PER_LOOK 10u /* at the files that tell of pressure, and whether anybody is left */

/* What the zones have seen so far. Read without their locks: only whether it changes counts. */
static size_t count_events(void)
{
    size_t n = 0;

    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            const struct q_zone *zone = &q_nodes[nid]->zones[type];

            n += __atomic_load_n(&zone->nr_alloc, __ATOMIC_RELAXED) +
                 __atomic_load_n(&zone->nr_free_calls, __ATOMIC_RELAXED);
        }
    return n;
}

static void empty(void)
{
    q_reclaim_all(0);
    q_special_trim();
    q_vtrim(true);
}

void q_kswapd_round(struct q_kswapd *k, uint32_t now_ms)
{
    size_t events;

    q_enter();
    q_reclaim_tick();
    q_vtrim(false);
    events = count_events();
    if (events != k->events) {
        k->events = events;
        k->quiet_ms = now_ms;
        k->emptied = false;
    } else if (!k->emptied && now_ms - k->quiet_ms > q_opt.decay_ms) {
        empty();
        k->events = count_events(); /* emptying lists of CPUs counts, too */
        k->emptied = true;
    }
    q_leave();
}

static void relieve(void)
{
    q_enter();
    empty();
    q_movable_shrink(q_movable_droppable() / 4);
    q_leave();
    bool busy;
    q_shrink(0, 0, &busy);
}

static void *kswapd(void *arg)
{
    struct timespec pause = {0, ROUND_MS * 1000000l};
    struct q_kswapd k = {0, q_now_ms(), false};

    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-kswapd", 0, 0, 0, 0);
    q_helper_begin();
    for (unsigned round = 0;; round++) {
        q_arch_syscall6(SYS_nanosleep, (long)&pause, 0, 0, 0, 0, 0);
        q_kswapd_round(&k, q_now_ms());
        if (round % ROUNDS_PER_LOOK != 0)
            continue;
        if (q_cgroup_pressure())
            relieve();
        if (q_program_is_gone())
            q_program_end();
    }
    return arg;
}

void q_kswapd_start(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, old;

    if (!q_opt.kswapd)
        return;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    /* Where there can be no thread it is as without the option. */
    pthread_create(&thread, &attr, kswapd, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
}
