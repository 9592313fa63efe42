/*
 * sigbus.c - heaps whose writers save pages themselves (QUIRE_HEAP_SIGBUS): what is promised, and
 * what is not; other handlers of SIGBUS; memory that comes to such heaps and leaves them; fork.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "quire/heap.h"
#include "steps.h"

enum { PAGE = 4096, SIZE = 1 << 20, NOBODY = 65534 };

static struct quire_heap *heap;
static char *block; /* SIZE bytes of it, 1 */

static bool in_force(struct quire_heap *h)
{
    struct quire_heap_stat st;

    quire_heap_stat(h, &st);
    return st.sigbus != 0;
}

static struct quire_heap *make_heap(void)
{
    struct quire_heap *h = quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SIGBUS});

    REQUIRE(h != NULL, "errno %d", errno);
    if (!in_force(h))
        conform_skip("no SIGBUS mode here");
    return h;
}

static void setup(void)
{
    heap = make_heap();
    block = quire_heap_aligned(heap, PAGE, SIZE);
    REQUIRE(block != NULL);
    memset(block, 1, SIZE);
}

static quire_snapshot_t *take_heap(struct quire_heap *h)
{
    quire_snapshot_t *s = quire_snapshot_take(h, 0);

    REQUIRE(s != NULL, "errno %d", errno);
    CHECK(method(s) == QUIRE_SNAPSHOT_BY_PROTECTION);
    return s;
}

static bool shows(const quire_snapshot_t *s, const char *p, size_t size, char c)
{
    char *copy = outside(size);
    bool ok = quire_snapshot_read(s, p, copy, size) == (ssize_t)size;

    for (size_t i = 0; ok && i < size; i++)
        ok = copy[i] == c;
    munmap(copy, size);
    return ok;
}

/* --- what is promised ------------------------------------------------------------------------ */

static void by_the_writer(void)
{
    struct quire_snapshot_stat st;

    setup();
    quire_snapshot_t *s = take_heap(heap);
    for (int i = 0; i < SIZE; i += 3 * PAGE)
        block[i] = 2;
    CHECK(shows(s, block, SIZE, 1));
    CHECK(quire_snapshot_stat(s, &st) == 0);
    CHECK(st.sigbus_faults > 0 && st.sigbus_faults == st.faults, "%llu of %llu",
          (unsigned long long)st.sigbus_faults, (unsigned long long)st.faults);
    quire_snapshot_release(s);
    quire_heap_destroy(heap);
}

static void system_calls(void)
{
    int end[2], sock[2];
    char c = 7;

    setup();
    REQUIRE(pipe(end) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, sock) == 0);
    for (int round = 0; round < 2; round++) {
        quire_snapshot_t *s = take_heap(heap);
        REQUIRE(write(end[1], "abc", 3) == 3 && send(sock[1], &c, 1, 0) == 1);
        errno = 0;
        CHECK(read(end[0], block, 3) == -1 && errno == EFAULT, "errno %d", errno);
        quire_snapshot_touch(block, 3);
        CHECK(read(end[0], block, 3) == 3 && memcmp(block, "abc", 3) == 0, "errno %d", errno);
        block[5 * PAGE] = 2; /* written once: also good */
        CHECK(recv(sock[0], block + 5 * PAGE, 1, 0) == 1 && block[5 * PAGE] == 7);
        quire_snapshot_touch(block + 8 * PAGE - 1, 3 * PAGE);
        CHECK(getrandom(block + 8 * PAGE - 1, 256, 0) == 256);
        CHECK(quire_snapshot_read(s, block + 9 * PAGE, block + 20 * PAGE, PAGE) == PAGE,
              "quire's own calls write there");
        if (round == 0)
            CHECK(shows(s, block, SIZE, 1));
        quire_snapshot_release(s);
        REQUIRE(write(end[1], "x", 1) == 1);
        CHECK(read(end[0], block + 30 * PAGE, 1) == 1, "no snapshot is alive: errno %d", errno);
    }
}

/* What an older snapshot protected is open when none lives. */
static void opened_in_the_end(void)
{
    struct quire_heap *other = make_heap();
    int end[2];

    setup();
    memset(quire_heap_alloc(other, SIZE), 1, SIZE);
    REQUIRE(pipe(end) == 0);
    quire_snapshot_t *first = take_heap(heap), *second = take_heap(other);
    quire_snapshot_release(first);
    REQUIRE(write(end[1], "ab", 2) == 2);
    quire_snapshot_touch(block, 1);
    CHECK(read(end[0], block, 1) == 1, "touched: errno %d", errno);
    quire_snapshot_release(second);
    CHECK(read(end[0], block + PAGE, 1) == 1, "errno %d", errno);
}

static void other_memory_as_ever(void)
{
    char *p = malloc(SIZE);
    int end[2];

    setup();
    memset(p, 1, SIZE);
    REQUIRE(pipe(end) == 0 && write(end[1], "abc", 3) == 3);
    quire_snapshot_t *s = take_protected();
    CHECK(read(end[0], p + 5, 3) == 3, "errno %d", errno);
    CHECK(shows(s, p, SIZE, 1));
    p[9 * PAGE] = block[9 * PAGE] = 2;
    CHECK(shows(s, p, SIZE, 1) && shows(s, block, SIZE, 1));
    quire_snapshot_release(s);
}

static void touch_anything(void)
{
    char c[2];
    char *p = malloc(SIZE);

    quire_snapshot_touch(NULL, 0);
    quire_snapshot_touch(p, SIZE);
    memset(p, 1, SIZE);
    quire_snapshot_t *s = take_protected();
    struct quire_snapshot_stat st;
    quire_snapshot_touch(c, 2);
    quire_snapshot_touch(NULL, 0);
    quire_snapshot_touch(p, SIZE);
    quire_snapshot_touch(p + 5, SIZE - 9);
    memset(p, 2, SIZE);
    CHECK(quire_snapshot_stat(s, &st) == 0);
    CHECK(st.touched_bytes >= SIZE, "%llu", (unsigned long long)st.touched_bytes);
    CHECK(shows(s, p, SIZE, 1));
    char *fresh = malloc(12u << 20); /* not in it */
    quire_snapshot_touch(fresh, 12u << 20);
    quire_snapshot_release(s);
    s = take(QUIRE_SNAPSHOT_HOLDER);
    quire_snapshot_touch(p, SIZE);
    memset(p, 3, SIZE);
    CHECK(shows(s, p, SIZE, 2));
    quire_snapshot_release(s);
}

static void *touch_and_write(void *arg)
{
    for (int i = 0; i < SIZE; i += PAGE) {
        quire_snapshot_touch(block + i, 1);
        /* Whoever was first: it is open now. */
        CHECK(getrandom(block + i + 8 * (uintptr_t)arg, 8, 0) == 8, "errno %d", errno);
    }
    return NULL;
}

static void touched_by_several(void)
{
    pthread_t thread[8];

    setup();
    for (int round = 0; round < 50; round++) {
        memset(block, 1, SIZE);
        quire_snapshot_t *s = take_heap(heap);
        for (uintptr_t i = 0; i < COUNT_OF(thread); i++)
            REQUIRE(pthread_create(&thread[i], NULL, touch_and_write, (void *)i) == 0);
        for (size_t i = 0; i < COUNT_OF(thread); i++)
            pthread_join(thread[i], NULL);
        CHECK(shows(s, block, SIZE, 1));
        quire_snapshot_release(s);
    }
    printf("# %d pages compared\n", 50 * SIZE / PAGE);
}

/* --- other handlers -------------------------------------------------------------------------- */

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
    REQUIRE(mmap((void *)truncated, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0) == truncated);
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

static void writes_are_saved(void)
{
    quire_snapshot_t *s = take_heap(heap);

    memset(block, 2, SIZE);
    CHECK(shows(s, block, SIZE, 1));
    memset(block, 1, SIZE);
    quire_snapshot_release(s);
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

/* --- memory that comes and goes -------------------------------------------------------------- */

/* Freed memory is malloc's again, and system calls write to it. */
static void given_back(void)
{
    struct quire_heap *h = make_heap();
    char *p[100], *q[100];
    int zero = open("/dev/zero", O_RDONLY);

    quire_snapshot_release(take_protected());
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            p[i] = quire_heap_alloc(h, i % 10 == 0 ? 7u << 20 : 700000);
            memset(p[i], 5, 700000);
        }
        quire_snapshot_t *s = round == 1 ? take_protected() : take_heap(h);
        for (int i = 0; i < 100; i++)
            quire_heap_free(h, p[i]);
        quire_trim(0);
        for (int i = 0; i < 100; i++) {
            q[i] = malloc(i % 10 == 0 ? 7u << 20 : 700000);
            CHECK(read(zero, q[i], 700000) == 700000, "errno %d", errno);
        }
        for (int i = 0; i < 100; i++)
            CHECK(shows(s, p[i], 700000, 5), "block %d", i);
        quire_snapshot_release(s);
        for (int i = 0; i < 100; i++)
            free(q[i]);
    }
    quire_heap_destroy(h);
}

static void blocks_of_all_sizes(void)
{
    static struct {
        unsigned char *at;
        size_t size;
        unsigned seed;
    } b[300];
    struct quire_heap *h = make_heap();
    uint64_t rng = 11;
    quire_snapshot_t *s = NULL;

    for (int i = 0; i < 20000; i++) {
        size_t k = conform_random(&rng) % COUNT_OF(b), size = 1 + conform_random(&rng) % 9000;

        size <<= conform_random(&rng) % 10 == 0 ? conform_random(&rng) % 10 : 0;
        if (b[k].at != NULL && conform_random(&rng) % 3 == 0) {
            size_t both = size < b[k].size ? size : b[k].size;
            (void)both;
            CHECK(conform_intact(b[k].at, b[k].size, b[k].seed), "block of %zu", b[k].size);
            b[k].at = quire_heap_realloc(h, b[k].at, size);
        } else {
            CHECK(b[k].at == NULL || conform_intact(b[k].at, b[k].size, b[k].seed));
            quire_heap_free(h, b[k].at);
            b[k].at = i % 5 == 0 ? quire_heap_calloc(h, 1, size)
                                 : quire_heap_aligned(h, 16u << (i % 10), size);
            for (size_t n = 0; i % 5 == 0 && n < size; n++)
                if (b[k].at[n] != 0) {
                    CHECK(false, "calloc of %zu bytes", size);
                    break;
                }
        }
        REQUIRE(b[k].at != NULL);
        CHECK(quire_heap_usable_size(h, b[k].at) >= size && quire_heap_of(b[k].at) == h);
        b[k].size = size;
        b[k].seed = (unsigned)i;
        conform_fill(b[k].at, size, b[k].seed);
        if (i % 500 == 0) {
            if (s != NULL)
                quire_snapshot_release(s);
            s = i % 1500 == 0 ? NULL : take_heap(h);
        }
    }
    if (s != NULL)
        quire_snapshot_release(s);
    quire_heap_reset(h);
    struct quire_heap_stat st;
    quire_heap_stat(h, &st);
    CHECK(st.held == 0 && st.live == 0 && st.live_bytes == 0, "%zu, %zu, %zu", st.held, st.live,
          st.live_bytes);
    quire_heap_destroy(h);
}

static void going_back(void)
{
    struct quire_snapshot_stat st;
    char *more[40];

    setup();
    char *gone = quire_heap_alloc(heap, 3u << 20);
    memset(gone, 4, 3u << 20);
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (s == NULL && errno == ENOTSUP)
        conform_skip("no going back here");
    REQUIRE(s != NULL, "errno %d", errno);
    for (int round = 0; round < 30; round++) {
        for (int i = 0; i < 40; i++) {
            more[i] = quire_heap_alloc(heap, 50000 * (size_t)(1 + i % 30));
            memset(more[i], round, 50000);
            block[(size_t)(i * 37 + round) % 256 * PAGE] = 9;
        }
        quire_heap_free(heap, gone);
        for (int i = 0; i < 20; i++)
            quire_heap_free(heap, more[2 * i]);
        memset(malloc(4u << 20), 7, 4u << 20);
        CHECK(quire_snapshot_restore(s) == 0, "errno %d", errno);
        for (int i = 0; i < SIZE; i++)
            if (block[i] != 1) {
                CHECK(false, "byte %d, round %d", i, round);
                break;
            }
        CHECK(gone[0] == 4 && gone[(3u << 20) - 1] == 4 && quire_heap_of(gone) == heap);
    }
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.sigbus_faults > 0);
    quire_snapshot_release(s);
    writes_are_saved();
    quire_heap_destroy(heap);
}

/* --- fork, and what is refused --------------------------------------------------------------- */

static void in_a_child(void)
{
    setup();
    quire_snapshot_t *s = take_heap(heap);
    for (int i = 0; i < 5; i++) {
        pid_t pid = i < 3 ? fork() : _Fork(); /* also one that runs no handlers of fork */
        if (pid == 0) {
            int end[2];
            REQUIRE(pipe(end) == 0 && write(end[1], "ab", 2) == 2);
            CHECK(read(end[0], block + 9 * PAGE, 1) == 1, "nothing is protected here");
            quire_snapshot_touch(block, SIZE);
            memset(block, 1, SIZE);
            memset(quire_heap_alloc(heap, 5u << 20), 1, 5u << 20);
            writes_are_saved();
            struct quire_snapshot_stat st;
            quire_snapshot_t *own = take_heap(heap);
            memset(block, 3, SIZE);
            CHECK(quire_snapshot_stat(own, &st) == 0 && st.sigbus_faults > 0 && in_force(heap));
            quire_heap_destroy(heap);
            CHECK(shows(own, block, SIZE, 1));
            conform_end();
        }
        CHECK(conform_child_ok(pid, "a child"));
    }
    memset(block, 2, SIZE);
    CHECK(shows(s, block, SIZE, 1));
    quire_snapshot_release(s);
}

/* A user without any privilege: only these heaps have snapshots by protection. */
static void without_privilege(void)
{
    struct quire_snapshot_stat st;
    int dev = open("/dev/userfaultfd", O_RDWR);

    if (dev >= 0)
        close(dev);
    if (getuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        conform_skip("cannot become nobody");
    if (open("/dev/userfaultfd", O_RDWR) >= 0 || syscall(SYS_userfaultfd, 0) >= 0)
        conform_skip("userfaultfd is free for all here");
    setup();
    char *big = quire_heap_alloc(heap, 9u << 20), *p = malloc(3u << 20);
    memset(big, 1, 9u << 20);
    quire_snapshot_t *s = take_heap(heap);
    memset(block, 2, SIZE);
    memset(big, 2, 9u << 20);
    CHECK(shows(s, block, SIZE, 1) && shows(s, big, 9u << 20, 1));
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.sigbus_faults == st.faults && st.faults > 0);
    quire_snapshot_release(s);
    memset(block, 1, SIZE);
    s = take_heap(heap);
    quire_heap_destroy(heap); /* and its memory is malloc's, which nobody watches */
    for (int i = 0; i < 20; i++)
        memset(malloc(1u << 20), 3, 1u << 20);
    CHECK(shows(s, block, SIZE, 1) && shows(s, big, 9u << 20, 2));
    quire_snapshot_release(s);
    memset(p, 1, 3u << 20);
    s = quire_snapshot_take(NULL, 0);
    if (s != NULL) {
        CHECK(method(s) == QUIRE_SNAPSHOT_BY_HOLDER);
        memset(p, 2, 3u << 20);
        CHECK(shows(s, p, 3u << 20, 1));
        quire_snapshot_release(s);
    }
    /* The program closes all it has open: said, and nobody waits. */
    setup();
    s = take_heap(heap);
    for (int fd = 3; fd < 100; fd++)
        close(fd);
    memset(block, 2, SIZE);
    char c;
    errno = 0;
    CHECK(quire_snapshot_read(s, block, &c, 1) == -1 && errno == EIO, "errno %d", errno);
    quire_snapshot_release(s);
}

static void descriptors_closed(void)
{
    char c;

    setup();
    quire_snapshot_release(take_protected());
    usleep(200000); /* the sweeper has it, too */
    quire_snapshot_t *s = take_heap(heap);
    for (int fd = 3; fd < 100; fd++)
        close(fd);
    memset(block, 2, SIZE);
    ssize_t n = quire_snapshot_read(s, block, &c, 1);
    CHECK((n == 1 && c == 1) || (n == -1 && errno == EIO), "%zd, %d, errno %d", n, c, errno);
    quire_snapshot_release(s);
    memset(block, 3, SIZE);
}

static void flags(void)
{
    struct quire_heap_attr dma = {.flags = QUIRE_HEAP_SIGBUS, .gfp = QUIRE_GFP_DMA32};

    CHECK(quire_heap_create(&dma) == NULL && errno == EINVAL);
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SIGBUS | QUIRE_HEAP_SINGLE,
                                   .limit = 8u << 20};
    struct quire_heap *h = quire_heap_create(&attr);
    REQUIRE(h != NULL);
    size_t nr = 0;
    while (quire_heap_alloc(h, 100000) != NULL)
        nr++;
    CHECK(nr >= 50, "%zu", nr);
    quire_heap_destroy(h);
}

static const struct conform_case cases[] = {
    {"flags", flags, 0},
    {"the writer saves its pages", by_the_writer, 0},
    {"system calls", system_calls, 0},
    {"open in the end", opened_in_the_end, 0},
    {"other memory as ever", other_memory_as_ever, 0},
    {"touch anything", touch_anything, 0},
    {"touched by several", touched_by_several, 120},
    {"a handler from before", handler_before, 0},
    {"a handler for one signal", handler_once, 0},
    {"no handler", no_handler, 0},
    {"SIGBUS ignored", ignored, 0},
    {"a handler made afterwards", handler_afterwards, 0},
    {"in handlers", in_handlers, 120},
    {"a stack in the heap", stack_in_the_heap, 120},
    {"memory given back", given_back, 120},
    {"blocks of all sizes", blocks_of_all_sizes, 120},
    {"going back", going_back, 120},
    {"in a child", in_a_child, 0},
    {"without privilege", without_privilege, 0},
    {"descriptors closed", descriptors_closed, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
