/*
 * salvage.c - children of a fork that copied the page layer in the middle of a change.
 *
 * A thread allocates and frees; a signal stops it anywhere, and its handler waits for a fork of the
 * main thread, as it does when it forks itself. So the fork cannot have the locks that the thread
 * holds, and its child must make do with lists that are half changed.
 */
#include "core.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "zone/fork.h"
#include "zone/salvage.h"

#define ROUNDS 3000
#define ENOUGH 15
#define HELD 48

struct holding {
    void *p[HELD];
    size_t nr[HELD];
    uint8_t kind[HELD];
};

enum { RUN, SLAB, MAPPING };

static void drop(struct holding *h, size_t i)
{
    unsigned written = (unsigned)q_min(h->nr[i], 16);

    must(core_stamped(h->p[i], h->nr[i], (uintptr_t)h->p[i]));
    if (h->kind[i] == RUN)
        q_free_run(q_virt_to_page(h->p[i]));
    else if (h->kind[i] == SLAB)
        q_free_slab_pages(q_virt_to_page(h->p[i]), written);
    else
        must(q_vfree(h->p[i]));
    h->p[i] = NULL;
}

/* One step: give something back, or take something and write to it. */
static void step(struct holding *h, struct rng *r)
{
    size_t i = rng_below(r, HELD), dirty;
    unsigned written;

    if (h->p[i] != NULL) {
        drop(h, i);
        return;
    }
    h->kind[i] = (uint8_t)rng_below(r, 3);
    h->nr[i] = 1 + rng_below(r, 30);
    if (h->kind[i] == RUN) {
        struct q_page *page = q_alloc_run(Q_GFP_MOVABLE, h->nr[i]);
        must(page != NULL);
        h->p[i] = q_page_address(page);
    } else if (h->kind[i] == SLAB) {
        struct q_page *page = q_alloc_slab_pages(16, &written);
        must(page != NULL);
        h->nr[i] = Q_SLAB_SIZE >> q_page_shift;
        h->p[i] = q_page_address(page);
    } else {
        must((h->p[i] = q_vmalloc(h->nr[i] << q_page_shift, 1, &dirty)) != NULL);
    }
    core_stamp(h->p[i], h->nr[i], (uintptr_t)h->p[i]);
}

static _Atomic bool stop;

static void *worker(void *arg)
{
    static struct holding h;
    struct rng r = {7};

    while (!stop)
        step(&h, &r);
    return NULL;
}

static void wait_for_the_fork(int number)
{
    q_fork_begin(false);
    q_fork_end();
}

static bool is_lost(struct q_lock *l)
{
    return l->word != 0 && !q_lock_is_mine(l);
}

static bool any_lost(void)
{
    bool lost = is_lost(&q_vm_lock);

    for (unsigned type = 0; type < Q_NR_ZONES; type++) {
        lost |= is_lost(&core_zone(0, type)->lock);
        for (unsigned cpu = 0; cpu < q_topology.nr_cpus; cpu++)
            lost |= is_lost(&core_zone(0, type)->pcp[cpu].lock);
    }
    return lost;
}

/* Ends with 1 where a lock was lost, and everything works all the same. */
static void child(void)
{
    static struct holding h;
    struct rng r = {11};
    bool lost = any_lost();

    alarm(200);
    q_zone_fork_child();
    q_fork_end_child();
    for (int i = 0; i < 600; i++) {
        if (i % 200 == 0)
            for (unsigned type = 0; type < Q_NR_ZONES; type++)
                q_zone_verify(core_zone(0, type));
        step(&h, &r);
    }
    _exit(lost);
}

static void forks(enum core_kind kind)
{
    struct sigaction action = {.sa_handler = wait_for_the_fork};
    unsigned nr_lost = 0;
    pthread_t t;

    core_start(kind);
    must(sigaction(SIGUSR1, &action, NULL) == 0);
    must(pthread_create(&t, NULL, worker, NULL) == 0);
    for (unsigned round = 0; round < ROUNDS && nr_lost < ENOUGH; round++) {
        int status = -1;

        must(pthread_kill(t, SIGUSR1) == 0);
        q_fork_begin(true);
        q_zone_fork_prepare(true);
        pid_t pid = fork();
        if (pid == 0)
            child();
        q_zone_fork_parent();
        q_fork_end();
        must(pid > 0 && waitpid(pid, &status, 0) == pid);
        must(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
        nr_lost += WEXITSTATUS(status) == 1;
    }
    stop = true;
    pthread_join(t, NULL);
    must(nr_lost > 0);
}

/* Stopped by the signal after a block of the frontier was listed and before the frontier moved on. */
static void cut_in_part(enum core_kind kind)
{
    struct q_free_how how = {.mobility = Q_UNMOVABLE, .fresh = true};
    struct q_page *page[8];

    core_start(kind);
    struct q_zone *zone = core_zone(0, Q_ZONE_NORMAL);
    must(q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER) != NULL);
    must(zone->frontier < zone->frontier_end || q_zone_grow(zone));
    q_buddy_free(&zone->buddy, q_pfn_to_page(zone->frontier), zone->frontier, Q_MAX_ORDER, how);
    q_zone_salvage(zone);
    for (size_t i = 0; i < 8; i++) {
        must((page[i] = q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER)) != NULL);
        for (size_t k = 0; k < i; k++)
            must(page[i] != page[k]);
    }
    core_check();
}

Test(salvage, cut_in_part_flat)
{
    cut_in_part(CORE_FLAT);
}

Test(salvage, cut_in_part_sparse)
{
    cut_in_part(CORE_SPARSE);
}

/* Stopped where a zone has grown, and not all of its words say so. */
Test(salvage, grown_in_part)
{
    core_start(CORE_FLAT);
    struct q_zone *zone = core_zone(0, Q_ZONE_NORMAL);
    must(q_zone_grow(zone));
    size_t present = zone->present_pages;
    zone->present_pages = 0;
    q_zone_salvage(zone);
    must_eq(zone->present_pages, present);
}

Test(salvage, grown_in_part_sparse)
{
    core_start(CORE_SPARSE);
    struct q_zone *normal = core_zone(0, Q_ZONE_NORMAL), *movable = core_zone(0, Q_ZONE_MOVABLE);

    must(q_zone_grow(normal));
    size_t old_end = normal->frontier = normal->frontier_end; /* as if it had been cut off */
    must(q_zone_grow(movable) && q_zone_grow(normal));
    size_t start = normal->frontier, end = normal->frontier_end;
    normal->frontier_end = old_end;
    q_zone_salvage(normal);
    must_eq(normal->frontier, normal->frontier_end);
    normal->frontier = old_end;
    normal->frontier_end = end;
    q_zone_salvage(normal);
    must_eq(normal->frontier, normal->frontier_end);
    normal->frontier = start;
    q_zone_salvage(normal);
    must(normal->frontier == start && normal->frontier_end == end);
}

Test(salvage, flat, .timeout = 600)
{
    forks(CORE_FLAT);
}

Test(salvage, sparse, .timeout = 600)
{
    forks(CORE_SPARSE);
}
