/*
 * fork.c - quire_fork(): parent, children and their children do what processes do, at the same
 * time, and none sees the other's writes. Right in every mode, with or without fork:shared.
 */
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "family.h"

#define WRITERS 2

static struct table table;
static atomic_bool stop;
static uint64_t written[WRITERS];

static void *write_all_over(void *arg)
{
    size_t me = (size_t)(uintptr_t)arg;
    uint64_t seed = me + 1;

    while (!stop) {
        size_t i = (size_t)conform_random(&seed) % (table.nr / WRITERS) * WRITERS + me;

        table_set(&table, i, table.at[i]->version + 1);
        written[me]++;
    }
    return NULL;
}

/* In the child: what it sees is whole and stays so; what it writes stays, too. */
static int sees_one_state(unsigned wait_us)
{
    uint64_t before, after;
    size_t bad = table_check(&table, &before), lost = 0;

    usleep(wait_us);
    bad += table_check(&table, &after);
    for (size_t i = 0; i < table.nr; i += 3)
        table_set(&table, i, UINT64_MAX / 2 + i);
    usleep(wait_us);
    for (size_t i = 0; i < table.nr; i += 3)
        lost += table.at[i]->version != UINT64_MAX / 2 + i;
    if (bad != 0 || before != after || lost != 0)
        printf("# %zu bad, sums %llu and %llu, %zu lost\n", bad, (unsigned long long)before,
               (unsigned long long)after, lost);
    fflush(stdout);
    return bad == 0 && before == after && lost == 0;
}

static void under_writers(size_t nr, size_t size)
{
    pthread_t thread[WRITERS];
    uint64_t sum, count = 0;

    table_make(&table, nr, size);
    for (size_t i = 0; i < WRITERS; i++)
        REQUIRE(pthread_create(&thread[i], NULL, write_all_over, (void *)(uintptr_t)i) == 0);
    for (int round = 0; round < 6; round++) {
        pid_t first = child();
        if (first == 0)
            child_end(sees_one_state(20000));
        usleep(5000);
        pid_t second = round % 2 == 0 ? child() : fork();
        if (second == 0)
            child_end(sees_one_state(10000));
        CHECK(conform_child_ok(first, "first"));
        CHECK(conform_child_ok(second, "second"));
    }
    stop = true;
    for (size_t i = 0; i < WRITERS; i++) {
        pthread_join(thread[i], NULL);
        count += written[i];
    }
    CHECK(table_check(&table, &sum) == 0);
    CHECK(sum == count, "%llu of %llu writes are there", (unsigned long long)sum,
          (unsigned long long)count);
}

static void small_records(void)
{
    begin_afresh("small records under writers");
    under_writers(20000, 200);
    end_sharing();
}

static void page_records(void)
{
    begin_afresh("pages under writers");
    under_writers(8000, 4096);
    end_sharing();
}

/* Each of many children has its own version of everything. */
static void siblings(void)
{
    enum { MANY = 40 };
    pid_t pid[MANY];
    int go[2];

    begin_afresh("siblings");
    table_make(&table, 3000, 3000);
    REQUIRE(pipe(go) == 0);
    for (int i = 0; i < MANY; i++) {
        for (size_t k = 0; k < table.nr; k++)
            table_set(&table, k, (uint64_t)i);
        pid[i] = child();
        REQUIRE(pid[i] >= 0, "errno %d", errno);
        if (pid[i] == 0) {
            close(go[1]);
            while (hear(go[0])) {
            }
            size_t bad = table_not(&table, (uint64_t)i);
            if (bad != 0)
                printf("# child %d: %zu differ\n", i, bad);
            fflush(stdout);
            child_end(bad == 0);
        }
        if (i % 7 == 3) /* some do not live long */
            kill(pid[i - 1], SIGKILL);
    }
    for (size_t k = 0; k < table.nr; k++)
        table_set(&table, k, 1000);
    close(go[1]);
    for (int i = 0; i < MANY; i++) {
        int status = 0;
        REQUIRE(waitpid(pid[i], &status, 0) == pid[i]);
        if ((i + 1) % 7 != 3 || i + 1 == MANY)
            CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: %x", i, status);
    }
    CHECK(table_not(&table, 1000) == 0);
    end_sharing();
}

/* Children die at any time while the parent writes densely. */
static void killed_at_any_time(void)
{
    begin_afresh("killed at any time");
    table_make(&table, 4000, 4096);
    for (uint64_t round = 1; round <= 30; round++) {
        pid_t victim = child();
        if (victim == 0)
            for (;;)
                table_set(&table, (size_t)rand() % table.nr, 5);
        pid_t witness = child();
        if (witness == 0) {
            usleep(20000);
            child_end(table_not(&table, round - 1) == 0);
        }
        for (size_t i = 0; i < table.nr; i++) {
            table_set(&table, i, round);
            if (i == table.nr / 30 * (size_t)round)
                kill(victim, SIGKILL);
        }
        CHECK(waitpid(victim, NULL, 0) == victim);
        CHECK(conform_child_ok(witness, "witness"));
        CHECK(table_not(&table, round) == 0);
    }
    end_sharing();
}

static void be_the_parent(void)
{
    int fd = atoi(getenv("FAMILY_FD"));

    table_make(&table, 3000, 3000);
    for (int i = 0; i < 3; i++) {
        pid_t pid = quire_fork(); /* survives its parent */
        if (pid == 0) {
            conform_alarm(60);
            while (getppid() == atoi(getenv("FAMILY_PID")))
                usleep(1000);
            uint64_t sum;
            if (table_check(&table, &sum) == 0 && sum == 0 && tell(fd))
                child_end(malloc(100000) != NULL);
            child_end(0);
        }
    }
    tell(fd);
    for (;;) /* killed in the middle of this */
        for (size_t i = 0; i < table.nr; i++)
            table_set(&table, i, 7);
}

static void parent_killed(void)
{
    int result[2], heard = 0;
    char number[16];

    begin_afresh("the parent is killed");
    REQUIRE(pipe(result) == 0);
    snprintf(number, sizeof(number), "%d", result[1]);
    setenv("FAMILY_FD", number, 1);
    pid_t pid = fork();
    if (pid == 0) {
        snprintf(number, sizeof(number), "%d", getpid());
        setenv("FAMILY_PID", number, 1);
        execl("/proc/self/exe", "parent", "be the parent", (char *)NULL);
        _exit(1);
    }
    close(result[1]);
    CHECK(hear(result[0]));
    usleep(10000);
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
    while (hear(result[0]))
        heard++;
    CHECK(heard == 3, "%d children found their table", heard);
    end_sharing();
}

/* malloc, free, realloc and trim for a while, everything checked. */
static int allocate(unsigned seed_in, int rounds)
{
    enum { SLOTS = 200 };
    static struct {
        char *p;
        size_t size;
        unsigned seed;
    } slot[SLOTS];
    uint64_t seed = seed_in;

    for (int n = 0; n < rounds; n++) {
        size_t i = conform_random(&seed) % SLOTS;
        size_t size = (size_t)1 << (4 + conform_random(&seed) % (n % 50 == 0 ? 20 : 14));

        if (slot[i].p != NULL && !conform_intact(slot[i].p, slot[i].size, slot[i].seed))
            return 0;
        if (n % 3 == 0) {
            free(slot[i].p);
            slot[i].p = NULL;
        }
        if (n % 500 == 0)
            malloc_trim(0);
        char *p = n % 5 == 0 && slot[i].p == NULL ? calloc(1, size) : realloc(slot[i].p, size);
        if (p == NULL)
            return 0;
        if (n % 5 == 0 && slot[i].p == NULL)
            for (size_t k = 0; k < size; k += 500)
                if (p[k] != 0)
                    return 0;
        slot[i].p = p;
        slot[i].size = size;
        slot[i].seed = (unsigned)n;
        conform_fill(p, size, slot[i].seed);
    }
    return 1;
}

static void all_allocate(void)
{
    begin_afresh("all allocate");
    table_make(&table, 2000, 1000);
    CHECK(allocate(1, 3000));
    for (unsigned round = 0; round < 5; round++) {
        pid_t a = child();
        if (a == 0)
            child_end(allocate(2 + round, 3000) && table_not(&table, 0) == 0);
        pid_t b = child();
        if (b == 0)
            child_end(allocate(200 + round, 3000) && table_not(&table, 0) == 0);
        CHECK(allocate(100 + round, 3000));
        CHECK(conform_child_ok(a, "a"));
        CHECK(conform_child_ok(b, "b"));
    }
    end_sharing();
}

/* Forks of forks, by both functions; each generation writes. */
static int generation(int depth)
{
    if (depth == 0)
        return sees_one_state(20000);
    pid_t a = depth % 2 == 0 ? child() : fork();
    if (a == 0)
        child_end(generation(depth - 1));
    pid_t b = child();
    if (b == 0)
        child_end(generation(depth - 1));
    int ok = sees_one_state(5000);
    return conform_child_ok(a, "a") && conform_child_ok(b, "b") && ok;
}

static void children_of_children(void)
{
    pthread_t thread[WRITERS];

    begin_afresh("children of children");
    table_make(&table, 4000, 2000);
    for (size_t i = 0; i < WRITERS; i++)
        REQUIRE(pthread_create(&thread[i], NULL, write_all_over, (void *)(uintptr_t)i) == 0);
    for (int round = 0; round < 3; round++) {
        pid_t pid = child();
        if (pid == 0)
            child_end(generation(2));
        CHECK(conform_child_ok(pid, "child"));
    }
    stop = true;
    for (size_t i = 0; i < WRITERS; i++)
        pthread_join(thread[i], NULL);
    conform_end();
}

static void leave_no_trace(void)
{
    begin_afresh("exec, exit, crash");
    table_make(&table, 2000, 2000);
    for (uint64_t round = 1; round < 10; round++) {
        pid_t execs = child(), exits, crashes;
        int status = 0;

        if (execs == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(1);
        }
        exits = child();
        if (exits == 0)
            exit(0);
        crashes = child();
        if (crashes == 0) {
            signal(SIGSEGV, SIG_DFL);
            raise(SIGSEGV);
        }
        for (size_t i = 0; i < table.nr; i++)
            table_set(&table, i, round);
        CHECK(conform_child_ok(execs, "exec"));
        CHECK(conform_child_ok(exits, "exit"));
        CHECK(waitpid(crashes, &status, 0) == crashes && WIFSIGNALED(status));
        CHECK(table_not(&table, round) == 0);
    }
    end_sharing();
}

/* System calls that write into pages that are shared. */
static void calls_write_too(void)
{
    enum { SIZE = 1 << 20 };
    int ends[2];

    begin_afresh("system calls write");
    char *p = malloc(SIZE), *from = malloc(SIZE);
    conform_fill(p, SIZE, 1);
    conform_fill(from, SIZE, 2);
    REQUIRE(pipe(ends) == 0);
    pid_t pid = child();
    if (pid == 0) {
        usleep(50000);
        child_end(conform_intact(p, SIZE, 1) && conform_intact(from, SIZE, 2));
    }
    for (size_t done = 0; done < SIZE; done += 4096) {
        CHECK(write(ends[1], from + done, 4096) == 4096);
        CHECK(read(ends[0], p + done, 4096) == 4096);
    }
    CHECK(conform_intact(p, SIZE, 2));
    CHECK(conform_child_ok(pid, "child"));
    end_sharing();
}

static long address_space_kib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0;

    REQUIRE(f != NULL && fscanf(f, "%ld", &pages) == 1);
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Page tables that were moved aside, and where they lay: also where nobody forks or writes any more. */
static void what_is_left_goes(void)
{
    begin_afresh("what is left of a fork goes");
    need_sharing();
    table_make(&table, 5000, 4000);
    long before = address_space_kib();
    pid_t pid = child();
    if (pid == 0)
        child_end(1);
    CHECK(conform_child_ok(pid, "child"));
    long after = address_space_kib();
    for (int i = 0; i < 1000 && after > before + (100 << 10); i++) {
        usleep(10000);
        after = address_space_kib();
    }
    CHECK(after <= before + (100 << 10), "%ld kB, then %ld", before, after);
    end_sharing();
}

static const struct conform_case cases[] = {
    {"small records under writers", small_records, 120},
    {"pages under writers", page_records, 120},
    {"siblings", siblings, 120},
    {"killed at any time", killed_at_any_time, 120},
    {"the parent is killed", parent_killed, 60},
    {"all allocate", all_allocate, 120},
    {"children of children", children_of_children, 120},
    {"exec, exit, crash", leave_no_trace, 60},
    {"system calls write", calls_write_too, 60},
    {"what is left of a fork goes", what_is_left_goes, 60},
};

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "be the parent") == 0)
        be_the_parent();
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
