/*
 * stack.c - what a thread does with snapshots whose stack lies in the heap: at every depth, so that
 * each call comes to a page that was protected just now. Nobody waits for ever.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>

#include "quire/branch.h"
#include "quire/heap.h"
#include "steps.h"

enum { PAGE = 4096, STACK = 256 << 10, STEP = 16, WRITTEN = 64, BRANCHES = 50, ROUNDS = 200 };

enum { IDLE, CUT, IS_CUT, CLEAR, OVER };
static _Atomic int now;
static char *written;
static struct quire_heap *heap;
static quire_snapshot_t *taken[2];
static quire_branch_t *branch;

static int wait_for(int what)
{
    while (now != what && now != OVER)
        sched_yield();
    return now;
}

/* Saved pages of the older one: there is something to drop when it goes. */
static void *take_and_release(void *arg)
{
    for (;;) {
        if (wait_for(CUT) == OVER)
            return arg;
        for (int i = 0; i < 2; i++) {
            taken[i] = take_protected();
            for (int page = 0; i == 0 && page < WRITTEN; page += 2)
                written[page * PAGE]++;
        }
        branch = quire_branch(taken[1]);
        REQUIRE(branch != NULL);
        now = IS_CUT;
        wait_for(CLEAR);
        CHECK(branch == NULL || quire_branch_release(branch) == 0);
        for (int i = 0; i < 2; i++)
            CHECK(taken[i] == NULL || quire_snapshot_release(taken[i]) == 0);
        now = IDLE;
    }
}

static void release_older(void)
{
    CHECK(quire_snapshot_release(taken[0]) == 0);
    taken[0] = NULL;
}

static void release_newer(void)
{
    CHECK(quire_snapshot_release(taken[1]) == 0);
    taken[1] = NULL;
}

static void view(void)
{
    ptrdiff_t distance;

    CHECK(quire_snapshot_view(taken[1], &distance) == 0 && written[distance] == written[0]);
}

static void make_branch(void)
{
    quire_branch_t *b = quire_branch(taken[0]);

    CHECK(b != NULL && quire_branch_release(b) == 0);
}

static void release_branch(void)
{
    CHECK(quire_branch_release(branch) == 0);
    branch = NULL;
}

/* A cut that does not protect this stack, as an earlier one did. */
static void take_of_a_heap(void)
{
    quire_snapshot_t *s = quire_snapshot_take(heap, 0);

    CHECK(s != NULL && quire_snapshot_release(s) == 0);
}

static void (*const step[])(void) = {
    release_older, release_newer, view, make_branch, release_branch, take_of_a_heap,
};

static __attribute__((noinline)) void at_depth(size_t depth, void (*fn)(void))
{
    char *room = __builtin_alloca(depth);

    __asm__ volatile("" : : "r"(room)); /* it is not written */
    now = CUT;
    while (now != IS_CUT)
        sched_yield();
    fn();
    now = CLEAR;
    wait_for(IDLE);
}

static void *on_heap_stack(void *arg)
{
    for (size_t i = 0; i < COUNT_OF(step); i++)
        for (size_t depth = STEP; depth <= PAGE; depth += STEP)
            at_depth(depth, step[i]);
    return arg;
}

/* Run one on a stack of libc's, and one on a stack in the heap. */
static void run_both(void *(*elsewhere)(void *), void *(*in_heap)(void *))
{
    pthread_attr_t attr;
    pthread_t thread[2];

    pthread_attr_init(&attr);
    REQUIRE(pthread_attr_setstack(&attr, aligned_alloc(PAGE, STACK), STACK) == 0);
    REQUIRE(pthread_create(&thread[0], NULL, elsewhere, NULL) == 0);
    REQUIRE(pthread_create(&thread[1], &attr, in_heap, NULL) == 0);
    pthread_join(thread[1], NULL);
    now = OVER;
    pthread_join(thread[0], NULL);
}

static void every_depth(void)
{
    quire_snapshot_release(take_protected());
    heap = quire_heap_create(NULL);
    written = aligned_alloc(PAGE, WRITTEN * PAGE);
    REQUIRE(heap != NULL && quire_heap_alloc(heap, 100000) != NULL && written != NULL);
    memset(written, 1, WRITTEN * PAGE);
    run_both(take_and_release, on_heap_stack);
}

/* --- while others take snapshots ------------------------------------------------------------- */

static void *take_all_the_time(void *arg)
{
    while (now != OVER)
        CHECK(quire_snapshot_release(take(0)) == 0);
    return arg;
}

static void *release_branches(void *arg)
{
    quire_branch_t *some[BRANCHES];

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BRANCHES; i++) {
            some[i] = quire_branch(taken[0]);
            REQUIRE(some[i] != NULL);
        }
        for (int i = 0; i < BRANCHES; i++)
            CHECK(quire_branch_release(some[i]) == 0);
    }
    return arg;
}

/* A cut may come whenever no lock keeps it away. */
static void during_cuts(void)
{
    taken[0] = take_protected();
    run_both(take_all_the_time, release_branches);
    CHECK(quire_snapshot_release(taken[0]) == 0);
}

static const struct conform_case cases[] = {
    {"at every depth", every_depth, 120},
    {"while others take snapshots", during_cuts, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
