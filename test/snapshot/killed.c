/*
 * killed.c - sandboxes that kill the threads which serve snapshots, one by one:
 * a clear error at worst, never a wrong byte, or a thread that waits for ever.
 */
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "filter.h"
#include "steps.h"

enum { PAGE = 4096, BYTES = 1 << 20 };

static _Atomic bool told;

/* Every thread that makes this system call is killed by it, alone. */
static void kill_at(unsigned nr)
{
    if (!filter_call(nr, 0, 0, SECCOMP_RET_KILL_THREAD))
        conform_skip("no seccomp filters here");
}

/* A sandbox that kills the handlers, one at each first write. */
static void handlers_killed(void)
{
    char *p = malloc(BYTES), c;

    memset(p, 1, BYTES);
    quire_snapshot_t *s = take_protected();
    memset(p, 2, PAGE);
    kill_at(SYS_process_vm_writev);
    memset(p, 3, BYTES); /* waits until it is noticed, and goes on */
    CHECK(p[BYTES - 1] == 3);
    errno = 0;
    CHECK(quire_snapshot_read(s, p, &c, 1) == -1 && errno == EIO, "errno %d", errno);
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

static void killed_while_lazy(void)
{
    char **block = many_blocks(), c;

    take_protected();
    kill_at(SYS_process_vm_writev);
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

static int keeper, sweeper;

static void find(int tid, const char *name)
{
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

/* The other handler is killed while the keeper sees to the first, as whomever it wakes comes before it. */
static void killed_meanwhile(void)
{
    char *p = malloc(BYTES), c;

    memset(p, 1, BYTES);
    quire_snapshot_release(take_protected());
    put_keeper_back();
    kill_at(SYS_process_vm_writev);
    for (int round = 0; round < 12; round++) {
        quire_snapshot_t *s = take(0);
        bool by_holder = method(s) == QUIRE_SNAPSHOT_BY_HOLDER;
        memset(p, 2 + round, BYTES);
        CHECK(quire_snapshot_read(s, p + 5 * PAGE, &c, 1) == 1 ? c == 1 + round : errno == EIO);
        CHECK(quire_snapshot_release(s) == 0);
        if (by_holder)
            break; /* no handler is left */
    }
    CHECK(p[0] == p[BYTES - 1]);
    free(p);
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
    {"another handler killed meanwhile", killed_meanwhile, 120},
    {"the sweeper killed", sweeper_killed, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
