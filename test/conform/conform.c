/* conform.c - runs a table of cases, each in a child, and prints TAP (see conform.h). */
#include "conform.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_SKIPPED = 77, USUAL_SECONDS = 60 };

/* Limits are for what hangs: a machine that is slow or busy is given so many times as long. */
static unsigned int patience = 5;

/* The head of the exported statistics page, as the public header documents it. */
struct stat_page_head {
    char magic[8];
    uint32_t layout;
    uint32_t size;
    char version[16];
    uint64_t pid;
    uint64_t serving;
};

#ifdef CONFORM_STATIC
extern struct stat_page_head quire_stat_page __attribute__((weak));
#endif

static unsigned int failures;

void conform_fail(const char *file, int line, const char *claim, const char *format, ...)
{
    const char *base = strrchr(file, '/');
    va_list args;

    /* One bad loop should not bury the report in a million lines. */
    if (++failures > 20) {
        return;
    }
    printf("# %s:%d: not so: %s", base != NULL ? base + 1 : file, line, claim);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

void conform_end(void)
{
    fflush(stdout);
    _exit(failures != 0 ? 1 : 0);
}

void conform_skip(const char *format, ...)
{
    va_list args;

    if (failures != 0) {
        conform_end();
    }
    printf("# skipped: ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
    _exit(EXIT_SKIPPED);
}

bool conform_expects_quire(void)
{
    const char *expect = getenv("CONFORM_EXPECT");

    return expect != NULL && strncmp(expect, "quire", 5) == 0;
}

bool conform_has_option(const char *words)
{
    const char *conf = getenv("QUIRE_CONF");

    return conf != NULL && strstr(conf, words) != NULL;
}

enum { ROW = 256, SEVENTH = 183 }; /* 7 * 183 is 1 more than 5 * 256 */

/*
 * Byte i is seed + 7 * i + i / 256. So each row of 256 bytes is a part of one table, for memcpy and
 * memcmp: where it begins makes up for the seed and the row's number.
 */
static const unsigned char *row(unsigned int seed, size_t number)
{
    static unsigned char sevens[2 * ROW];

    if (__atomic_load_n(&sevens[1], __ATOMIC_ACQUIRE) == 0) /* several threads write the same */
        for (size_t i = sizeof(sevens); i-- > 0;)
            __atomic_store_n(&sevens[i], (unsigned char)(7 * i), __ATOMIC_RELEASE);
    return sevens + (seed + number) * SEVENTH % ROW;
}

void conform_fill(void *block, size_t size, unsigned int seed)
{
    unsigned char *bytes = block;

    for (size_t at = 0; at < size; at += ROW)
        memcpy(bytes + at, row(seed, at / ROW), size - at < ROW ? size - at : ROW);
}

bool conform_intact(const void *block, size_t size, unsigned int seed)
{
    const unsigned char *bytes = block;

    for (size_t at = 0; at < size; at += ROW)
        if (memcmp(bytes + at, row(seed, at / ROW), size - at < ROW ? size - at : ROW) != 0)
            return false;
    return true;
}

uint64_t conform_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Pages of memory that are there, and how many of them are files'. */
static bool count_pages(unsigned long *resident, unsigned long *of_files)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0) {
        close(fd);
    }
    if (got <= 0) {
        return false;
    }
    text[got] = '\0';
    return sscanf(text, "%*u %lu %lu", resident, of_files) == 2;
}

size_t conform_resident(void)
{
    unsigned long resident, of_files;

    return count_pages(&resident, &of_files) ? resident * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

size_t conform_anonymous(void)
{
    unsigned long resident, of_files;

    return count_pages(&resident, &of_files) ? (resident - of_files) * (size_t)sysconf(_SC_PAGESIZE)
                                             : 0;
}

bool conform_child_ok(int pid, const char *what)
{
    int status = 0;

    if (pid < 0) {
        conform_fail(__FILE__, __LINE__, "fork", " %s: %s", what, strerror(errno));
        return false;
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            conform_fail(__FILE__, __LINE__, "waitpid", " %s: %s", what, strerror(errno));
            return false;
        }
    }
    if (WIFSIGNALED(status)) {
        conform_fail(__FILE__, __LINE__, "exits", " %s: killed by signal %d (%s)", what,
                     WTERMSIG(status), strsignal(WTERMSIG(status)));
        return false;
    }
    if (WEXITSTATUS(status) != 0) {
        conform_fail(__FILE__, __LINE__, "exits with 0", " %s: exited with %d", what,
                     WEXITSTATUS(status));
        return false;
    }
    return true;
}

static void case_quire_is_live(void)
{
    const struct stat_page_head *page = NULL;
    void *probe = malloc(100);

    REQUIRE(probe != NULL);
#ifdef CONFORM_STATIC
    page = &quire_stat_page;
#else
    page = dlsym(RTLD_DEFAULT, "quire_stat_page");
#endif
    REQUIRE(page != NULL, "quire's statistics page is not in this process");
    CHECK(memcmp(page->magic, "quire\0\0", 8) == 0);
    CHECK(page->layout == 1);
    CHECK(page->size >= sizeof(*page));
    CHECK(page->version[0] != '\0');
    CHECK(page->serving == 1, "quire is loaded but has served no allocation");
    CHECK(page->pid == (uint64_t)getpid() || page->pid == (uint64_t)getppid(), "pid is %llu",
          (unsigned long long)page->pid);
    free(probe);
}

static void report(size_t number, const char *name, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("ok %zu - %s\n", number, name);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIPPED) {
        printf("ok %zu - %s # SKIP see above\n", number, name);
    } else if (WIFSIGNALED(status)) {
        printf("# %s: killed by signal %d (%s)%s\n", name, WTERMSIG(status),
               strsignal(WTERMSIG(status)),
               WTERMSIG(status) == SIGALRM   ? ": it took too long"
               : WTERMSIG(status) == SIGKILL ? ": it took much too long, unless it was killed"
                                             : "");
        printf("not ok %zu - %s\n", number, name);
    } else {
        printf("not ok %zu - %s\n", number, name);
    }
    fflush(stdout);
}

unsigned int conform_times(unsigned int quick)
{
    const char *times = getenv("CONFORM_TIMES");

    return quick * (times != NULL && atoi(times) > 0 ? (unsigned int)atoi(times) : 1);
}

void conform_alarm(unsigned int seconds)
{
    alarm(seconds * patience);
}

static volatile pid_t running; /* 0: none */

static void end_running(int sig)
{
    (void)sig;
    if (running > 0)
        kill(running, SIGKILL);
}

/* A case may hang with its signals blocked, where its own alarm does not reach it. */
static void alarm_behind(pid_t pid, unsigned int seconds)
{
    struct sigaction end = {.sa_handler = end_running, .sa_flags = SA_RESTART};

    running = pid;
    sigaction(SIGALRM, &end, NULL);
    conform_alarm(seconds + 10);
}

static int run_one(const struct conform_case *c, size_t number)
{
    unsigned int seconds = c->seconds != 0 ? c->seconds : USUAL_SECONDS;
    int status = 0;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        signal(SIGALRM, SIG_DFL);
        conform_alarm(seconds);
        c->run();
        conform_end();
    }
    alarm_behind(pid, seconds);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        printf("Bail out! fork or waitpid: %s\n", strerror(errno));
        exit(1);
    }
    running = 0;
    alarm(0);
    report(number, c->name, status);
    return WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EXIT_SKIPPED)
               ? 0
               : 1;
}

int conform_run(const struct conform_case *cases, size_t count, int argc, char **argv)
{
    static const struct conform_case live = {"quire serves this process", case_quire_is_live, 0};
    const char *expect = getenv("CONFORM_EXPECT"), *times = getenv("CONFORM_PATIENCE");
    size_t first = expect != NULL && strcmp(expect, "quire") == 0 ? 1 : 0;
    int failed = 0;

    if (times != NULL && atoi(times) > 0) {
        patience = (unsigned int)atoi(times);
    }
    if (argc > 1) {
        for (size_t i = 0; i < count; i++) {
            if (strcmp(cases[i].name, argv[1]) == 0) {
                cases[i].run();
                printf("%s\n", failures == 0 ? "ok" : "not ok");
                return failures == 0 ? 0 : 1;
            }
        }
        fprintf(stderr, "%s: no case named '%s'; the cases are:\n", argv[0], argv[1]);
        for (size_t i = 0; i < count; i++) {
            fprintf(stderr, "    %s\n", cases[i].name);
        }
        return 2;
    }
    printf("1..%zu\n", count + first);
    if (first != 0) {
        failed |= run_one(&live, 1);
    }
    for (size_t i = 0; i < count; i++) {
        failed |= run_one(&cases[i], i + 1 + first);
    }
    return failed;
}
