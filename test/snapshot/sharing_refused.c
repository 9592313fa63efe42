/*
 * sharing_refused.c - the option fork:shared where something is refused or used up: it is given up,
 * or goes on, and everybody has what is his.
 */
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "family.h"
#include "filter.h"

static struct table table;

static void *fork_on_a_heap_stack(void *arg)
{
    errno = 0;
    CHECK(quire_fork() == -1 && errno == EDEADLK);
    pid_t pid = fork();
    if (pid == 0)
        child_end(table_not(&table, 0) == 0);
    table_set(&table, 1, 1);
    CHECK(conform_child_ok(pid, "child"));
    tell(*(int *)arg);
    for (;;)
        pause(); /* its end would be told through the heap, whose mapping has changed */
}

static void stack_in_the_heap(void)
{
    struct quire_fork_stat st;
    pthread_attr_t attr;
    pthread_t thread;
    int done[2];

    begin_afresh("a stack in the heap");
    need_sharing();
    table_make(&table, 1000, 4000);
    REQUIRE(pipe(done) == 0);
    pthread_attr_init(&attr);
    REQUIRE(pthread_attr_setstack(&attr, memalign(65536, 1 << 20), 1 << 20) == 0);
    REQUIRE(pthread_create(&thread, &attr, fork_on_a_heap_stack, &done[1]) == 0);
    CHECK(hear(done[0]));
    CHECK(quire_fork_stat(&st) == 0 && st.method == QUIRE_FORK_COPY && st.why_not != NULL);
    conform_end();
}

/* From now on system call nr fails with EPERM, in all threads. */
static void refuse(unsigned nr, unsigned arg)
{
    if (!filter_call(nr, arg != 0 ? 2 : 0, arg, SECCOMP_RET_ERRNO | EPERM))
        conform_skip("no seccomp filters here");
}

/* And no more memory mapped from a file, private, in a given place. */
static void refuse_private_mappings(void)
{
    REQUIRE(filter_call(SYS_mmap, 4, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE,
                        SECCOMP_RET_ERRNO | ENOMEM));
}

/* Two children that wait, of versions 0 and 1, while the parent writes on. */
static void all_have_theirs(pid_t first, int go, pid_t second, int go2)
{
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 2);
    close(go);
    close(go2);
    CHECK(conform_child_ok(first, "first"));
    CHECK(conform_child_ok(second, "second"));
    CHECK(table_not(&table, 2) == 0);
}

/* Nor can sharing end: who writes waits for the child, which sees none of it. */
static void unreachable_and_no_memory(void)
{
    begin_afresh("an unreachable child and no memory");
    need_sharing();
    table_make(&table, 5000, 4000);
    pid_t pid = child();
    if (pid == 0) {
        usleep(300000);
        child_end(table_not(&table, 0) == 0);
    }
    refuse(SYS_process_vm_writev, 0);
    refuse_private_mappings();
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    CHECK(conform_child_ok(pid, "child"));
    CHECK(table_not(&table, 1) == 0);
    end_sharing();
}

/* A child that cannot be reached: sharing ends, and everybody has what is his. */
static void unreachable_child(void)
{
    struct quire_fork_stat st;
    int go[2], go2[2];

    begin_afresh("an unreachable child");
    need_sharing();
    table_make(&table, 5000, 4000);
    pid_t pid = waiting_child(&table, go, 0);
    for (size_t i = 0; i < 100; i++)
        table_set(&table, i, 1);
    refuse(SYS_process_vm_writev, 0);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    CHECK(quire_fork_stat(&st) == 0 && st.method == QUIRE_FORK_COPY && st.why_not != NULL);
    pid_t second = waiting_child(&table, go2, 1);
    all_have_theirs(pid, go[1], second, go2[1]);
    /* And the heap grows, shrinks and grows again. */
    for (int round = 0; round < 3; round++) {
        struct table more;
        table_make(&more, 5000, 4000);
        CHECK(table_not(&more, 0) == 0);
        for (size_t i = 0; i < more.nr; i++)
            free(more.at[i]);
        free(more.at);
        malloc_trim(0);
        char *zero = calloc(1, 3u << 20);
        size_t sum = 0;
        for (size_t i = 0; i < 3u << 20; i += 4096)
            sum += (unsigned char)zero[i];
        CHECK(sum == 0);
        free(zero);
    }
    CHECK(table_not(&table, 2) == 0);
    conform_end();
}

static void userfaultfd_refused(void)
{
    struct quire_fork_stat st;
    int go[2];

    if (getenv("FAMILY_AFRESH") == NULL) {
        refuse(SYS_userfaultfd, 0);
        refuse(SYS_ioctl, 0xaa00); /* of /dev/userfaultfd */
    }
    begin_afresh("userfaultfd refused");
    CHECK(quire_fork_stat(&st) == 0 && st.method == QUIRE_FORK_COPY);
    CHECK(st.why_not != NULL && strstr(st.why_not, "userfaultfd") != NULL, "%s", st.why_not);
    table_make(&table, 1000, 4000);
    pid_t pid = waiting_child(&table, go, 0);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    close(go[1]);
    CHECK(conform_child_ok(pid, "child"));
    conform_end();
}

/* A child whose number is another one to itself. */
static void pid_namespace(void)
{
    int go[2];

    begin_afresh("another pid namespace");
    need_sharing();
    if (unshare(CLONE_NEWPID) != 0)
        conform_skip("unshare: %s", strerror(errno));
    table_make(&table, 3000, 4000);
    REQUIRE(pipe(go) == 0);
    pid_t pid = quire_fork();
    if (pid == 0) {
        CHECK(getpid() == 1);
        close(go[1]);
        hear(go[0]);
        child_end(table_not(&table, 0) == 0);
    }
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    close(go[1]);
    CHECK(conform_child_ok(pid, "child"));
    /* fork() may not learn its number, and then ends sharing. */
    pid = fork();
    if (pid == 0) {
        usleep(30000);
        child_end(table_not(&table, 1) == 0);
    }
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 2);
    if (pid > 0) /* the namespace's first process is gone: ENOMEM */
        CHECK(conform_child_ok(pid, "second child"));
    conform_end();
}

/* No room for the mappings of a fork: this one, and later ones, are the kernel's. */
static void address_space_used_up(void)
{
    struct quire_fork_stat st;
    struct rlimit now_used = {0, 0};
    unsigned long pages = 0;
    int go[2], go2[2];

    begin_afresh("address space used up");
    need_sharing();
    table_make(&table, 5000, 4000);
    pid_t first = waiting_child(&table, go, 0);
    for (size_t i = 0; i < table.nr; i += 2)
        table_set(&table, i, 1);
    FILE *f = fopen("/proc/self/statm", "r");
    REQUIRE(f != NULL && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    now_used.rlim_cur = now_used.rlim_max = pages * (unsigned long)getpagesize() + (10u << 20);
    REQUIRE(setrlimit(RLIMIT_AS, &now_used) == 0);
    for (size_t i = 1; i < table.nr; i += 2)
        table_set(&table, i, 1);
    pid_t second = waiting_child(&table, go2, 1);
    CHECK(quire_fork_stat(&st) == 0 && st.method == QUIRE_FORK_COPY && st.why_not != NULL);
    all_have_theirs(first, go[1], second, go2[1]);
    conform_end();
}

/* Forks that fail leave nothing behind. */
static void fork_fails(void)
{
    struct quire_fork_stat st;

    begin_afresh("fork fails");
    need_sharing();
    table_make(&table, 3000, 4000);
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0)
            child_end(1);
        CHECK(conform_child_ok(pid, "child"));
    }
    refuse(SYS_clone, 0);
    refuse(SYS_clone3, 0);
    CHECK(quire_fork() == -1 && errno == EPERM);
    CHECK(fork() == -1 && errno == EPERM);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    CHECK(table_not(&table, 1) == 0);
    CHECK(quire_fork_stat(&st) == 0 && st.sharing == 0);
    end_sharing();
}

/* A parent whose cowd is killed at the next fork. */
static void lose_cowd(void)
{
    need_sharing();
    table_make(&table, 1000, 4000);
    if (!filter_call(SYS_ioctl, 0, 0, SECCOMP_RET_KILL_THREAD))
        conform_skip("no seccomp filters here");
    fork();
    _exit(0);
}

/* Nothing can be kept right any more: who finds out says so and ends, rather than wait for ever. */
static void cowd_killed(void)
{
    char text[400] = "";
    int end[2], status;

    if (getenv("FAMILY_AFRESH") != NULL)
        lose_cowd();
    REQUIRE(pipe(end) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(end[1], STDERR_FILENO);
        begin_afresh("cowd killed");
        _exit(1);
    }
    close(end[1]);
    for (size_t n = 0; n < sizeof(text) - 1;) {
        ssize_t more = read(end[0], text + n, sizeof(text) - 1 - n);
        if (more <= 0)
            break;
        n += (size_t)more;
    }
    REQUIRE(waitpid(pid, &status, 0) == pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        conform_skip("as the program that it began said");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x", (unsigned)status);
    CHECK(strstr(text, "fork:shared: the thread that keeps the shared heap right was killed") !=
              NULL,
          "%s", text);
}

static const struct conform_case cases[] = {
    {"a stack in the heap", stack_in_the_heap, 60},
    {"an unreachable child", unreachable_child, 60},
    {"an unreachable child and no memory", unreachable_and_no_memory, 60},
    {"userfaultfd refused", userfaultfd_refused, 60},
    {"another pid namespace", pid_namespace, 60},
    {"address space used up", address_space_used_up, 60},
    {"fork fails", fork_fails, 60},
    {"cowd killed", cowd_killed, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
