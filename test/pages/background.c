/*
 * background.c - the thread in the background (kswapd:1): memory goes back while nothing is called,
 * and the process ends all the same.
 *
 * Cases in parentheses are run by others, with options.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "pieces.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

/* Nothing is called any more after the last free, and all the same it goes back. */
static void idle(void)
{
    enum { BLOCKS = 300 };
    char *p[BLOCKS];

    only_with("kswapd:1");
    for (int i = 0; i < BLOCKS; i++) {
        REQUIRE((p[i] = malloc(100000)) != NULL);
        memset(p[i], 1, 100000);
    }
    size_t full = conform_resident();
    for (int i = 0; i < BLOCKS; i++)
        free(p[i]);
    for (int i = 0; i < 2000 && conform_resident() > full - (26 << 20); i++)
        nap();
    CHECK(conform_resident() <= full - (26 << 20), "%zu of %zu", conform_resident(), full);
}

static void *last_thread(void *arg)
{
    nap();
    return arg;
}

/* The process ends with its last thread, although the library's own are still there. */
static void end_main_thread(void)
{
    pthread_t thread;

    only_with("kswapd:1");
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    REQUIRE(pthread_create(&thread, NULL, last_thread, NULL) == 0);
    pthread_exit(NULL);
}

static void end_main_thread_with_snapshot(void)
{
    only_with("kswapd:1");
    REQUIRE(quire_snapshot_take(NULL, 0) != NULL);
    end_main_thread();
}

static void case_background(void)
{
    run_with("kswapd:1,decay_ms:50", "(idle)");
}

static void case_main_thread_ends(void)
{
    run_with("kswapd:1", "(main thread ends)");
    run_with("kswapd:1", "(main thread ends, with a snapshot)");
}

static const struct conform_case cases[] = {
    {"in the background", case_background, 120},
    {"the main thread ends", case_main_thread_ends, 30},
    {"(idle)", idle, 0},
    {"(main thread ends)", end_main_thread, 0},
    {"(main thread ends, with a snapshot)", end_main_thread_with_snapshot, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
