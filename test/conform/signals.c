/*
 * signals.c - signal handlers that allocate and free, also where they interrupt the allocator.
 *
 * No standard promises this, and most allocators deadlock; quire must not. Each case has its time
 * limit, so that a deadlock is a failure with a name. What quire does not promise (doc/malloc.md):
 * that a handler may use the very size class whose fast path it interrupted. So handlers here use
 * classes of their own among the small sizes, and any size among the large ones.
 */
#include "conform.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ENOUGH = 3000, SLOTS = 128 };
static _Atomic int handled, damaged;

/* Every thread's own blocks; the handler has slots apart from those of what it interrupts. */
static __thread unsigned char *handler_slots[SLOTS];
static __thread size_t handler_sizes[SLOTS];
static __thread uint64_t handler_seed;

static size_t between(uint64_t *state, size_t least, size_t most)
{
    return least + conform_random(state) % (most - least + 1);
}

/* Small sizes of interrupted code are up to 512 and 8192, those of handlers above. */
static size_t any_size(uint64_t *state, int in_handler)
{
    uint64_t dice = conform_random(state) % 1000;

    if (dice < 850) {
        return in_handler ? between(state, 700, 1000) : between(state, 1, 512);
    }
    if (dice < 985) {
        return in_handler ? between(state, 9400, 30000) : between(state, 1300, 8192);
    }
    return between(state, 33000, dice < 999 ? 500000 : 5000000);
}

static void churn(unsigned char **slots, size_t *sizes, uint64_t *seed, int steps)
{
    int in_handler = slots == handler_slots;

    for (int step = 0; step < steps; step++) {
        size_t i = conform_random(seed) % SLOTS;

        if (slots[i] != NULL) {
            if (slots[i][0] != (unsigned char)i || slots[i][sizes[i] - 1] != (unsigned char)i) {
                damaged++;
            }
            slots[i][0] = 0;
            free(slots[i]);
            slots[i] = NULL;
        }
        sizes[i] = any_size(seed, in_handler);
        slots[i] =
            step % 4 == 0 ? realloc(malloc(in_handler ? 800 : 10), sizes[i]) : malloc(sizes[i]);
        if (slots[i] == NULL) {
            damaged++;
            continue;
        }
        slots[i][0] = slots[i][sizes[i] - 1] = (unsigned char)i;
    }
}

/*
 * A timer that signals its own thread, once: each handler sets it again. Were it periodic, a machine
 * on which a handler takes longer than the period would do nothing but handle signals.
 */
static __thread timer_t timer;
static __thread long timer_ns; /* 0: none */

static void set_timer(long nanoseconds)
{
    struct itimerspec once = {{0, 0}, {0, nanoseconds}};

    timer_settime(timer, 0, &once, NULL);
}

static void start_timer(long nanoseconds)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 1};
    int error;

    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    /* EAGAIN: as many signals are queued as this user may have, in all of the machine's processes. */
    for (int i = 0; (error = timer_create(CLOCK_MONOTONIC, &event, &timer)) != 0 && i < 3000; i++) {
        REQUIRE(errno == EAGAIN, "errno %d", errno);
        usleep(20000);
    }
    if (error != 0) {
        conform_skip("no timer in a minute: the queue of signals (ulimit -i) is full");
    }
    timer_ns = nanoseconds;
    set_timer(nanoseconds);
}

static void stop_timer(void)
{
    timer_delete(timer);
}

static void allocating_handler(int number)
{
    int saved = errno;

    churn(handler_slots, handler_sizes, &handler_seed, 8);
    handled++;
    if (timer_ns != 0) {
        set_timer(timer_ns);
    }
    errno = saved;
}

static void run_under_storm(int threads_expected)
{
    static __thread unsigned char *slots[SLOTS];
    static __thread size_t sizes[SLOTS];
    uint64_t seed = 5;

    while (handled < ENOUGH * threads_expected) {
        churn(slots, sizes, &seed, 50);
    }
}

static void install(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

    REQUIRE(sigaction(number, &action, NULL) == 0);
}

static void require_quire(void)
{
    if (!conform_expects_quire()) {
        conform_skip("no promise of other allocators");
    }
}

/* This thread allocates, and a handler interrupts it all the time. */
static void storm_of(void (*handler)(int), int flags, long nanoseconds)
{
    require_quire();
    install(SIGRTMIN + 1, handler, flags);
    start_timer(nanoseconds);
    run_under_storm(1);
    stop_timer();
    CHECK(damaged == 0, "%d blocks were damaged or refused", damaged);
}

static void case_storm(void)
{
    storm_of(allocating_handler, SA_RESTART, 40000);
}

static void *stormy_thread(void *threads)
{
    start_timer(100000);
    run_under_storm((int)(uintptr_t)threads);
    stop_timer();
    return NULL;
}

static void case_storms_on_threads(void)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];

    require_quire();
    install(SIGRTMIN + 1, allocating_handler, SA_RESTART);
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, stormy_thread, (void *)THREADS) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(damaged == 0, "%d blocks were damaged or refused", damaged);
}

enum { DEEPEST = 4 };
static int depth;
static _Atomic int nested; /* handlers that interrupted another one */

/* Is interrupted by itself, so it shares no blocks with anybody. */
static void self_contained_handler(int number)
{
    static _Atomic uint64_t seeds;
    uint64_t seed = seeds++;
    unsigned char *blocks[12];
    size_t sizes[12];
    int saved = errno;

    nested += depth++ > 0;
    if (depth < DEEPEST) {
        set_timer((long)between(&seed, 1000, 50000)); /* somewhere in here */
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        sizes[i] = between(&seed, 33000, 500000); /* these interrupt each other */
        blocks[i] = malloc(sizes[i]);
        if (blocks[i] == NULL) {
            damaged++;
            sizes[i] = 0;
        } else {
            blocks[i][0] = blocks[i][sizes[i] - 1] = (unsigned char)i;
        }
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        if (sizes[i] != 0 && (blocks[i][0] != i || blocks[i][sizes[i] - 1] != i)) {
            damaged++;
        }
        free(blocks[i]);
    }
    handled++;
    if (--depth == 0) {
        set_timer(timer_ns);
    }
    errno = saved;
}

/* Many classes, so that slabs are wanted, and given back. */
static void self_contained_small_handler(int number)
{
    static __thread int times;
    unsigned char *blocks[24];
    int saved = errno;

    if (times++ >= 30) {
        return;
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        blocks[i] = malloc(8000 + 1000 * i);
        if (blocks[i] != NULL) {
            blocks[i][0] = blocks[i][8000] = (unsigned char)i;
        }
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        if (blocks[i] == NULL || blocks[i][0] != i || blocks[i][8000] != i) {
            damaged++;
        }
        free(blocks[i]);
    }
    handled++;
    set_timer(timer_ns);
    errno = saved;
}

static void case_handlers_that_nest(void)
{
    storm_of(self_contained_handler, SA_RESTART | SA_NODEFER, 40000);
    CHECK(nested > 0, "no handler interrupted another one");
}

static void case_handler_on_its_own_stack(void)
{
    stack_t stack = {.ss_size = 65536};

    stack.ss_sp =
        mmap(NULL, stack.ss_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(stack.ss_sp != MAP_FAILED && sigaltstack(&stack, NULL) == 0);
    storm_of(allocating_handler, SA_RESTART | SA_ONSTACK, 40000);
}

static void *first_thing_in_a_thread(void *unused)
{
    /* No allocation of this thread's own before the handler's: its heap is made in there. */
    raise(SIGRTMIN + 1);
    for (size_t i = 0; i < SLOTS; i++) {
        free(handler_slots[i]);
    }
    return NULL;
}

static void case_first_use_is_in_a_handler(void)
{
    install(SIGRTMIN + 1, allocating_handler, 0);
    for (int i = 0; i < 300; i++) {
        pthread_t thread;

        REQUIRE(pthread_create(&thread, NULL, first_thing_in_a_thread, NULL) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
    }
    CHECK(handled == 300 && damaged == 0, "handled %d, damaged %d", handled, damaged);
}

/*
 * What signals interrupt is fork itself, which keeps them waiting while the kernel copies the
 * process: so they come just when the allocator holds its locks for it.
 */
static pthread_t forker;
static _Atomic int forks_done;
static _Atomic int forks_made;

/*
 * The kernel begins a fork again that a signal interrupts. Where one takes longer than the time
 * between two signals it would never end, so they get rarer as long as there is no new child.
 */
static void *signal_the_forker(void *unused)
{
    int seen = 0;

    for (unsigned int pause = 200; !forks_done; pause = pause < 50000 ? pause + pause / 8 : pause) {
        pthread_kill(forker, SIGRTMIN + 1);
        if (seen != forks_made) {
            seen = forks_made;
            pause = 200;
        }
        usleep(pause);
    }
    return NULL;
}

static void case_handlers_while_forking(void)
{
    enum { FORKS = 100, BYTES = 32 << 20 };
    char *filled = malloc(BYTES);
    pthread_t thread;

    require_quire();
    REQUIRE(filled != NULL);
    memset(filled, 1, BYTES);
    install(SIGRTMIN + 1, allocating_handler, SA_RESTART);
    forker = pthread_self();
    REQUIRE(pthread_create(&thread, NULL, signal_the_forker, NULL) == 0);
    for (int i = 0; i < FORKS; i++) {
        pid_t child = fork();
        int status = -1;

        REQUIRE(child >= 0);
        if (child == 0) {
            free(malloc(1000));
            _exit(0);
        }
        while (waitpid(child, &status, 0) < 0) {
        }
        CHECK(status == 0, "child %d ended with status %#x", i, status);
        forks_made = i + 1;
    }
    forks_done = 1;
    pthread_join(thread, NULL);
    CHECK(handled > 0 && damaged == 0, "handled %d, damaged %d", handled, damaged);
}

/* Threads that end, with many slabs to give up, while signals arrive; handlers want the same. */
enum { LEFT = 2000 };
static void *left[LEFT];

static void *end_in_a_storm(void *unused)
{
    static const size_t sizes[] = {30000, 9400, 12000, 16000, 20000};
    sigset_t storm;

    sigemptyset(&storm);
    sigaddset(&storm, SIGRTMIN + 1);
    pthread_sigmask(SIG_BLOCK, &storm, NULL);
    for (size_t i = 0; i < LEFT; i++) {
        left[i] = malloc(sizes[i % COUNT_OF(sizes)]);
    }
    for (size_t i = 0; i < LEFT; i += 2) {
        free(left[i]);
    }
    start_timer(200000);
    /* From here to the thread's last moment. */
    pthread_sigmask(SIG_UNBLOCK, &storm, NULL);
    return timer;
}

static void case_handlers_while_threads_end(void)
{
    require_quire();
    install(SIGRTMIN + 1, self_contained_small_handler, SA_RESTART);
    for (int i = 0; i < 120; i++) {
        pthread_t thread;
        void *its_timer;

        REQUIRE(pthread_create(&thread, NULL, end_in_a_storm, NULL) == 0);
        REQUIRE(pthread_join(thread, &its_timer) == 0);
        timer_delete(its_timer);
        for (size_t k = 1; k < LEFT; k += 2) {
            free(left[k]);
        }
    }
    CHECK(damaged == 0, "%d blocks were damaged or refused", damaged);
}

/* One that asks what there is; it gets an answer, or none, but does not wait. */
static void asking_handler(int number)
{
    struct mallinfo2 info = mallinfo2();

    (void)info;
    handled++;
    set_timer(timer_ns);
}

static void case_handlers_that_ask(void)
{
    storm_of(asking_handler, SA_RESTART, 500000);
}

static const struct conform_case cases[] = {
    {"a storm of handlers that allocate", case_storm, 30},
    {"storms on 4 threads", case_storms_on_threads, 60},
    {"handlers that interrupt each other", case_handlers_that_nest, 30},
    {"handlers on a stack of their own", case_handler_on_its_own_stack, 30},
    {"a thread's first allocation is in a handler", case_first_use_is_in_a_handler, 0},
    {"handlers that ask for statistics", case_handlers_that_ask, 60},
    {"handlers while a process forks", case_handlers_while_forking, 60},
    {"handlers while threads end", case_handlers_while_threads_end, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
