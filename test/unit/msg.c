/* msg.c - the formatter against snprintf, and what becomes of lines that are too long. */
#include "base/msg.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

/* Both formatters, the same arguments, every size of buffer. */
#define compare(...)                                                                               \
    do {                                                                                           \
        char want[256], got[256];                                                                  \
        for (size_t size = 1; size <= sizeof(want); size += size < 40 ? 1 : 216) {                 \
            memset(got, '#', sizeof(got));                                                         \
            struct q_buf b = {.at = got, .size = size};                                            \
            snprintf(want, size, __VA_ARGS__);                                                     \
            q_buf_printf(&b, __VA_ARGS__);                                                         \
            if (strcmp(want, got) != 0)                                                            \
                cr_assert(false, "line %d, room %zu: '%s' instead of '%s'", __LINE__, size, got,   \
                          want);                                                                   \
            must_eq(b.len, strlen(got));                                                           \
            if (size < sizeof(got))                                                                \
                must(got[size] == '#');                                                            \
        }                                                                                          \
    } while (0)

Test(msg, plain_text)
{
    compare("%s", "");
    compare("nothing to format");
    compare("100%%");
    compare("%s|%s", "one", "two");
    compare("%c%c%c", 'a', 'b', 'c');
    compare("%10s|%-10s|%2s", "right", "left", "wide");
}

Test(msg, numbers_at_their_ends)
{
    static const long values[] = {0,       1,       -1,       9,        10,       -10,        12345,
                                  INT_MAX, INT_MIN, LONG_MAX, LONG_MIN, 1l << 32, -(1l << 32)};

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        long v = values[i];

        compare("%d %u %x", (int)v, (unsigned)v, (unsigned)v);
        compare("%ld %lu %lx %zu", v, (unsigned long)v, (unsigned long)v, (size_t)v);
        compare("%8d|%-8d|%20ld|%-20lu|", (int)v, (int)v, v, (unsigned long)v);
        compare("%08u|%016lx|%02x", (unsigned)v, (unsigned long)v, (unsigned)v & 0xff);
    }
}

Test(msg, pointers)
{
    compare("%p", (void *)0x7f0012345678);
    compare("%p", (void *)-1);
    compare("%p and %p", (void *)16, (void *)~15ul);
}

Test(msg, random_numbers)
{
    struct rng r = rng_new(2);

    for (int i = 0; i < 5000; i++) {
        uint64_t v = rng_next(&r) >> rng_below(&r, 64);

        compare("%lu %ld %lx", v, (long)v, v);
        compare("%d|%12u|%-12x|%05u", (int)v, (unsigned)v, (unsigned)v, (unsigned)v % 100000);
    }
}

Test(msg, appends)
{
    char text[32];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    for (int i = 0; i < 100; i++)
        q_buf_printf(&b, "%d,", i);
    must_eq(b.len, sizeof(text) - 1);
    must(strncmp(text, "0,1,2,3,4,5,6,7,8,9,10,11,12,13", 31) == 0);
}

/* Run fn in a child with its stderr in a pipe; returns the wait status. */
static int stderr_of(void (*fn)(void), char *text, size_t size)
{
    int fd[2], status;
    size_t got = 0;
    ssize_t n;

    must(pipe(fd) == 0);
    pid_t pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        dup2(fd[1], 2);
        close(fd[0]);
        close(fd[1]);
        fn();
        _exit(0);
    }
    close(fd[1]);
    while ((n = read(fd[0], text + got, size - 1 - got)) > 0)
        got += (size_t)n;
    text[got] = '\0';
    close(fd[0]);
    must(waitpid(pid, &status, 0) == pid);
    return status;
}

static void one_line(void)
{
    q_msg("%d pages of %s", 3, "memory");
}

static void long_line(void)
{
    char long_text[2000];

    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    q_msg("%s", long_text);
}

static void dies(void)
{
    signal(SIGABRT, SIG_DFL);
    q_die("the end of %s", "it");
}

Test(msg, lines_on_stderr)
{
    char text[4096];

    must(stderr_of(one_line, text, sizeof(text)) == 0);
    must(strcmp(text, "quire: 3 pages of memory\n") == 0);
    must(stderr_of(long_line, text, sizeof(text)) == 0);
    must(strncmp(text, "quire: xxxx", 11) == 0);
    must(strlen(text) < 600 && text[strlen(text) - 1] == '\n');
}

Test(msg, die_aborts)
{
    char text[4096];
    int status = stderr_of(dies, text, sizeof(text));

    must(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    must(strcmp(text, "quire: the end of it\n") == 0);
}
