/*
 * early.c - allocation before main and after it: from .preinit_array, from constructors of the
 * first priority in the program and in a library it needs, and from destructors and atexit.
 *
 * What was allocated before main is checked and freed in the cases, each in a child; main's own
 * exit then runs the destructors, and meson sees its exit status.
 */
#include "conform.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "early_lib.h"

enum { STAGES = 3, BLOCKS = 40 };
static const char *const stage_names[STAGES] = {
    "preinit_array",
    "the program's constructor",
    "the thread of a constructor",
};
static void *blocks[STAGES][BLOCKS];

static size_t size_of(int i)
{
    return (size_t)8 << (i % 20);
}

static void allocate_stage(int stage)
{
    for (int i = 0; i < BLOCKS; i++) {
        blocks[stage][i] = malloc(size_of(i));
        if (blocks[stage][i] != NULL) {
            conform_fill(blocks[stage][i], size_of(i), (unsigned int)(stage * 100 + i));
        }
        /* Resizing and clearing have their own first times. */
        free(realloc(calloc(3, size_of(i)), size_of(i + 1)));
    }
}

static void preinit(int argc, char **argv, char **envp)
{
    allocate_stage(0);
}

__attribute__((section(".preinit_array"), used)) static void (*preinit_entry)(int, char **,
                                                                              char **) = preinit;

static void *thread_body(void *unused)
{
    allocate_stage(2);
    return unused;
}

__attribute__((constructor(101))) static void first_constructor(void)
{
    pthread_t thread;

    allocate_stage(1);
    if (pthread_create(&thread, NULL, thread_body, NULL) == 0) {
        pthread_join(thread, NULL);
    }
}

static void *late_block;

__attribute__((destructor(101))) static void last_destructor(void)
{
    void *p = malloc(100);

    /* A failure here is one that only the exit status can tell. */
    if (p == NULL || late_block == NULL || !conform_intact(late_block, 70000, 5)) {
        static const char text[] = "not ok - memory in the last destructor\n";

        (void)!write(1, text, sizeof(text) - 1);
        _exit(3);
    }
    free(p);
    free(late_block);
}

static void at_exit(void)
{
    late_block = malloc(70000);
    if (late_block != NULL) {
        conform_fill(late_block, 70000, 5);
    }
}

static void check_stage(int stage)
{
    for (int i = 0; i < BLOCKS; i++) {
        REQUIRE(blocks[stage][i] != NULL, "%s: malloc(%zu) failed", stage_names[stage], size_of(i));
        CHECK(conform_intact(blocks[stage][i], size_of(i), (unsigned int)(stage * 100 + i)),
              "%s: %zu bytes were overwritten", stage_names[stage], size_of(i));
        blocks[stage][i] = realloc(blocks[stage][i], size_of(i) + 100);
        REQUIRE(blocks[stage][i] != NULL);
        free(blocks[stage][i]);
    }
}

static void case_preinit(void)
{
    check_stage(0);
}

static void case_constructor(void)
{
    check_stage(1);
}

static void case_constructor_thread(void)
{
    check_stage(2);
}

static void case_library_constructor(void)
{
    CHECK(early_lib_check() == 0, "a library's first constructor: %d blocks are wrong",
          early_lib_check());
}

static const struct conform_case cases[] = {
    {"blocks from preinit_array", case_preinit, 0},
    {"blocks from a constructor of priority 101", case_constructor, 0},
    {"blocks from a thread that a constructor started", case_constructor_thread, 0},
    {"blocks from a library's constructor of priority 101", case_library_constructor, 0},
};

int main(int argc, char **argv)
{
    atexit(at_exit);
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
