/* forks.c - fork, vfork, _Fork, exec and daemons while other threads allocate. */
#include "conform.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 50 };
static _Atomic bool stop;

/* Sizes of every layer: small slabs, page runs, mappings of their own. */
static size_t any_size(uint64_t *state)
{
    uint64_t dice = conform_random(state) % 1000;
    size_t limit = dice < 800 ? 1000 : dice < 970 ? 40000 : dice < 998 ? 600000 : 6000000;

    return 1 + conform_random(state) % limit;
}

static void allocate_some(uint64_t seed, int steps)
{
    enum { SLOTS = 64 };
    unsigned char *slots[SLOTS] = {NULL};
    size_t sizes[SLOTS];

    for (int step = 0; step < steps; step++) {
        size_t i = conform_random(&seed) % SLOTS;

        if (slots[i] != NULL) {
            REQUIRE(slots[i][0] == (unsigned char)i && slots[i][sizes[i] - 1] == (unsigned char)i,
                    "a block of %zu bytes was overwritten", sizes[i]);
            if (step % 5 == 0) {
                sizes[i] = any_size(&seed);
                slots[i] = realloc(slots[i], sizes[i]);
                REQUIRE(slots[i] != NULL);
                slots[i][0] = slots[i][sizes[i] - 1] = (unsigned char)i;
                continue;
            }
            free(slots[i]);
        }
        sizes[i] = any_size(&seed);
        slots[i] = step % 3 == 0 ? calloc(1, sizes[i]) : malloc(sizes[i]);
        REQUIRE(slots[i] != NULL);
        slots[i][0] = slots[i][sizes[i] - 1] = (unsigned char)i;
    }
    for (size_t i = 0; i < SLOTS; i++) {
        free(slots[i]);
    }
}

static void *allocating_thread(void *seed)
{
    uint64_t state = (uintptr_t)seed;

    while (!stop) {
        allocate_some(conform_random(&state), 20);
        /* Fifty threads on a small machine would leave the forking one no time at all. */
        usleep(2000);
    }
    return NULL;
}

static pthread_t threads[THREADS];

static void start_threads(void)
{
    stop = false;
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, allocating_thread, (void *)(i + 1)) == 0);
    }
}

static void join_threads(void)
{
    stop = true;
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
}

/* What parents leave for their children to check, resize and free. */
enum { HEIRLOOMS = 300 };
static unsigned char *heirlooms[HEIRLOOMS];

static size_t heirloom_size(size_t i)
{
    return 1 + i * 37 % 5000 + (i % 60 == 0 ? 300000 : 0) + (i % 150 == 0 ? 3000000 : 0);
}

static void make_heirlooms(void)
{
    for (size_t i = 0; i < HEIRLOOMS; i++) {
        heirlooms[i] = malloc(heirloom_size(i));
        REQUIRE(heirlooms[i] != NULL);
        conform_fill(heirlooms[i], heirloom_size(i), (unsigned int)i);
    }
}

static void use_heirlooms(void)
{
    for (size_t i = 0; i < HEIRLOOMS; i++) {
        CHECK(conform_intact(heirlooms[i], heirloom_size(i), (unsigned int)i),
              "a block of %zu bytes changed over fork", heirloom_size(i));
        if (i % 4 == 0) {
            heirlooms[i] = realloc(heirlooms[i], heirloom_size(i) * 2);
            REQUIRE(heirlooms[i] != NULL);
            CHECK(conform_intact(heirlooms[i], heirloom_size(i), (unsigned int)i));
        }
        free(heirlooms[i]);
    }
}

static void *child_thread(void *unused)
{
    allocate_some(7, 300);
    return NULL;
}

/* What a child does with the memory it inherited, threads of its own and a grandchild included. */
static void live_in_child(uint64_t seed)
{
    pthread_t thread;
    pid_t pid;

    conform_alarm(30);
    use_heirlooms();
    allocate_some(seed, 500);
    REQUIRE(pthread_create(&thread, NULL, child_thread, NULL) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    pid = fork();
    if (pid == 0) {
        allocate_some(seed + 1, 200);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "grandchild"));
    conform_end();
}

static void case_fork(void)
{
    make_heirlooms();
    for (uint64_t i = 0; i < 30; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            live_in_child(i);
        }
        REQUIRE(conform_child_ok(pid, "child"));
        allocate_some(i, 300);
    }
    use_heirlooms();
}

static void case_fork_beside_threads(void)
{
    make_heirlooms();
    start_threads();
    for (uint64_t i = 0; i < conform_times(15); i++) {
        pid_t pid = fork();

        if (pid == 0) {
            live_in_child(i);
        }
        REQUIRE(conform_child_ok(pid, "child"));
    }
    join_threads();
    use_heirlooms();
}

static void *forking_thread(void *seed)
{
    for (unsigned int i = 0; i < conform_times(4); i++) {
        pid_t pid = fork();

        if (pid == 0) {
            conform_alarm(30);
            allocate_some((uintptr_t)seed, 200);
            conform_end();
        }
        REQUIRE(conform_child_ok(pid, "child of a thread"));
        allocate_some((uintptr_t)seed + 1, 100);
    }
    return NULL;
}

static void case_forks_at_once(void)
{
    pthread_t forkers[6];

    start_threads();
    for (size_t i = 0; i < COUNT_OF(forkers); i++) {
        REQUIRE(pthread_create(&forkers[i], NULL, forking_thread, (void *)(i + 1)) == 0);
    }
    for (size_t i = 0; i < COUNT_OF(forkers); i++) {
        REQUIRE(pthread_join(forkers[i], NULL) == 0);
    }
    join_threads();
}

static void case_fork_without_handlers(void)
{
    /* _Fork runs no handlers. Alone, or with the others idle, the child has a sound heap. */
    make_heirlooms();
    for (uint64_t i = 0; i < 30; i++) {
        pid_t pid = _Fork();

        if (pid == 0) {
            conform_alarm(30);
            use_heirlooms();
            allocate_some(i, 500);
            conform_end();
        }
        REQUIRE(conform_child_ok(pid, "child of _Fork"));
        allocate_some(i, 100);
    }
    use_heirlooms();
}

static pthread_barrier_t barrier;

static void *idle_thread(void *seed)
{
    allocate_some((uintptr_t)seed, 100);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    allocate_some((uintptr_t)seed, 100);
    return NULL;
}

static void case_fork_without_handlers_beside_threads(void)
{
    /* Threads that have heaps of their own, but are outside the allocator at that moment. */
    REQUIRE(pthread_barrier_init(&barrier, NULL, THREADS + 1) == 0);
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, idle_thread, (void *)(i + 1)) == 0);
    }
    pthread_barrier_wait(&barrier);
    case_fork_without_handlers();
    pthread_barrier_wait(&barrier);
    join_threads();
}

static void run_true(void)
{
    execl("/bin/true", "true", (char *)NULL);
    _exit(126);
}

static void case_vfork_and_exec(void)
{
    start_threads();
    for (int i = 0; i < 50; i++) {
        pid_t pid = vfork();

        if (pid == 0) {
            run_true();
        }
        REQUIRE(conform_child_ok(pid, "child of vfork"));
    }
    join_threads();
    allocate_some(3, 300);
}

static void case_exec_chain(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        execl("/proc/self/exe", "forks", "--chain", "30", (char *)NULL);
        _exit(126);
    }
    CHECK(conform_child_ok(pid, "30 execs beside allocating threads"));
}

static _Atomic int forks_in_handler, forks_wanted, handler_failure;

/* Of the process's time, once: the handler sets it again. With a period shorter than what a fork
   takes on some machine, the storm would be all there is. */
static void fork_soon(void)
{
    struct itimerval soon = {{0, 0}, {0, 1500}};

    setitimer(ITIMER_PROF, &soon, NULL);
}

static void fork_in_handler(int number)
{
    int saved = errno, status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        conform_alarm(30);
        allocate_some((uint64_t)forks_in_handler, 60);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (pid < 0 || status != 0) {
        handler_failure = pid < 0 ? -1 : status;
    }
    if (++forks_in_handler < forks_wanted) {
        fork_soon();
    }
    errno = saved;
}

static void fork_storm(int forks)
{
    struct sigaction action = {.sa_handler = fork_in_handler};
    uint64_t seed = 1;

    forks_wanted = forks;
    REQUIRE(sigaction(SIGPROF, &action, NULL) == 0);
    fork_soon();
    while (forks_in_handler < forks) {
        allocate_some(seed++, 100);
    }
    CHECK(handler_failure == 0, "a child forked in a handler ended with %#x", handler_failure);
}

static void case_fork_in_a_handler(void)
{
    if (!conform_expects_quire()) {
        conform_skip("no promise of other allocators");
    }
    /* The handler interrupts malloc itself, and the child allocates. */
    fork_storm(60);
}

static void case_fork_in_a_handler_beside_threads(void)
{
    if (!conform_expects_quire()) {
        conform_skip("no promise of other allocators");
    }
    start_threads();
    fork_storm((int)conform_times(15));
    join_threads();
}

static void case_daemon(void)
{
    int ends[2];
    char answer[8] = "";
    pid_t pid;

    make_heirlooms();
    start_threads();
    REQUIRE(pipe(ends) == 0);
    pid = fork();
    if (pid == 0) {
        /* As daemons do: leave the session, fork again, let the parent go. */
        close(ends[0]);
        if (setsid() < 0) {
            _exit(1);
        }
        pid = fork();
        if (pid != 0) {
            _exit(pid < 0 ? 1 : 0);
        }
        conform_alarm(30);
        use_heirlooms();
        allocate_some(11, 1000);
        (void)!write(ends[1], "served", 6);
        conform_end();
    }
    close(ends[1]);
    CHECK(conform_child_ok(pid, "first child of a daemon"));
    CHECK(read(ends[0], answer, sizeof(answer) - 1) == 6 && strcmp(answer, "served") == 0,
          "the daemon did not answer");
    close(ends[0]);
    join_threads();
}

static const struct conform_case cases[] = {
    {"fork", case_fork, 0},
    {"fork beside 50 allocating threads", case_fork_beside_threads, 120},
    {"forks from several threads at once", case_forks_at_once, 120},
    {"_Fork", case_fork_without_handlers, 0},
    {"_Fork beside 50 idle threads", case_fork_without_handlers_beside_threads, 0},
    {"vfork and exec beside 50 allocating threads", case_vfork_and_exec, 0},
    {"a chain of execs beside 50 allocating threads", case_exec_chain, 0},
    {"fork in a handler that interrupts malloc", case_fork_in_a_handler, 30},
    {"fork in a handler, beside 50 allocating threads", case_fork_in_a_handler_beside_threads, 60},
    {"a daemon", case_daemon, 0},
};

/* With --chain N: allocates and starts itself anew N times, each in place of the last. */
static int chain(int left)
{
    char text[16];

    start_threads();
    allocate_some((uint64_t)left, 100);
    if (left == 0) {
        join_threads();
        return 0;
    }
    snprintf(text, sizeof(text), "%d", left - 1);
    execl("/proc/self/exe", "forks", "--chain", text, (char *)NULL);
    return 126;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--chain") == 0) {
        return chain(atoi(argv[2]));
    }
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
