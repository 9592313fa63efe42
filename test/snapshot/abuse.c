/*
 * abuse.c - programs that end, close and forbid what snapshots need, or call
 * into memory that is protected: a clear error at worst, never a wrong byte, a
 * thread that waits for ever, or a process that does not end.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "steps.h"

enum { PAGE = 4096, BYTES = 1 << 20 };

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

static int words[2]; /* a pipe for what a child says at its end */

static void say_end(void)
{
    CHECK(write(words[1], "end", 3) == 3);
}

static void *last_thread(void *p)
{
    usleep(100000);
    memset(p, 3, BYTES);
    return NULL;
}

/* A process whose main thread ends by pthread_exit() ends with its last thread, and says so. */
static void main_thread_ends(void)
{
    char *p = malloc(BYTES), word[4] = "";
    pthread_t thread;

    memset(p, 1, BYTES);
    REQUIRE(pipe(words) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        atexit(say_end);
        take(0); /* it stays */
        memset(p, 2, BYTES / 2);
        REQUIRE(pthread_create(&thread, NULL, last_thread, p) == 0);
        pthread_exit(NULL);
    }
    CHECK(conform_child_ok(pid, "a process without a main thread"));
    CHECK(read(words[0], word, 3) == 3 && strcmp(word, "end") == 0);
}

static sigjmp_buf back;

static void jump_back(int sig)
{
    siglongjmp(back, sig);
}

/* One page of the heap cannot be read, so one page of the view cannot. */
static void unreadable_page_in_a_view(void)
{
    char *p = aligned_alloc(PAGE, BYTES);
    ptrdiff_t distance;
    volatile int killed = 0;

    signal(SIGSEGV, jump_back);
    signal(SIGBUS, jump_back);
    memset(p, 1, BYTES);
    REQUIRE(mprotect(p + 8 * PAGE, PAGE, PROT_NONE) == 0);
    quire_snapshot_t *s = take_protected();
    REQUIRE(quire_snapshot_view(s, &distance) == 0);
    for (volatile size_t i = 0; i < BYTES / PAGE; i++) {
        if (sigsetjmp(back, 1) == 0) {
            CHECK(((volatile char *)p + distance)[i * PAGE] == 1, "page %zu", i);
            continue;
        }
        CHECK(i == 8, "page %zu", i);
        killed++;
    }
    CHECK(killed == 1);
    mprotect(p + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE);
    quire_snapshot_release(s);
}

static void close_all(void)
{
    if (syscall(SYS_close_range, 3, ~0u, 0) != 0)
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
}

/* Our descriptor is closed, and its number used for pipes: nobody reads from those but the program. */
static void descriptors_closed(void)
{
    char *p = malloc(BYTES), c;
    int ends[2];

    memset(p, 1, BYTES);
    quire_snapshot_t *s = take_protected();
    close_all();
    memset(p, 2, BYTES / 2);
    for (int i = 0; i < 16; i++) {
        REQUIRE(pipe(ends) == 0);
        CHECK(write(ends[1], "mine", 4) == 4);
        memset(p + i * BYTES / 16, 3, BYTES / 16);
        usleep(1000);
        char word[5] = "";
        CHECK(read(ends[0], word, 4) == 4 && strcmp(word, "mine") == 0, "pipe %d", i);
    }
    for (int i = 0; i < BYTES; i += PAGE)
        CHECK(quire_snapshot_read(s, p + i, &c, 1) == 1 ? c == 1 : errno == EIO, "page %d",
              i / PAGE);
    quire_snapshot_t *next = take(0);
    memset(p, 4, BYTES);
    CHECK(quire_snapshot_read(next, p + BYTES / 2, &c, 1) == 1 && c == 3);
    CHECK(quire_snapshot_release(s) == 0);
    CHECK(quire_snapshot_release(next) == 0);
    memset(p, 5, BYTES);
    pid_t pid = fork();
    if (pid == 0) { /* which closes nothing that is the program's */
        CHECK(write(ends[1], "mine", 4) == 4);
        memset(p, 6, BYTES);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    free(p);
}

/* All threads become another user, the handlers too; there are no privileges for the next child. */
static void another_user(void)
{
    char *p = malloc(BYTES), c;

    if (getuid() != 0)
        conform_skip("only root can become somebody else");
    memset(p, 1, BYTES);
    quire_snapshot_t *s = take(0);
    memset(p, 2, BYTES / 4);
    REQUIRE(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
    memset(p, 3, BYTES);
    CHECK(quire_snapshot_read(s, p + BYTES / 2, &c, 1) == 1 && c == 1);
    pid_t pid = fork();
    if (pid == 0) {
        /* Having been root it may not be looked into, not even by itself: no holder either. */
        quire_snapshot_t *own = quire_snapshot_take(NULL, 0);
        CHECK(own != NULL ? quire_snapshot_release(own) == 0 : errno == EPERM, "errno %d", errno);
        REQUIRE(prctl(PR_SET_DUMPABLE, 1) == 0);
        own = take(0);
        memset(p, 4, BYTES);
        CHECK(quire_snapshot_read(own, p + BYTES / 2, &c, 1) == 1 && c == 3);
        quire_snapshot_release(own);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "an unprivileged child"));
    quire_snapshot_release(s);
}

static void closed_while_lazy(void)
{
    char **block = many_blocks(), c;

    quire_snapshot_release(take_protected());
    quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
    close_all();
    for (int i = 0; i < MANY_BLOCKS; i++)
        block[i][50000] = 1;
    check_many_blocks(block);
    for (int i = 0; i < MANY_BLOCKS; i++)
        CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 && c == (char)i, "block %d", i);
    CHECK(quire_snapshot_release(s) == 0);
    check_many_blocks(block);
}

static void view_while_lazy(void)
{
    char **block = many_blocks();
    ptrdiff_t distance;
    int bad = 0;

    quire_snapshot_release(take_protected());
    for (int round = 0; round < 10; round++) {
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
        REQUIRE(quire_snapshot_view(s, &distance) == 0, "errno %d", errno);
        for (int i = MANY_BLOCKS - 1; i >= 0; i--) {
            bad += (block[i] + distance)[100] != (char)(i + round);
            block[i][100]++;
            bad += (block[i] + distance)[100] != (char)(i + round);
        }
        CHECK(quire_snapshot_release(s) == 0);
    }
    CHECK(bad == 0, "%d bytes differ", bad);
    check_many_blocks(block);
}

static _Atomic bool stop;
static _Atomic long calls;

/* A window of a few pages that moves through a block, so that calls meet protected pages. */
static char *next_window(char *block, size_t *at)
{
    *at = (*at + PAGE) % (BYTES - 4 * PAGE);
    return block + *at + PAGE - 300;
}

static void *reader(void *arg)
{
    char *block = malloc(BYTES), text[1000];
    int pipes[2], sockets[2], file = (int)(intptr_t)arg;
    size_t at = 0;

    REQUIRE(pipe(pipes) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets) == 0);
    for (int i = 0; !stop; i++, calls++) {
        char *to = next_window(block, &at);
        struct iovec two[2] = {{to, 400}, {to + PAGE, 600}};

        memset(text, i, sizeof(text));
        REQUIRE(write(pipes[1], text, 1000) == 1000);
        CHECK(read(pipes[0], to, 1000) == 1000 && memcmp(to, text, 1000) == 0, "read");
        REQUIRE(send(sockets[0], text, 1000, 0) == 1000);
        to = next_window(block, &at);
        CHECK(recv(sockets[1], to, 1000, 0) == 1000 && memcmp(to, text, 1000) == 0, "recv");
        to = next_window(block, &at);
        CHECK(pread(file, to, 1000, 0) == 1000 && to[0] == 'f' && to[999] == 'f', "pread");
        REQUIRE(write(pipes[1], text, 1000) == 1000);
        two[0].iov_base = next_window(block, &at);
        two[1].iov_base = next_window(block, &at);
        CHECK(readv(pipes[0], two, 2) == 1000 && memcmp(two[1].iov_base, text, 600) == 0, "readv");
        to = next_window(block, &at);
        CHECK(getrandom(to, 1000, 0) == 1000, "getrandom");
    }
    free(block);
    return NULL;
}

static void *leaver(void *arg)
{
    char *p = malloc(30000);

    memset(p, 1, 30000);
    free(p);
    return arg;
}

/* System calls that write to the heap, threads that end, and signals, while snapshots come and go. */
static void call_into_the_heap(unsigned flags)
{
    char path[] = "/tmp/quire-calls-XXXXXX", text[1000];
    int file = mkstemp(path);
    pthread_t readers[3], thread;

    memset(text, 'f', sizeof(text));
    REQUIRE(file >= 0 && unlink(path) == 0 && write(file, text, 1000) == 1000);
    for (int i = 0; i < 3; i++)
        REQUIRE(pthread_create(&readers[i], NULL, reader, (void *)(intptr_t)file) == 0);
    for (int i = 0; i < 300; i++) {
        quire_snapshot_t *s = take(flags);
        REQUIRE(pthread_create(&thread, NULL, leaver, NULL) == 0);
        usleep(500);
        pthread_join(thread, NULL);
        quire_snapshot_release(s);
    }
    stop = true;
    for (int i = 0; i < 3; i++)
        pthread_join(readers[i], NULL);
    CHECK(calls > 0);
}

static void calls_into_the_heap(void)
{
    call_into_the_heap(0);
}

static void calls_lazily(void)
{
    many_blocks();
    call_into_the_heap(QUIRE_SNAPSHOT_LAZY);
}

static const struct conform_case cases[] = {
    {"the main thread ends", main_thread_ends, 60},
    {"an unreadable page in a view", unreadable_page_in_a_view, 60},
    {"descriptors closed", descriptors_closed, 60},
    {"another user", another_user, 60},
    {"descriptors closed, lazily", closed_while_lazy, 120},
    {"a view, lazily", view_while_lazy, 120},
    {"calls into the heap, lazily", calls_lazily, 120},
    {"calls into the heap", calls_into_the_heap, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
