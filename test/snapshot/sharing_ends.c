/*
 * sharing_ends.c - the option fork:shared and processes that end: killed just before a child of
 * theirs is born or just after, or by a main thread that ends before the others.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "family.h"
#include "filter.h"

static struct table table;

/* From now on this process is killed by a system call. */
static void die_at(unsigned nr)
{
    if (!filter_call(nr, 0, 0, SECCOMP_RET_KILL_PROCESS))
        _exit(77);
}

static bool was_killed(pid_t pid)
{
    int status = 0;

    CHECK(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        conform_skip("no seccomp filters here");
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A child that was about to fork: nobody waits for what will not be born. */
static void killed_before_a_birth(void)
{
    struct quire_fork_stat st;
    struct rlimit none = {0, 0};

    begin_afresh("killed before a birth");
    need_sharing();
    table_make(&table, 300, 4000);
    pid_t pid = child();
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &none);
        die_at(SYS_clone);
        die_at(SYS_clone3);
        fork();
        _exit(1);
    }
    double start = now();
    CHECK(was_killed(pid));
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    CHECK(now() - start < 1.8, "%.1f s", now() - start);
    CHECK(quire_fork_stat(&st) == 0 && st.sharing == 0);
    end_sharing();
}

/* Child handlers of fork run in the order in which they were given; this one before the library's. */
static volatile unsigned linger_us;

static void linger(void)
{
    if (linger_us > 0)
        usleep(linger_us);
}

static void hook_forks(void)
{
    pthread_atfork(NULL, NULL, linger);
}

__attribute__((section(".preinit_array"), used)) static void (*const at_first)(void) = hook_forks;

/* A child that has forked and not told so; and its child does not get to that for a while. */
static void killed_after_a_birth(void)
{
    struct rlimit none = {0, 0};
    int result[2];

    begin_afresh("killed after a birth");
    need_sharing();
    table_make(&table, 300, 4000);
    for (unsigned round = 0; round < 2; round++) {
        REQUIRE(pipe(result) == 0);
        pid_t pid = child();
        if (pid == 0) {
            setrlimit(RLIMIT_CORE, &none);
            linger_us = 300000;
            die_at(SYS_openat);
            if (fork() != 0)
                _exit(1); /* not reached: the library looks for the child's number */
            if (table_not(&table, round) == 0)
                tell(result[1]);
            usleep(600000);
            if (table_not(&table, round) == 0)
                tell(result[1]);
            _exit(0);
        }
        close(result[1]);
        CHECK(was_killed(pid));
        if (round == 1)
            CHECK(hear(result[0])); /* it has entered itself, in its way */
        double start = now();
        for (size_t i = 0; i < table.nr; i++)
            table_set(&table, i, round + 1);
        CHECK(now() - start < 1.8, "%.1f s", now() - start); /* what is waited for in vain: 2 s */
        if (round == 0)
            CHECK(hear(result[0]), "the child sees another's writes");
        CHECK(hear(result[0]), "the child sees another's writes");
        close(result[0]);
    }
    end_sharing();
}

/* A child whose main thread has ended, and whose number is good for nothing then. */
static void *check_when_told(void *arg)
{
    const int *go = arg;

    hear(go[0]);
    usleep(20000);
    child_end(table_not(&table, 0) == 0);
}

static void main_thread_ends(void)
{
    pthread_t thread;
    int go[2];

    begin_afresh("a main thread that ends");
    need_sharing();
    table_make(&table, 3000, 4000);
    REQUIRE(pipe(go) == 0);
    pid_t early = child(); /* before anybody has looked at it */
    if (early == 0) {
        REQUIRE(pthread_create(&thread, NULL, check_when_told, go) == 0);
        pthread_exit(NULL);
    }
    usleep(100000);
    table_set(&table, 0, 1);
    pid_t late = child();
    if (late == 0) {
        table_set(&table, 0, 0);
        usleep(100000);
        REQUIRE(pthread_create(&thread, NULL, check_when_told, go) == 0);
        pthread_exit(NULL);
    }
    table_set(&table, 1, 1);
    table_set(&table, 1, 0);
    usleep(300000);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    CHECK(tell(go[1]) && tell(go[1]));
    CHECK(conform_child_ok(early, "early"));
    CHECK(conform_child_ok(late, "late"));
    end_sharing();
}

static int said;

/* What an exit handler writes is made private in the child as ever. */
static void say_end(void)
{
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    if (table_not(&table, 1) == 0)
        tell(said);
}

static void *last_thread(void *arg)
{
    usleep(100000);
    table_set(&table, 5, 2);
    return arg;
}

/* The first process, whose main thread ends: it ends with its last thread, and its exit handlers run. */
static void first_main_thread_ends(void)
{
    const char *fd = getenv("SHARING_FD");
    struct quire_fork_stat st;
    int ends[2], go[2];
    pthread_t thread;
    char number[16];

    if (fd == NULL) {
        REQUIRE(pipe(ends) == 0);
        snprintf(number, sizeof(number), "%d", ends[1]);
        setenv("SHARING_FD", number, 1);
        pid_t pid = fork();
        if (pid != 0) {
            close(ends[1]);
            CHECK(conform_child_ok(pid, "the process"));
            CHECK(hear(ends[0]) && hear(ends[0]) && !hear(ends[0]));
            conform_end();
        }
    }
    begin_afresh("the first main thread ends");
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    said = atoi(fd);
    if (quire_fork_stat(&st) != 0 || st.method != QUIRE_FORK_SHARED) {
        CHECK(tell(said) && tell(said)); /* other cases say why not */
        conform_end();
    }
    table_make(&table, 3000, 4000);
    REQUIRE(pipe(go) == 0 && atexit(say_end) == 0);
    pid_t pid = quire_fork();
    if (pid == 0) {
        alarm(60);
        close(go[1]);
        hear(go[0]);
        if (table_not(&table, 0) == 0)
            tell(said);
        _exit(0);
    }
    REQUIRE(pthread_create(&thread, NULL, last_thread, NULL) == 0);
    pthread_exit(NULL);
}

static const struct conform_case cases[] = {
    {"a main thread that ends", main_thread_ends, 60},
    {"the first main thread ends", first_main_thread_ends, 60},
    {"killed before a birth", killed_before_a_birth, 60},
    {"killed after a birth", killed_after_a_birth, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
