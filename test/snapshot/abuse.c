/*
 * abuse.c - programs that end, close, kill and forbid what snapshots need: a
 * clear error at worst, never a wrong byte, a thread that waits for ever, or a
 * process that does not end.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
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

/* Every thread that makes this system call is killed by it, alone. */
static void kill_at(unsigned nr)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_THREAD),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {COUNT_OF(code), code};

    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) != 0)
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

enum { MANY_BLOCKS = 600, BLOCK = 100000 };

static char **many_blocks(void)
{
    char **block = outside(MANY_BLOCKS * sizeof(*block));

    for (int i = 0; i < MANY_BLOCKS; i++) {
        block[i] = malloc(BLOCK);
        memset(block[i], i, BLOCK);
    }
    return block;
}

/* One page in two of a large mapping is made read-only, until the kernel has no room for another. */
static size_t use_up_mappings(char *map, size_t pages)
{
    size_t at = 0;

    while (at < pages && mprotect(map + at * PAGE, PAGE, PROT_READ) == 0)
        at += 2;
    return at;
}

static void use_mappings_up(unsigned flags)
{
    enum { MANY = 1 << 18 };
    char *map = outside((size_t)MANY * PAGE), *p = malloc(BYTES), c;
    size_t end = use_up_mappings(map, MANY), taken = 0;

    if (end >= MANY)
        conform_skip("vm.max_map_count is above %d", MANY / 2);
    memset(p, 1, BYTES);
    for (size_t spare = 0; spare < 24; spare++) {
        errno = 0;
        quire_snapshot_t *s = quire_snapshot_take(NULL, flags);
        CHECK(s != NULL || errno == ENOMEM || errno == EAGAIN, "%zu spare: errno %d", spare, errno);
        memset(p, (int)spare + 2, BYTES);
        if (s != NULL) {
            ptrdiff_t distance;
            bool ok = quire_snapshot_read(s, p + 7 * PAGE, &c, 1) == 1;
            CHECK(ok ? c == (char)(spare + 1) : errno == EIO, "%d, errno %d", c, errno);
            if (ok && quire_snapshot_view(s, &distance) == 0)
                CHECK(p[distance + 9 * PAGE] == (char)(spare + 1));
            CHECK(quire_snapshot_release(s) == 0);
            taken++;
        }
        free(malloc(100));
        char *large = malloc(9u << 20);
        if (large != NULL)
            memset(large, 1, 9u << 20);
        free(large);
        end -= 2; /* room for one or two more */
        mprotect(map + end * PAGE, PAGE, PROT_READ | PROT_WRITE);
    }
    CHECK(taken > 0, "never was there enough");
}

static void mappings_used_up(void)
{
    use_mappings_up(0);
}

static void mappings_used_up_lazily(void)
{
    many_blocks();
    use_mappings_up(QUIRE_SNAPSHOT_LAZY);
}

/* What was moved aside comes back, whoever is killed, whatever is closed. */
static void check_blocks(char **block)
{
    for (int i = 0; i < MANY_BLOCKS; i++)
        CHECK(block[i][0] == (char)i && block[i][BLOCK - 1] == (char)i, "block %d", i);
}

/* What is left of the process's mappings is used up while the sweep is under way, and stays so. */
static char *hungry_map;
static _Atomic size_t hungry_at;
static _Atomic bool fed;

/*
 * Not as fast as it can: between its looks at the number of mappings mremap() would wait for this
 * thread, and leave a hole where the heap was (doc/cow.md).
 */
static void *hungry(void *arg)
{
    while (!fed) {
        if (mprotect(hungry_map + hungry_at * PAGE, PAGE, PROT_READ) == 0)
            hungry_at += 2;
        usleep(20);
    }
    return arg;
}

static void mappings_used_up_meanwhile(void)
{
    enum { MANY = 1 << 18, ROOM = 60 };
    char **block = many_blocks(), c;
    pthread_t thread;

    hungry_map = outside((size_t)MANY * PAGE);
    quire_snapshot_release(take_protected());
    hungry_at = use_up_mappings(hungry_map, MANY);
    if (hungry_at >= MANY)
        conform_skip("vm.max_map_count is above %d", MANY / 2);
    size_t end = hungry_at;
    for (int round = 0; round < 6; round++) {
        for (; hungry_at > end - 2 * ROOM; hungry_at -= 2)
            mprotect(hungry_map + (hungry_at - 2) * PAGE, PAGE, PROT_READ | PROT_WRITE);
        fed = false;
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
        REQUIRE(pthread_create(&thread, NULL, hungry, NULL) == 0);
        for (int i = 0; i < MANY_BLOCKS; i++) {
            block[i][50000] = (char)(i + 1);
            CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 ? c == (char)i
                                                                       : errno == EIO);
        }
        CHECK(quire_snapshot_release(s) == 0);
        check_blocks(block);
        fed = true;
        pthread_join(thread, NULL);
        for (; hungry_at > end / 2; hungry_at -= 2)
            mprotect(hungry_map + (hungry_at - 2) * PAGE, PAGE, PROT_READ | PROT_WRITE);
        /* And with room again all is as ever. */
        s = take_protected();
        for (int i = 0; i < MANY_BLOCKS; i++) {
            block[i][50000] = (char)i;
            CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 && c == (char)(i + 1));
        }
        CHECK(quire_snapshot_release(s) == 0);
        hungry_at += use_up_mappings(hungry_map + hungry_at * PAGE, MANY - hungry_at);
    }
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
        check_blocks(block);
        CHECK(quire_snapshot_read(s, block[9], &c, 1) == 1 ? c == 9 : errno == EIO);
        CHECK(quire_snapshot_release(s) == 0);
    }
    check_blocks(block);
}

/* Whether the process has a thread of this name. */
static bool has_thread(const char *name)
{
    char path[64], comm[32] = "";
    bool found = false;
    DIR *d = opendir("/proc/self/task");

    REQUIRE(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", e->d_name);
        FILE *f = fopen(path, "r");
        if (f != NULL && fgets(comm, sizeof(comm), f) != NULL)
            found |= strncmp(comm, name, strlen(name)) == 0;
        if (f != NULL)
            fclose(f);
    }
    closedir(d);
    return found;
}

static void *write_until_told(void *arg)
{
    char **block = arg;

    for (unsigned i = 0; !fed; i++)
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
    check_blocks(block);
    for (int i = 0; i < MANY_BLOCKS; i += 50)
        CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 ? c == (char)i : errno == EIO);
    CHECK(quire_snapshot_release(s) == 0);
    if (has_thread("quire-sweeper"))
        conform_skip("the sweeper was quicker");
    /* And without one: nothing is moved, and nobody waits for ever. */
    fed = false;
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
        check_blocks(block);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    fed = true;
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    check_blocks(block);
}

static void closed_while_lazy(void)
{
    char **block = many_blocks(), c;

    quire_snapshot_release(take_protected());
    quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
    close_all();
    for (int i = 0; i < MANY_BLOCKS; i++)
        block[i][50000] = 1;
    check_blocks(block);
    for (int i = 0; i < MANY_BLOCKS; i++)
        CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 && c == (char)i, "block %d", i);
    CHECK(quire_snapshot_release(s) == 0);
    check_blocks(block);
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
    check_blocks(block);
}

/*
 * The program splits the heap's mapping: the part before a read-only one is not moved aside, as it
 * does not end where a piece does, and is protected all the same.
 */
static void split_mapping_lazily(void)
{
    enum { SPLIT_BYTES = 4 << 20, READ_ONLY = 512 << 10 };
    char *block[12], c;
    int bad = 0;

    for (size_t i = 0; i < COUNT_OF(block); i++) {
        block[i] = malloc(SPLIT_BYTES - 4096);
        REQUIRE(block[i] != NULL);
        memset(block[i], 1, SPLIT_BYTES - 4096);
    }
    quire_snapshot_release(take_protected());
    for (size_t i = 0; i < COUNT_OF(block); i++) {
        /* A border of pieces, with 2 MiB of the block before it. */
        char *border =
            (char *)(((uintptr_t)block[i] + SPLIT_BYTES - 4096) & ~(((uintptr_t)2 << 20) - 1));
        char *from = border - ((size_t)2 << 20);
        if (from < block[i])
            from = block[i];
        REQUIRE(mprotect(border - READ_ONLY, READ_ONLY, PROT_READ) == 0);
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
        REQUIRE(mprotect(border - READ_ONLY, READ_ONLY, PROT_READ | PROT_WRITE) == 0);
        for (char *p = from; p < border; p += 4096) {
            p[100] = 2;
            bad += quire_snapshot_read(s, p + 100, &c, 1) != 1 || c != 1;
        }
        CHECK(quire_snapshot_release(s) == 0);
    }
    CHECK(bad == 0, "%d pages differ", bad);
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
    {"handlers killed", handlers_killed, 120},
    {"another user", another_user, 60},
    {"mappings used up", mappings_used_up, 120},
    {"mappings used up, lazily", mappings_used_up_lazily, 120},
    {"mappings used up meanwhile", mappings_used_up_meanwhile, 120},
    {"handlers killed, lazily", killed_while_lazy, 120},
    {"the sweeper killed", sweeper_killed, 120},
    {"descriptors closed, lazily", closed_while_lazy, 120},
    {"a view, lazily", view_while_lazy, 120},
    {"a split mapping, lazily", split_mapping_lazily, 120},
    {"calls into the heap, lazily", calls_lazily, 120},
    {"calls into the heap", calls_into_the_heap, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
