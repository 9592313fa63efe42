/*
 * young.c - many threads with few objects each: their first objects come from slabs that all share
 * (slab/young.h). What that saves, and that nothing else changes by it.
 */
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "conform.h"
#include "wrong.h"

enum { THREADS = 100, BLOCKS = 150, KIB = 1024, LARGEST = 2048 };

struct block {
    char *at; /* NULL: freed */
    size_t size;
};

struct worker {
    pthread_t thread;
    unsigned int id;
    struct block blocks[BLOCKS];
    size_t bytes;
};

static struct worker workers[THREADS];
static pthread_barrier_t made, go_on, done;

/* Of every size something, small ones more often. */
static size_t some_size(uint64_t *seed)
{
    size_t top = (size_t)32 << conform_random(seed) % 7;

    return 1 + conform_random(seed) % top;
}

static unsigned int mark_of(const struct worker *w, size_t i)
{
    return w->id * 1000 + (unsigned int)i;
}

static void make(struct worker *w)
{
    uint64_t seed = w->id;

    w->bytes = 0;
    for (size_t i = 0; i < BLOCKS; i++) {
        struct block *b = &w->blocks[i];

        b->size = some_size(&seed);
        b->at = malloc(b->size);
        REQUIRE(b->at != NULL);
        conform_fill(b->at, b->size, mark_of(w, i));
        w->bytes += b->size;
    }
}

/* Every stride-th, from `from` on. */
static void drop(struct worker *w, size_t from, size_t stride)
{
    for (size_t i = from; i < BLOCKS; i += stride) {
        struct block *b = &w->blocks[i];

        CHECK(conform_intact(b->at, b->size, mark_of(w, i)), "block %zu of %u", i, w->id);
        free(b->at);
        b->at = NULL;
    }
}

static void start(void *(*work)(void *))
{
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 128 * KIB);
    pthread_barrier_init(&made, NULL, THREADS + 1);
    pthread_barrier_init(&go_on, NULL, THREADS + 1);
    pthread_barrier_init(&done, NULL, THREADS + 1);
    for (unsigned int i = 0; i < THREADS; i++) {
        workers[i].id = i;
        REQUIRE(pthread_create(&workers[i].thread, &attr, work, &workers[i]) == 0);
    }
}

static void end(void)
{
    for (unsigned int i = 0; i < THREADS; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_barrier_destroy(&made);
    pthread_barrier_destroy(&go_on);
    pthread_barrier_destroy(&done);
}

static void *make_and_drop(void *arg)
{
    pthread_barrier_wait(&made); /* all have their stacks */
    pthread_barrier_wait(&go_on);
    make(arg);
    pthread_barrier_wait(&made);
    pthread_barrier_wait(&go_on);
    drop(arg, 0, 1);
    pthread_barrier_wait(&done);
    pthread_barrier_wait(&go_on);
    return NULL;
}

/* What threads take beyond what they have asked for, and that it is gone when all is freed and they wait. */
static void case_memory(void)
{
    size_t bytes = 0, before, full, after;

    start(make_and_drop);
    pthread_barrier_wait(&made);
    before = conform_anonymous();
    pthread_barrier_wait(&go_on);
    pthread_barrier_wait(&made);
    full = conform_anonymous();
    for (unsigned int i = 0; i < THREADS; i++)
        bytes += workers[i].bytes;
    /* heap, rest of what was drawn, rounding; a page for each class would be 100 KiB and more */
    CHECK(full - before < bytes + (size_t)THREADS * 24 * KIB, "%zu bytes asked for take %zu", bytes,
          full - before);
    pthread_barrier_wait(&go_on);
    pthread_barrier_wait(&done);
    malloc_trim(0);
    after = conform_anonymous();
    CHECK(after < before + (size_t)THREADS * 12 * KIB, "%zu bytes remain of %zu", after - before,
          full - before);
    pthread_barrier_wait(&go_on);
    end();
}

static void *make_only(void *arg)
{
    make(arg);
    pthread_barrier_wait(&made);
    pthread_barrier_wait(&go_on);
    return NULL;
}

/* Whoever frees them: their own thread, others, or the main thread after theirs have ended. */
static void *make_and_mix(void *arg)
{
    struct worker *w = arg;

    for (unsigned int round = 0; round < 3; round++) {
        make(w);
        pthread_barrier_wait(&made);
        pthread_barrier_wait(&go_on);
        drop(w, 0, 2);
        pthread_barrier_wait(&made);
        pthread_barrier_wait(&go_on);
        drop(&workers[(w->id + round + 1) % THREADS], 1, 2);
        pthread_barrier_wait(&made);
        pthread_barrier_wait(&go_on);
    }
    make(w);
    return NULL;
}

static void mixing(void)
{
    for (int i = 0; i < 9; i++) {
        pthread_barrier_wait(&made);
        pthread_barrier_wait(&go_on);
    }
    end();
    for (unsigned int i = 0; i < THREADS; i++)
        drop(&workers[i], 0, 1);
}

static void case_mixed_frees(void)
{
    size_t before = mallinfo2().uordblks;

    start(make_and_mix);
    mixing();
    malloc_trim(0);
    CHECK(mallinfo2().uordblks <= before + 64 * KIB, "from %zu to %zu in use", before,
          mallinfo2().uordblks);
}

/* --- without waiting for each other ----------------------------------------------------------- */

enum { TABLE = 512, EXCHANGES = 3000 };

static struct exchanged {
    size_t size;
    unsigned int mark;
    char content[];
} * _Atomic table[TABLE];

static void let_go(struct exchanged *e)
{
    if (e == NULL)
        return;
    CHECK(conform_intact(e->content, e->size, e->mark), "size %zu", e->size);
    free(e);
}

/* Few fit into a slab, so slabs are full one moment and shared the next. */
static void *exchange(void *arg)
{
    const struct worker *w = arg;
    uint64_t seed = w->id + 1;
    size_t most = w->id % 2 == 0 ? LARGEST : 200;

    for (unsigned int i = 0; i < EXCHANGES; i++) {
        size_t size = 1 + conform_random(&seed) % (most - sizeof(struct exchanged));
        struct exchanged *e = malloc(sizeof(*e) + size);

        REQUIRE(e != NULL);
        *e = (struct exchanged){size, (unsigned int)conform_random(&seed)};
        conform_fill(e->content, size, e->mark);
        let_go(atomic_exchange(&table[conform_random(&seed) % TABLE], e));
    }
    return NULL;
}

/* The threads end while others free what they have made; new ones begin. */
static void case_exchanged(void)
{
    for (int round = 0; round < 2; round++) {
        start(exchange);
        end();
    }
    for (size_t i = 0; i < TABLE; i++)
        let_go(atomic_exchange(&table[i], NULL));
}

enum { FEW = 6, LIFE = 40, SMALL = 32 };

static _Thread_local volatile sig_atomic_t freeing, nr_held;
static _Thread_local char *held[256];

/*
 * Takes what the interrupted free() may be about to give back, and writes to it. (malloc() itself, and
 * free() in a handler, are not to be interrupted by their like.)
 */
static void in_between(int sig)
{
    (void)sig;
    if (!freeing || nr_held == COUNT_OF(held))
        return;
    char *p = malloc(SMALL);
    if (p != NULL)
        held[nr_held++] = memset(p, 0x5a, SMALL);
}

/* A life short enough to be young in: with slabs of its own free() would not be for handlers to interrupt with malloc(). */
static void *make_and_drop_often(void *arg)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    struct itimerspec often = {{0, 50000}, {0, 50000}};
    char *few[FEW];
    timer_t timer;

    event._sigev_un._tid = gettid();
    REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    timer_settime(timer, 0, &often, NULL);
    for (int i = 0; i < LIFE; i++) {
        for (int k = 0; k < FEW; k++) {
            few[k] = malloc(SMALL);
            REQUIRE(few[k] != NULL);
            memset(few[k], k, SMALL);
        }
        freeing = 1;
        for (int k = 0; k < FEW; k++) {
            CHECK(few[k][0] == k && few[k][SMALL - 1] == k, "block %d", k);
            free(few[k]);
        }
        freeing = 0;
        while (nr_held > 0)
            free(held[--nr_held]);
    }
    timer_delete(timer);
    return arg;
}

static void case_signals(void)
{
    struct timespec begun, now;
    pthread_t thread;

    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = in_between, .sa_flags = SA_RESTART}, NULL);
    start(make_only); /* those who come later are young */
    pthread_barrier_wait(&made);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do {
        REQUIRE(pthread_create(&thread, NULL, make_and_drop_often, NULL) == 0);
        pthread_join(thread, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec - begun.tv_sec < 3);
    pthread_barrier_wait(&go_on);
    end();
}

static void *make_small(void *arg)
{
    pthread_barrier_wait(&made);
    pthread_barrier_wait(&go_on);
    for (int i = 0; i < BLOCKS; i++)
        REQUIRE(memset(malloc(64), 1, 64) != NULL);
    pthread_barrier_wait(&done);
    return arg;
}

/* Where a node has no memory left, common slabs of another are not made one for each draw. */
static void case_full_node(void)
{
    cpu_set_t first;
    size_t before;

    if (!conform_has_option("numa_fake:4,window:1G"))
        conform_skip("one node");
    CPU_ZERO(&first);
    CPU_SET(0, &first);
    sched_setaffinity(0, sizeof(first), &first);
    start(make_small);
    pthread_barrier_wait(&made);
    for (int i = 0; i < 16384; i++) /* a quarter of the window */
        REQUIRE(memset(malloc(16 * KIB), 1, 1) != NULL);
    before = mallinfo2().arena;
    pthread_barrier_wait(&go_on);
    pthread_barrier_wait(&done);
    CHECK(mallinfo2().arena < before + 32 * KIB * KIB, "from %zu to %zu", before,
          mallinfo2().arena);
    end();
}

/* A child has the objects of threads that it has not, and makes use of what they had drawn. */
static void case_forked(void)
{
    start(make_only);
    pthread_barrier_wait(&made);
    for (int i = 0; i < 4; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            for (unsigned int k = 0; k < THREADS; k++)
                drop(&workers[k], 0, 1);
            start(make_and_mix); /* threads of its own */
            mixing();
            conform_end();
        }
        CHECK(conform_child_ok(pid, "the child"));
    }
    pthread_barrier_wait(&go_on);
    end();
    for (unsigned int i = 0; i < THREADS; i++)
        drop(&workers[i], 0, 1);
}

/* --- wrong use --------------------------------------------------------------------------------- */

static struct block *victim;

/* All but the victim, which may have been freed. */
static bool unharmed(void)
{
    for (unsigned int i = 0; i < THREADS; i++) {
        for (size_t k = 0; k < BLOCKS; k++) {
            const struct block *b = &workers[i].blocks[k];

            CHECK(b == victim || conform_intact(b->at, b->size, mark_of(&workers[i], k)),
                  "block %zu of %u", k, i);
        }
    }
    return true;
}

static void free_twice(void)
{
    free((void *)conform_opaque((size_t)victim->at));
    free((void *)conform_opaque((size_t)victim->at));
}

static void free_inside(void)
{
    free(victim->at + 16);
}

static void ask_for_its_size(void)
{
    CHECK(malloc_usable_size((void *)conform_opaque((size_t)victim->at)) >= victim->size);
    free(victim->at);
    CHECK(malloc_usable_size((void *)conform_opaque((size_t)victim->at)) == 0);
}

static void case_wrong(void)
{
    const struct wrong wrongs[] = {
        {"free twice", "free", "already free", free_twice},
        {"free inside", "free", "", free_inside},
        {"malloc_usable_size", "malloc_usable_size", "already free", ask_for_its_size},
    };

    start(make_only);
    pthread_barrier_wait(&made);
    for (size_t i = 0; i < BLOCKS; i += 10) {
        victim = &workers[THREADS - 1].blocks[i];
        if (victim->size > 32)
            wrongs_are_named(wrongs, COUNT_OF(wrongs), unharmed);
    }
    pthread_barrier_wait(&go_on);
    end();
}

static const struct conform_case cases[] = {
    {"memory", case_memory, 0},       {"mixed_frees", case_mixed_frees, 0},
    {"exchanged", case_exchanged, 0}, {"signals", case_signals, 0},
    {"full_node", case_full_node, 0}, {"forked", case_forked, 0},
    {"wrong", case_wrong, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
