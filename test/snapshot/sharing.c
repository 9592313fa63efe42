/*
 * sharing.c - the option fork:shared itself: what it costs and spares, what it keeps hidden, and
 * how it gives up where something is refused.
 */
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "family.h"
#include "filter.h"

static struct table table;

/* A number of kB from /proc/PID/smaps_rollup; -1 where there is none. */
static long rollup(pid_t pid, const char *name)
{
    char path[64], line[256];
    long kb = -1;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            kb = atol(line + strlen(name));
    if (f != NULL)
        fclose(f);
    return kb;
}

/* A child that waits until its end of the pipe closes, then checks that all is of this version. */
static pid_t waiting_child(int go[2], uint64_t version)
{
    REQUIRE(pipe(go) == 0);
    pid_t pid = child();
    if (pid == 0) {
        close(go[1]);
        hear(go[0]);
        child_end(table_not(&table, version) == 0);
    }
    REQUIRE(pid > 0, "errno %d", errno);
    close(go[0]);
    return pid;
}

static void memory_is_shared(void)
{
    struct quire_fork_stat st;
    int go[2];

    begin_afresh("memory is shared");
    need_sharing();
    table_make(&table, 30000, 4000); /* 117 MiB */
    pid_t pid = waiting_child(go, 0);
    usleep(20000);
    long before = rollup(pid, "Anonymous:");
    if (before < 0)
        conform_skip("no smaps_rollup");
    for (size_t i = 0; i < 1000; i++)
        table_set(&table, i * 29, 1);
    long after = rollup(pid, "Anonymous:");
    CHECK(quire_fork_stat(&st) == 0 && st.sharing == 1);
    CHECK(st.broken_bytes >= 1000 * 4096 / 2 && st.faults > 0);
    CHECK(before < 20000 && after - before >= 3000 && after - before < 20000, "%ld kB, then %ld",
          before, after);
    for (size_t i = 0; i < 1000; i++)
        table_set(&table, i * 29, 0);
    close(go[1]);
    CHECK(conform_child_ok(pid, "child"));
    CHECK(quire_fork_stat(&st) == 0 && st.sharing == 0 && st.forks == 1);
    end_sharing();
}

/* What the parent frees stays while a child sees it, and goes afterwards. */
static void given_back_later(void)
{
    int go[2];

    begin_afresh("given back later");
    need_sharing();
    table_make(&table, 20000, 4000);
    pid_t pid = waiting_child(go, 0);
    uint64_t seed = 1;
    struct table kept = table;
    kept.at = malloc(table.nr * sizeof(*kept.at));
    memcpy(kept.at, table.at, table.nr * sizeof(*kept.at));
    for (size_t i = 0; i < table.nr; i++)
        if (i % 1000 != conform_random(&seed) % 1000)
            free(kept.at[i]);
    malloc_trim(0);
    char *again = malloc(1 << 20);
    memset(again, 7, 1 << 20);
    close(go[1]);
    CHECK(conform_child_ok(pid, "child"));
    size_t before = conform_resident();
    usleep(60000); /* who is alive is asked for at most every 50 ms */
    malloc_trim(0);
    size_t after = conform_resident();
    CHECK(before - after > 30u << 20, "%zu, then %zu", before, after);
    end_sharing();
}

/* Neither the program's descriptors nor its closing of all of them matter. */
static void no_descriptors(void)
{
    int go[2];

    begin_afresh("no descriptors");
    need_sharing();
    int low = dup(0);
    close(low);
    CHECK(low == 3, "the first free descriptor is %d", low);
    table_make(&table, 3000, 4000);
    for (int fd = 3; fd < 100; fd++)
        close(fd);
    pid_t pid = waiting_child(go, 0);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    char *more = malloc(3u << 20); /* more of the window */
    memset(more, 1, 3u << 20);
    close(go[1]);
    CHECK(conform_child_ok(pid, "child"));
    end_sharing();
}

/* A child that no fork handler prepared does not share anything by accident. */
static void bare_child(void)
{
    int status = 0;

    begin_afresh("a child without handlers");
    need_sharing();
    table_make(&table, 100, 4000);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        table.at[0]->version = 5;
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV,
          "status %x", status);
    CHECK(table.at[0]->version == 0);
    /* The same in a child, whose pages are the parent's still. */
    pid_t first = child();
    if (first == 0) {
        pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (pid == 0)
            _exit(table.at[0]->version != 0);
        child_end(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    }
    CHECK(conform_child_ok(first, "child"));
    end_sharing();
}

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
    pid_t pid = waiting_child(go, 0);
    for (size_t i = 0; i < 100; i++)
        table_set(&table, i, 1);
    refuse(SYS_process_vm_writev, 0);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    CHECK(quire_fork_stat(&st) == 0 && st.method == QUIRE_FORK_COPY && st.why_not != NULL);
    pid_t second = waiting_child(go2, 1);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 2);
    close(go[1]);
    close(go2[1]);
    CHECK(conform_child_ok(pid, "first"));
    CHECK(conform_child_ok(second, "second"));
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
    pid_t pid = waiting_child(go, 0);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 1);
    close(go[1]);
    CHECK(conform_child_ok(pid, "child"));
    conform_end();
}

/* Snapshots of such a heap are there, by a holder process, in the parent and in a child. */
static int snapshot_holds(uint64_t version)
{
    struct record copy;
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);

    if (s == NULL)
        return errno == EPERM; /* no process may be read here */
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, version + 1);
    size_t bad = method(s) != QUIRE_SNAPSHOT_BY_HOLDER;
    for (size_t i = 0; i < table.nr; i++)
        bad += quire_snapshot_read(s, table.at[i], &copy, sizeof(copy)) != sizeof(copy) ||
               copy.version != version || copy.index != i;
    return quire_snapshot_release(s) == 0 && bad == 0;
}

static void snapshots(void)
{
    begin_afresh("snapshots by a holder");
    need_sharing();
    table_make(&table, 2000, 4000);
    CHECK(snapshot_holds(0));
    pid_t pid = child();
    if (pid == 0)
        child_end(snapshot_holds(1));
    CHECK(conform_child_ok(pid, "child"));
    CHECK(table_not(&table, 1) == 0);
    end_sharing();
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
    pid_t first = waiting_child(go, 0);
    for (size_t i = 0; i < table.nr; i += 2)
        table_set(&table, i, 1);
    FILE *f = fopen("/proc/self/statm", "r");
    REQUIRE(f != NULL && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    now_used.rlim_cur = now_used.rlim_max = pages * (unsigned long)getpagesize() + (10u << 20);
    REQUIRE(setrlimit(RLIMIT_AS, &now_used) == 0);
    for (size_t i = 1; i < table.nr; i += 2)
        table_set(&table, i, 1);
    pid_t second = waiting_child(go2, 1);
    CHECK(quire_fork_stat(&st) == 0 && st.method == QUIRE_FORK_COPY && st.why_not != NULL);
    for (size_t i = 0; i < table.nr; i++)
        table_set(&table, i, 2);
    close(go[1]);
    close(go2[1]);
    CHECK(conform_child_ok(first, "first"));
    CHECK(conform_child_ok(second, "second"));
    CHECK(table_not(&table, 2) == 0);
    conform_end();
}

static int free_and_malloc(void)
{
    for (size_t i = 0; i < table.nr; i += 3)
        free(table.at[i]);
    char *p = malloc(100000);
    return p != NULL;
}

/* A thread of the program forks while others fork. */
static void *fork_again_and_again(void *arg)
{
    for (int i = 0; i < 30; i++) {
        pid_t pid = i % 2 == 0 ? child() : fork();
        if (pid == 0) {
            uint64_t sum;
            child_end(table_check(&table, &sum) == 0 && free_and_malloc());
        }
        CHECK(conform_child_ok(pid, "child"));
        for (size_t k = (size_t)(uintptr_t)arg; k < table.nr; k += 4)
            table_set(&table, k, table.at[k]->version + 1);
    }
    return NULL;
}

static void threads_fork(void)
{
    pthread_t thread[4];
    uint64_t sum;

    begin_afresh("threads fork");
    need_sharing();
    table_make(&table, 1000, 4000);
    for (size_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&thread[i], NULL, fork_again_and_again, (void *)(uintptr_t)i) == 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    CHECK(table_not(&table, 30) == 0 && table_check(&table, &sum) == 0);
    end_sharing();
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

/* Children fork while pages are made private in one child after the other. */
static void forks_meanwhile(void)
{
    enum { CROWD = 100, SIBLINGS = 60 };
    pid_t crowd[CROWD], pid[SIBLINGS];
    int go[2], first[2];

    begin_afresh("children fork meanwhile");
    need_sharing();
    table_make(&table, 4000, 4000);
    pid_t free_place = waiting_child(first, 0);
    REQUIRE(pipe(go) == 0);
    for (size_t i = 0; i < CROWD; i++) {
        crowd[i] = child();
        if (crowd[i] == 0) {
            close(first[1]);
            close(go[1]);
            hear(go[0]);
            child_end(table_not(&table, 0) == 0);
        }
    }
    pid_t parent = child();
    if (parent == 0) {
        int ok = 1;
        close(first[1]);
        close(go[1]);
        for (size_t i = 0; i < SIBLINGS; i++) {
            pid[i] = child();
            if (pid[i] == 0) {
                hear(go[0]);
                child_end(table_not(&table, 0) == 0);
            }
        }
        for (size_t i = 0; i < SIBLINGS; i++)
            ok &= conform_child_ok(pid[i], "sibling");
        child_end(ok && table_not(&table, 0) == 0);
    }
    close(first[1]);
    CHECK(conform_child_ok(free_place, "first"));
    close(go[0]);
    for (size_t i = 0; i < table.nr; i += 7)
        table_set(&table, i, 1);
    close(go[1]);
    for (size_t i = 0; i < CROWD; i++)
        CHECK(conform_child_ok(crowd[i], "one of the crowd"));
    CHECK(conform_child_ok(parent, "parent"));
    end_sharing();
}

static const struct conform_case cases[] = {
    {"memory is shared", memory_is_shared, 60},
    {"given back later", given_back_later, 60},
    {"no descriptors", no_descriptors, 60},
    {"a child without handlers", bare_child, 60},
    {"a stack in the heap", stack_in_the_heap, 60},
    {"an unreachable child", unreachable_child, 60},
    {"an unreachable child and no memory", unreachable_and_no_memory, 60},
    {"userfaultfd refused", userfaultfd_refused, 60},
    {"snapshots by a holder", snapshots, 60},
    {"another pid namespace", pid_namespace, 60},
    {"address space used up", address_space_used_up, 60},
    {"threads fork", threads_fork, 120},
    {"a main thread that ends", main_thread_ends, 60},
    {"the first main thread ends", first_main_thread_ends, 60},
    {"children fork meanwhile", forks_meanwhile, 60},
    {"fork fails", fork_fails, 60},
    {"killed before a birth", killed_before_a_birth, 60},
    {"killed after a birth", killed_after_a_birth, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
