/* threads.c - thread exit: late destructors, blocks that outlive their thread, thread churn. */
#include "conform.h"

#include <limits.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEYS = 20 };
static pthread_key_t keys[KEYS];
static _Atomic int destructor_calls;

struct late {
    int key;
    int rounds; /* how often the destructor stores the value again */
    unsigned char *block;
};

/* Allocates and frees in each of the rounds that POSIX grants to destructors. */
static void late_destructor(void *value)
{
    struct late *late = value;

    destructor_calls++;
    REQUIRE(conform_intact(late->block, 3000, (unsigned int)late->key));
    for (size_t size = 1; size < 300000; size *= 5) {
        void *p = calloc(1, size);

        REQUIRE(p != NULL);
        p = realloc(p, size * 2);
        REQUIRE(p != NULL);
        free(p);
    }
    free(late->block);
    late->block = malloc(3000);
    REQUIRE(late->block != NULL);
    conform_fill(late->block, 3000, (unsigned int)late->key);
    if (late->rounds-- > 0) {
        pthread_setspecific(keys[late->key], late);
    } else {
        free(late->block);
        free(late);
    }
}

static void *tsd_thread(void *unused)
{
    for (int i = 0; i < KEYS; i++) {
        struct late *late = malloc(sizeof(*late));

        REQUIRE(late != NULL);
        late->key = i;
        late->rounds = i % PTHREAD_DESTRUCTOR_ITERATIONS;
        late->block = malloc(3000);
        REQUIRE(late->block != NULL);
        conform_fill(late->block, 3000, (unsigned int)i);
        REQUIRE(pthread_setspecific(keys[i], late) == 0);
    }
    return NULL;
}

static void case_tsd_destructors(void)
{
    /* Some keys exist before the allocator is used by a thread, some come later than its own. */
    for (int i = 0; i < KEYS; i++) {
        REQUIRE(pthread_key_create(&keys[i], late_destructor) == 0);
    }
    for (int round = 0; round < 200; round++) {
        pthread_t threads[2];

        for (size_t i = 0; i < COUNT_OF(threads); i++) {
            REQUIRE(pthread_create(&threads[i], NULL, tsd_thread, NULL) == 0);
        }
        for (size_t i = 0; i < COUNT_OF(threads); i++) {
            REQUIRE(pthread_join(threads[i], NULL) == 0);
        }
    }
    /* Keys 0, 4, 8... run once, 1, 5... twice, and so on up to four times. */
    CHECK(destructor_calls == 200 * 2 * KEYS / 4 * (1 + 2 + 3 + 4), "%d calls", destructor_calls);
}

/* The C library's own list of thread-exit functions, which C++ thread_local objects use. */
extern int __cxa_thread_atexit_impl(void (*function)(void *), void *object, void *dso);
extern void *__dso_handle;

static void at_thread_exit(void *object)
{
    free(object);
    free(realloc(malloc(20000), 40));
    destructor_calls++;
}

static void *thread_atexit_thread(void *unused)
{
    for (int i = 0; i < 50; i++) {
        REQUIRE(__cxa_thread_atexit_impl(at_thread_exit, malloc(100), &__dso_handle) == 0);
    }
    return NULL;
}

static void case_thread_atexit(void)
{
    for (int round = 0; round < 100; round++) {
        pthread_t thread;

        REQUIRE(pthread_create(&thread, NULL, thread_atexit_thread, NULL) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
    CHECK(destructor_calls == 5000, "%d calls", destructor_calls);
}

enum { LEFT = 400 };

static size_t left_size(size_t i)
{
    return 1 + i * i % 9000 + (i % 50 == 0 ? 200000 : 0) + (i % 200 == 0 ? 5000000 : 0);
}

static void *leaving_thread(void *unused)
{
    void **blocks = malloc(LEFT * sizeof(*blocks));

    REQUIRE(blocks != NULL);
    for (size_t i = 0; i < LEFT; i++) {
        blocks[i] = malloc(left_size(i));
        REQUIRE(blocks[i] != NULL);
        conform_fill(blocks[i], left_size(i), (unsigned int)i);
    }
    return blocks;
}

static void case_blocks_outlive_their_thread(void)
{
    unsigned int rounds = conform_times(25);
    size_t full = 0, early = 0;

    for (unsigned int round = 0; round < rounds; round++) {
        void **blocks[3];
        pthread_t threads[3];

        for (size_t t = 0; t < COUNT_OF(threads); t++) {
            REQUIRE(pthread_create(&threads[t], NULL, leaving_thread, NULL) == 0);
        }
        for (size_t t = 0; t < COUNT_OF(threads); t++) {
            REQUIRE(pthread_join(threads[t], (void **)&blocks[t]) == 0);
        }
        full = round == 0 ? conform_resident() : full;
        for (size_t t = 0; t < COUNT_OF(threads); t++) {
            for (size_t i = 0; i < LEFT; i++) {
                CHECK(conform_intact(blocks[t][i], left_size(i), (unsigned int)i),
                      "a block of %zu bytes changed when its thread ended", left_size(i));
                if (i % 3 == 0) {
                    blocks[t][i] = realloc(blocks[t][i], left_size(i) / 2 + 1);
                    CHECK(conform_intact(blocks[t][i], left_size(i) / 2 + 1, (unsigned int)i));
                }
                free(blocks[t][i]);
            }
            free(blocks[t]);
        }
        if (round == 9) {
            malloc_trim(0);
            early = conform_resident();
        }
    }
    /* How much of what is free stays resident depends on the time that has passed. */
    CHECK(conform_resident() < full + (24u << 20),
          "%zu resident with all blocks alive, %zu after %u rounds", full, conform_resident(),
          rounds);
    malloc_trim(0);
    CHECK(conform_resident() < early + (6u << 20),
          "%zu resident after 10 rounds of threads, %zu after %u", early, conform_resident(),
          rounds);
}

static void *small_stack_thread(void *unused)
{
    for (size_t size = 1; size < 8u << 20; size = size * 3 + 1) {
        void *p = malloc(size);

        p = realloc(p, size + 1);
        REQUIRE(p != NULL);
        free(p);
    }
    malloc_trim(0);
    return NULL;
}

static void case_smallest_stack(void)
{
    pthread_attr_t attr;

    /* The allocator may not need more stack than a thread of the smallest size can spare. */
    REQUIRE(pthread_attr_init(&attr) == 0);
    REQUIRE(pthread_attr_setstacksize(&attr, (size_t)sysconf(_SC_THREAD_STACK_MIN)) == 0);
    for (int i = 0; i < 50; i++) {
        pthread_t thread;

        REQUIRE(pthread_create(&thread, &attr, small_stack_thread, NULL) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
}

static void *short_thread(void *unused)
{
    return malloc(64);
}

static void case_many_short_threads(void)
{
    size_t before = 0;

    for (int i = 0; i < 6000; i++) {
        pthread_t thread;
        void *block;

        REQUIRE(pthread_create(&thread, NULL, short_thread, NULL) == 0);
        REQUIRE(pthread_join(thread, &block) == 0);
        free(block);
        if (i == 1000) {
            before = conform_resident();
        }
    }
    CHECK(conform_resident() < before + (4u << 20),
          "%zu resident after 1000 threads, %zu after 6000", before, conform_resident());
}

static pthread_barrier_t barrier;

static void *idle_thread(void *unused)
{
    void *blocks[200];

    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        blocks[i] = malloc(1 + i * 13);
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        free(blocks[i]);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    return NULL;
}

static void case_many_threads_at_once(void)
{
    enum { THREADS = 400 };
    static pthread_t threads[THREADS];

    REQUIRE(pthread_barrier_init(&barrier, NULL, THREADS + 1) == 0);
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, idle_thread, NULL) == 0);
    }
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
}

static void *exiting_main(void *mains)
{
    void *block;

    /* Joins the initial thread, frees what it left behind, and ends the process. */
    REQUIRE(pthread_join(*(pthread_t *)mains, &block) == 0);
    CHECK(conform_intact(block, 5000, 8));
    free(block);
    free(malloc(100));
    conform_end();
}

static void case_initial_thread_exits_first(void)
{
    static pthread_t initial;
    pthread_t thread;
    void *block = malloc(5000);

    REQUIRE(block != NULL);
    conform_fill(block, 5000, 8);
    initial = pthread_self();
    REQUIRE(pthread_create(&thread, NULL, exiting_main, &initial) == 0);
    pthread_exit(block);
}

static const struct conform_case cases[] = {
    {"thread-specific data destructors allocate and free", case_tsd_destructors, 0},
    {"thread exit functions allocate and free", case_thread_atexit, 0},
    {"blocks outlive their thread", case_blocks_outlive_their_thread, 0},
    {"threads with the smallest stack", case_smallest_stack, 0},
    {"6000 threads, one after the other", case_many_short_threads, 0},
    {"400 threads at once", case_many_threads_at_once, 0},
    {"the initial thread exits first", case_initial_thread_exits_first, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
