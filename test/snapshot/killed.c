/*
 * killed.c - sandboxes that kill the threads which serve snapshots, one by one:
 * a clear error at worst, never a wrong byte, or a thread that waits for ever.
 */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "filter.h"
#include "quire/fork.h"
#include "steps.h"

enum { PAGE = 4096, BYTES = 1 << 20 };

static _Atomic bool told;

/* The number of userfaultfd; -1: there is none. */
static int handlers_descriptor(void)
{
    char path[32], what[64];

    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, what, sizeof(what) - 1);
        what[n > 0 ? n : 0] = 0;
        if (strstr(what, "[userfaultfd]") != NULL)
            return fd;
    }
    return -1;
}

/* Every thread that makes this system call is killed by it, alone; by read(2) of that descriptor only. */
static void kill_at(unsigned nr)
{
    int fd = nr == SYS_read ? handlers_descriptor() : 0;

    REQUIRE(fd >= 0);
    if (!filter_call(nr, nr == SYS_read, (uint32_t)fd, SECCOMP_RET_KILL_THREAD))
        conform_skip("no seccomp filters here");
}

/* Run fn for each system call of a table, in a child of its own; that its main thread is not killed, too. */
static void for_each_call(const unsigned *nr, size_t count, void (*fn)(unsigned nr))
{
    _Atomic bool *done =
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char what[32];

    REQUIRE(done != MAP_FAILED);
    for (size_t i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* signals may be blocked for ever */
            fn(nr[i]);
            *done = true;
            conform_end();
        }
        snprintf(what, sizeof(what), "system call %u", nr[i]);
        CHECK(conform_child_ok(pid, what) && *done, "system call %u", nr[i]);
        *done = false;
    }
}

/* A sandbox that kills the handlers, one at each first write, or at what comes after it; or the keeper. */
static void one_call_kills(unsigned nr)
{
    char *p = malloc(BYTES), c;

    memset(p, 1, BYTES);
    quire_snapshot_t *s = take_protected();
    memset(p, 2, PAGE);
    kill_at(nr);
    memset(p, 3, BYTES); /* waits until it is noticed, and goes on */
    CHECK(p[BYTES - 1] == 3);
    errno = 0;
    bool shows = quire_snapshot_read(s, p, &c, 1) == 1;
    CHECK(shows ? nr != SYS_process_vm_writev && c == 1 : errno == EIO, "errno %d", errno);
    for (int i = 0; i < 10; i++) {
        quire_snapshot_t *next = take(0);
        memset(p, 4 + i, BYTES);
        CHECK(quire_snapshot_read(next, p + 5 * PAGE, &c, 1) == 1 ? c == 3 + i : errno == EIO);
        CHECK(quire_snapshot_release(next) == 0);
        if (method(next = take(0)) == QUIRE_SNAPSHOT_BY_HOLDER)
            i = 10;
        CHECK(quire_snapshot_release(next) == 0);
    }
    CHECK(quire_snapshot_release(s) == 0);
    free(p);
}

static void handlers_killed(void)
{
    static const unsigned nr[] = {SYS_process_vm_writev, SYS_read,  SYS_readv, SYS_ppoll,
                                  SYS_nanosleep,         SYS_tgkill};

    for_each_call(nr, COUNT_OF(nr), one_call_kills);
}

static void one_call_kills_lazily(unsigned nr)
{
    char **block = many_blocks(), c;

    take_protected();
    kill_at(nr);
    for (int round = 0; round < 3; round++) {
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
        for (int i = 0; i < MANY_BLOCKS; i++)
            block[i][50000] = 1;
        check_many_blocks(block);
        CHECK(quire_snapshot_read(s, block[9], &c, 1) == 1 ? c == 9 : errno == EIO);
        CHECK(quire_snapshot_release(s) == 0);
    }
    check_many_blocks(block);
}

static void killed_while_lazy(void)
{
    static const unsigned nr[] = {SYS_process_vm_writev, SYS_read};

    for_each_call(nr, COUNT_OF(nr), one_call_kills_lazily);
}

/* What our threads do at their beginning: there are no snapshots by protection then. */
static void one_call_kills_at_once(unsigned nr)
{
    char *p = malloc(BYTES), c;

    memset(p, 1, BYTES);
    kill_at(nr);
    for (int round = 0; round < 3; round++) {
        quire_snapshot_t *s = take(0);
        memset(p, 2 + round, BYTES);
        CHECK(quire_snapshot_read(s, p, &c, 1) == 1 && c == 1 + round);
        CHECK(quire_snapshot_release(s) == 0);
    }
}

static void killed_at_once(void)
{
    static const unsigned nr[] = {SYS_setpriority, SYS_sched_setaffinity, SYS_unshare};

    quire_snapshot_release(take_protected());
    for_each_call(nr, COUNT_OF(nr), one_call_kills_at_once);
}

/* With fork:shared, before the program begins: it goes without. */
static void nothing(void)
{
    struct quire_fork_stat st;
    char *p = malloc(BYTES);

    memset(p, 1, BYTES);
    free(p);
    _exit(quire_fork_stat(&st) != 0 || st.method != QUIRE_FORK_COPY);
}

static void cowd_killed(void)
{
    static const unsigned nr[] = {SYS_setpriority, SYS_unshare, SYS_close_range, SYS_memfd_create};

    for (size_t i = 0; i < COUNT_OF(nr); i++) {
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            kill_at(nr[i]);
            setenv("QUIRE_CONF", "fork:shared", 1);
            execl("/proc/self/exe", "killed", "nothing", (char *)NULL);
            _exit(1);
        }
        CHECK(conform_child_ok(pid, "with fork:shared"));
    }
}

/* Call fn for each thread of this process: number and name. */
static void for_each_thread(void (*fn)(int tid, const char *name))
{
    char path[64], name[32] = "";
    DIR *d = opendir("/proc/self/task");

    REQUIRE(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", e->d_name);
        FILE *f = fopen(path, "r");
        if (f != NULL && fgets(name, sizeof(name), f) != NULL)
            fn(atoi(e->d_name), name);
        if (f != NULL)
            fclose(f);
    }
    closedir(d);
}

static int keeper, sweeper, nr_handlers;

static void find(int tid, const char *name)
{
    nr_handlers += strncmp(name, "quire-snapshot", 14) == 0;
    if (strncmp(name, "quire-keeper", 12) == 0)
        keeper = tid;
    if (strncmp(name, "quire-sweeper", 13) == 0)
        sweeper = tid;
}

static bool confined;
static int cpu;

static void confine(int tid, const char *name)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    confined &= sched_setaffinity(tid, sizeof(one), &one) == 0;
}

/* All threads on one CPU, and the keeper comes when no other wants it. */
static void put_keeper_back(void)
{
    struct sched_param none = {0};

    for (keeper = 0; keeper == 0; usleep(1000)) /* it begins by and by */
        for_each_thread(find);
    cpu = sched_getcpu();
    confined = sched_setscheduler(keeper, SCHED_IDLE, &none) == 0;
    for_each_thread(confine);
    if (!confined)
        conform_skip("threads may not be put on one CPU here, or back");
}

/*
 * The other handler is killed, or the next cut comes, while the keeper sees to the first: whomever it
 * wakes comes before it.
 */
static void killed_meanwhile_by(unsigned flags)
{
    char **block = many_blocks(), c;

    quire_snapshot_release(take_protected());
    put_keeper_back();
    kill_at(SYS_process_vm_writev);
    for (int round = 0; round < 12; round++) {
        quire_snapshot_t *s = take(flags);
        bool by_holder = method(s) == QUIRE_SNAPSHOT_BY_HOLDER;
        for (int i = 0; i < MANY_BLOCKS; i++)
            block[i][50000] = (char)round;
        CHECK(quire_snapshot_read(s, block[9], &c, 1) == 1 ? c == 9 : errno == EIO);
        CHECK(quire_snapshot_release(s) == 0);
        if (by_holder)
            break; /* no handler is left */
    }
    check_many_blocks(block);
}

static void killed_meanwhile(void)
{
    killed_meanwhile_by(0);
}

static void killed_meanwhile_lazily(void)
{
    killed_meanwhile_by(QUIRE_SNAPSHOT_LAZY);
}

/* All handlers are gone, and nobody knows: whoever moves memory waits for one that reads of it. */
static void lazy_cut_after(unsigned nr)
{
    char **block = many_blocks(), c;

    quire_snapshot_t *s = take_protected();
    nr_handlers = 0;
    for_each_thread(find);
    kill_at(nr);
    for (int i = 0; i < nr_handlers; i++) /* each is served, and then reads */
        block[i * 20][50000] = 2;
    usleep(1000);
    quire_snapshot_t *lazy = take(QUIRE_SNAPSHOT_LAZY);
    for (int i = 0; i < MANY_BLOCKS; i++)
        block[i][50001] = 1;
    check_many_blocks(block);
    CHECK(quire_snapshot_read(lazy, block[9], &c, 1) == 1 ? c == 9 : errno == EIO);
    CHECK(quire_snapshot_release(lazy) == 0);
    CHECK(quire_snapshot_release(s) == 0);
}

static void killed_before_a_lazy_cut(void)
{
    static const unsigned nr[] = {SYS_read};

    for_each_call(nr, COUNT_OF(nr), lazy_cut_after);
}

static char *rest; /* of the heap: one touches it, one writes elsewhere */

static void *touch_until_told(void *arg)
{
    while (!told)
        for (int i = 0; i < BYTES; i += PAGE)
            quire_snapshot_touch(rest + i, 1);
    return arg;
}

/* Without a sweeper, what comes while another holds the lock is come back to all the same. */
static void left_without_sweeper(void)
{
    char **block = many_blocks(), *p = malloc(8 * BYTES);
    pthread_t thread;

    rest = malloc(BYTES);
    quire_snapshot_release(take_protected());
    quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
    kill_at(SYS_mremap);
    for (int i = MANY_BLOCKS - 1; i >= 0; i--)
        block[i][50000] = 1;
    CHECK(quire_snapshot_release(s) == 0);
    sweeper = 0;
    for_each_thread(find);
    if (sweeper != 0)
        conform_skip("the sweeper was quicker");
    REQUIRE(pthread_create(&thread, NULL, touch_until_told, NULL) == 0);
    for (int round = 0; round < 20; round++) {
        s = take(0);
        for (int i = 0; i < 8 * BYTES; i += 2 * PAGE)
            p[i] = 1; /* every other page: each is a fault */
        CHECK(quire_snapshot_release(s) == 0);
    }
    told = true;
    pthread_join(thread, NULL);
}

static void *write_until_told(void *arg)
{
    char **block = arg;

    for (unsigned i = 0; !told; i++)
        block[i * 7 % (MANY_BLOCKS / 2)][60000]++;
    return arg;
}

/* A sandbox that kills the sweeper at its next piece, and nobody else. */
static void sweeper_killed(void)
{
    char **block = many_blocks(), c;
    struct quire_snapshot_stat st;
    pthread_t thread[2];

    quire_snapshot_release(take_protected());
    quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
    kill_at(SYS_mremap);
    for (int i = MANY_BLOCKS - 1; i >= 0; i--)
        block[i][50000] = 1;
    check_many_blocks(block);
    for (int i = 0; i < MANY_BLOCKS; i += 50)
        CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 ? c == (char)i : errno == EIO);
    CHECK(quire_snapshot_release(s) == 0);
    sweeper = 0;
    for_each_thread(find);
    if (sweeper != 0)
        conform_skip("the sweeper was quicker");
    /* And without one: nothing is moved, and nobody waits for ever. */
    told = false;
    for (int i = 0; i < 2; i++)
        REQUIRE(pthread_create(&thread[i], NULL, write_until_told, block) == 0);
    for (int round = 0; round < 200; round++) {
        s = take(round % 2 == 0 ? QUIRE_SNAPSHOT_LAZY : 0);
        CHECK(quire_snapshot_stat(s, &st) == 0 && st.moved_bytes == 0);
        CHECK(st.method == QUIRE_SNAPSHOT_BY_PROTECTION && st.error == 0);
        char *p = block[MANY_BLOCKS - 1 - round];
        p[50000] = 2;
        CHECK(quire_snapshot_read(s, p + 50000, &c, 1) == 1 && c == 1, "%d, errno %d", c, errno);
        CHECK(quire_snapshot_release(s) == 0);
    }
    pid_t pid = fork();
    if (pid == 0) {
        check_many_blocks(block);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    told = true;
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    check_many_blocks(block);
}

static const struct conform_case cases[] = {
    {"handlers killed", handlers_killed, 120},
    {"handlers killed, lazily", killed_while_lazy, 120},
    {"killed at once", killed_at_once, 120},
    {"killed at once, fork:shared", cowd_killed, 120},
    {"another handler killed meanwhile", killed_meanwhile, 120},
    {"another handler killed meanwhile, lazily", killed_meanwhile_lazily, 120},
    {"killed before a lazy cut", killed_before_a_lazy_cut, 120},
    {"the sweeper killed", sweeper_killed, 120},
    {"left without a sweeper", left_without_sweeper, 120},
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "nothing") == 0)
        nothing();
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
