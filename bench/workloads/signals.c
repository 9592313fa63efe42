/*
 * signals: threads allocate while a timer interrupts the process thousands of times a second. The
 * handler does what a handler may: it counts and writes to its own stack. What is measured is how
 * an allocator bears being interrupted anywhere, above all one whose sequences start over then.
 */
#include "common.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define USAGE "[THREADS [OPERATIONS [PER_SECOND]]]   (2, 400000, 5000)"

#define ALIVE 512

struct worker {
    pthread_t thread;
    unsigned long operations;
    uint64_t seed;
    uint64_t sum;
};

static volatile sig_atomic_t interruptions;

static void interrupted(int number)
{
    volatile unsigned char scratch[512];

    (void)number;
    for (size_t i = 0; i < sizeof(scratch); i++)
        scratch[i] = (unsigned char)i;
    interruptions++;
}

static void *run(void *arg)
{
    struct worker *worker = arg;
    struct object *objects = calloc(ALIVE, sizeof(*objects));
    struct rng rng = {worker->seed};

    if (!objects)
        fail("no memory for %d objects", ALIVE);
    for (unsigned long i = 0; i < worker->operations; i++) {
        struct object *object = &objects[rng_below(&rng, ALIVE)];

        if (object->at) {
            worker->sum += object->key;
            object_drop(object);
        }
        object_make(object, rng_size_skewed(&rng, 16, 2000), (uint32_t)rng_next(&rng));
    }
    for (int i = 0; i < ALIVE; i++) {
        if (objects[i].at)
            object_drop(&objects[i]);
    }
    free(objects);
    return NULL;
}

static timer_t start_timer(unsigned per_second)
{
    struct sigaction action = {.sa_handler = interrupted, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec times;
    timer_t timer;

    memset(&times, 0, sizeof(times));
    times.it_interval.tv_nsec = times.it_value.tv_nsec = 1000000000L / per_second;
    if (sigaction(SIGALRM, &action, NULL) || timer_create(CLOCK_MONOTONIC, &event, &timer) ||
        timer_settime(timer, 0, &times, NULL))
        fail("cannot start a timer");
    return timer;
}

int main(int argc, char **argv)
{
    unsigned count = (unsigned)argument(argc, argv, 1, 2, 1, 256, USAGE);
    unsigned long operations = argument(argc, argv, 2, 400000, 1, 4000000000UL, USAGE);
    unsigned per_second = (unsigned)argument(argc, argv, 3, 5000, 2, 100000, USAGE);
    struct worker *workers = calloc(count, sizeof(*workers));
    timer_t timer;
    uint64_t sum = 0;

    if (!workers)
        fail("no memory for %u threads", count);
    timer = start_timer(per_second);
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.operations = operations, .seed = 31 + i};
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]))
            fail("cannot start thread %u", i);
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        sum += workers[i].sum;
    }
    timer_delete(timer);
    if (!interruptions)
        fail("no signal came");
    free(workers);
    printf("ok signals sum=%llx\n", (unsigned long long)sum);
    return 0;
}
