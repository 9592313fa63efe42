/*
 * sharing.c - the option fork:shared itself: what it costs and spares, what it keeps hidden, and
 * many that fork at once.
 *
 * What it does where something is refused is in sharing_refused.c, and how its processes end in
 * sharing_ends.c.
 */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "family.h"

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

static void memory_is_shared(void)
{
    struct quire_fork_stat st;
    int go[2];

    begin_afresh("memory is shared");
    need_sharing();
    table_make(&table, 30000, 4000); /* 117 MiB */
    pid_t pid = waiting_child(&table, go, 0);
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
    pid_t pid = waiting_child(&table, go, 0);
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
    pid_t pid = waiting_child(&table, go, 0);
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

/* Children fork while pages are made private in one child after the other. */
static void forks_meanwhile(void)
{
    enum { CROWD = 100, SIBLINGS = 60 };
    pid_t crowd[CROWD], pid[SIBLINGS];
    int go[2], first[2];

    begin_afresh("children fork meanwhile");
    need_sharing();
    table_make(&table, 4000, 4000);
    pid_t free_place = waiting_child(&table, first, 0);
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
    {"memory is shared", memory_is_shared, 60},       {"given back later", given_back_later, 60},
    {"no descriptors", no_descriptors, 60},           {"a child without handlers", bare_child, 60},
    {"snapshots by a holder", snapshots, 60},         {"threads fork", threads_fork, 120},
    {"children fork meanwhile", forks_meanwhile, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
