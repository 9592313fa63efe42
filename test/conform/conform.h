/*
 * conform.h - a small harness for programs that run under the allocator.
 *
 * A program is a table of cases. Each case runs in a child of its own, with a time limit, so that
 * a crash or a deadlock in one is reported by name and the others still run. Results come out as
 * TAP, which meson reads. `PROGRAM NAME` runs one case in this process, for a debugger.
 *
 * With CONFORM_EXPECT=quire in the environment every program first proves, through the exported
 * statistics page, that it is quire that serves it. CONFORM_EXPECT=quire-later is for a program
 * that brings quire in by itself.
 */
#ifndef CONFORM_H
#define CONFORM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct conform_case {
    const char *name;
    void (*run)(void);
    unsigned int seconds; /* time limit on a fast, idle machine; 0 means the usual 60 */
};

/* Reports a failed check of the running case and lets the case go on. */
void conform_fail(const char *file, int line, const char *claim, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Ends the running case as skipped. */
void conform_skip(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Ends the running case at once with what it has counted so far. */
void conform_end(void) __attribute__((noreturn));

/* True where the program was told that quire must be serving it. */
bool conform_expects_quire(void);

/* True where QUIRE_CONF has these words. */
bool conform_has_option(const char *words);

/* Fills a block with a pattern that depends on its seed, and finds the first byte that differs. */
void conform_fill(void *block, size_t size, unsigned int seed);
bool conform_intact(const void *block, size_t size, unsigned int seed);

/* A small, fast, repeatable random number generator. */
uint64_t conform_random(uint64_t *state);

/*
 * Resident bytes of this process; and those that are no file's, so without the code that happens to be
 * touched meanwhile, some 64 KiB at a time.
 */
size_t conform_resident(void);
size_t conform_anonymous(void);

/* Waits for a child; true if it exited with 0, else reports how it ended. */
bool conform_child_ok(int pid, const char *what);

/* The time limit of a child, as that of a case: SIGALRM, on a busy machine later. */
void conform_alarm(unsigned int seconds);

/* So often in the quick form; CONFORM_TIMES in the environment says how many times as often. */
unsigned int conform_times(unsigned int quick);

/* Hides a value from the compiler, so that it can draw no conclusions from it. */
static inline size_t conform_opaque(size_t value)
{
    volatile size_t hidden = value;
    return hidden;
}

int conform_run(const struct conform_case *cases, size_t count, int argc, char **argv);

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            conform_fail(__FILE__, __LINE__, #cond, " " __VA_ARGS__);                              \
        }                                                                                          \
    } while (0)

/* For what the rest of the case cannot do without. */
#define REQUIRE(cond, ...)                                                                         \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            conform_fail(__FILE__, __LINE__, #cond, " " __VA_ARGS__);                              \
            conform_end();                                                                         \
        }                                                                                          \
    } while (0)

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#ifdef __cplusplus
}
#endif

#endif
