/*
 * sigbus_handlers.c - heaps whose writers save pages themselves (QUIRE_HEAP_SIGBUS), and signals:
 * other handlers of SIGBUS, made before and afterwards; writers in handlers, and on any stack.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "bus.h"

static volatile sig_atomic_t seen, seen_mask, seen_code;
static volatile char *volatile truncated; /* the handler looks at it */

/* A page of a file that has none: touching it is a SIGBUS of the program's own. */
static char *map_truncated(void)
{
    int fd = memfd_create("short", 0);
    char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    REQUIRE(fd >= 0 && p != MAP_FAILED);
    close(fd);
    return p;
}

static void repair(void)
{
    REQUIRE(mmap((void *)truncated, PAGE, PROT_READ | PROT_WRITE,
                 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == truncated);
}

static void theirs(int sig, siginfo_t *info, void *context)
{
    sigset_t now;

    sigprocmask(SIG_BLOCK, NULL, &now);
    seen_mask =
        sigismember(&now, SIGUSR1) + 2 * sigismember(&now, SIGBUS) + 4 * sigismember(&now, SIGUSR2);
    seen_code = info->si_code;
    if (info->si_code == BUS_ADRERR) {
        CHECK((volatile char *)info->si_addr == truncated + 5);
        repair();
    }
    seen++;
}

static void simple(int sig)
{
    seen++;
    repair();
}

static void handler_before(void)
{
    struct sigaction act = {.sa_sigaction = theirs, .sa_flags = SA_SIGINFO};

    sigaddset(&act.sa_mask, SIGUSR1);
    REQUIRE(sigaction(SIGBUS, &act, NULL) == 0);
    setup();
    writes_are_saved();
    truncated = map_truncated();
    truncated[5] = 3;
    CHECK(seen == 1 && seen_code == BUS_ADRERR && truncated[5] == 3);
    CHECK(seen_mask == 1 + 2, "mask %d", (int)seen_mask);
    kill(getpid(), SIGBUS);
    CHECK(seen == 2 && seen_code == SI_USER);
    writes_are_saved();
    CHECK(seen == 2);
}

static void handler_once(void)
{
    struct sigaction act = {.sa_handler = simple, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
    int status;

    REQUIRE(sigaction(SIGBUS, &act, NULL) == 0);
    setup();
    truncated = map_truncated();
    truncated[5] = 3;
    CHECK(seen == 1);
    writes_are_saved();
    pid_t pid = fork();
    if (pid == 0) {
        kill(getpid(), SIGBUS);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%#x", (unsigned)status);
}

static void no_handler(void)
{
    int status;

    setup();
    for (int how = 0; how < 2; how++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (how == 0)
                *map_truncated() = 1;
            else
                raise(SIGBUS);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "%#x", (unsigned)status);
    }
    writes_are_saved();
}

static void ignored(void)
{
    signal(SIGBUS, SIG_IGN);
    setup();
    raise(SIGBUS);
    writes_are_saved();
}

static struct sigaction ours;

static void after(int sig, siginfo_t *info, void *context)
{
    seen++;
    ours.sa_sigaction(sig, info, context);
}

/* As the header says that a program should. */
static void handler_afterwards(void)
{
    struct sigaction act = {.sa_sigaction = after, .sa_flags = SA_SIGINFO};

    setup();
    sigfillset(&act.sa_mask);
    REQUIRE(sigaction(SIGBUS, &act, &ours) == 0);
    writes_are_saved();
    CHECK(seen > 0);
}

/* In a handler that runs on a small stack of its own, and in one that interrupts all the time. */
static void write_some(int sig)
{
    static uint64_t rng = 3;

    size_t at = conform_random(&rng) % SIZE;

    block[at] = 1;
    quire_snapshot_touch(block + SIZE - 1 - at, 1);
}

static void in_handlers(void)
{
    char *small = malloc(16384); /* in the heap, and protected with it */
    stack_t stack = {.ss_sp = small, .ss_size = 16384};
    struct sigaction act = {.sa_handler = write_some, .sa_flags = SA_ONSTACK | SA_RESTART};
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec often = {{0, 200000}, {0, 200000}};

    setup();
    char *p = malloc(SIZE);
    memset(p, 1, SIZE);
    REQUIRE(sigaltstack(&stack, NULL) == 0 && sigaction(SIGALRM, &act, NULL) == 0);
    REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    timer_settime(timer, 0, &often, NULL);
    for (int round = 0; round < 300; round++) {
        quire_snapshot_t *s = take_protected();
        for (int i = 0; i < SIZE; i += PAGE) {
            block[i] = 1;
            quire_snapshot_touch(p + i, 1);
        }
        quire_snapshot_touch(p, SIZE);
        if (round % 10 == 0)
            CHECK(shows(s, p, SIZE, 1) && shows(s, block, SIZE, 1));
        quire_snapshot_release(s);
    }
    timer_delete(timer);
}

/* The stack of the writer lies in the default heap, which is cut by others at any time. */
static _Atomic bool stop;

static void *write_all_the_time(void *arg)
{
    char *p = arg;

    while (!stop)
        for (int i = 0; i < SIZE; i += PAGE) {
            block[i] = 1;
            quire_snapshot_touch(p + i, 1);
        }
    return NULL;
}

static void stack_in_the_heap(void)
{
    pthread_attr_t attr;
    pthread_t thread[3];
    char *p = malloc(SIZE);

    setup();
    memset(p, 1, SIZE);
    for (size_t i = 0; i < COUNT_OF(thread); i++) {
        pthread_attr_init(&attr);
        REQUIRE(pthread_attr_setstack(&attr, aligned_alloc(PAGE, 65536 << i), 65536u << i) == 0);
        REQUIRE(pthread_create(&thread[i], &attr, write_all_the_time, p) == 0);
    }
    for (int round = 0; round < 500; round++) {
        quire_snapshot_t *s = take_protected();
        if (round % 20 == 0)
            CHECK(shows(s, p, SIZE, 1));
        quire_snapshot_release(s);
    }
    stop = true;
    for (size_t i = 0; i < COUNT_OF(thread); i++)
        pthread_join(thread[i], NULL);
}

static const struct conform_case cases[] = {
    {"a handler from before", handler_before, 0},
    {"a handler for one signal", handler_once, 0},
    {"no handler", no_handler, 0},
    {"SIGBUS ignored", ignored, 0},
    {"a handler made afterwards", handler_afterwards, 0},
    {"in handlers", in_handlers, 120},
    {"a stack in the heap", stack_in_the_heap, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
