/*
 * refused.c - what the system refuses, and what the program does behind the
 * library's back: the snapshot may fail, clearly; the program goes on.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "filter.h"
#include "steps.h"

/* From now on system call nr fails with EPERM; where arg is not 0, only with that second argument. */
static void refuse(unsigned nr, unsigned arg)
{
    if (!filter_call(nr, arg != 0 ? 2 : 0, arg, SECCOMP_RET_ERRNO | EPERM))
        conform_skip("no seccomp filters here");
}

/* Docker's filter, for one: the same functions, by a holder process. */
static void userfaultfd_refused(void)
{
    struct quire_snapshot_stat st;
    ptrdiff_t distance;

    refuse(SYS_userfaultfd, 0);
    refuse(SYS_ioctl, 0xaa00); /* of /dev/userfaultfd */
    quire_snapshot_t *s = take(0);
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.method == QUIRE_SNAPSHOT_BY_HOLDER);
    CHECK(st.why_not != NULL && strstr(st.why_not, "unprivileged_userfaultfd") != NULL, "%s",
          st.why_not);
    errno = 0;
    CHECK(quire_snapshot_view(s, &distance) == -1 && errno == ENOTSUP);
    quire_snapshot_release(s);
    image_of(0);
    trim_while_held_by(0);
}

static void careful_copies_refused(void)
{
    refuse(SYS_process_vm_readv, 0);
    refuse(SYS_process_vm_writev, 0);
    view_of_a_list(0);
    image_of(0);
}

static void processes_refused(void)
{
    refuse(SYS_clone, 0);
    errno = 0;
    CHECK(quire_snapshot_take(NULL, QUIRE_SNAPSHOT_HOLDER) == NULL && errno == EAGAIN, "errno %d",
          errno);
    free(malloc(100));
}

static void no_descriptors(void)
{
    char c, *p = malloc(100000);

    memset(p, 1, 100000);
    while (dup(0) >= 0)
        ;
    quire_snapshot_t *s = take(0);
    memset(p, 2, 100000);
    CHECK(method(s) == QUIRE_SNAPSHOT_BY_HOLDER);
    CHECK(quire_snapshot_read(s, p + 50000, &c, 1) == 1 && c == 1);
    quire_snapshot_release(s);
}

/* No more address space than there is now and a little: whatever comes, the program goes on. */
static void little_address_space(void)
{
    char c, *p = malloc(8u << 20);
    size_t taken = 0;

    for (size_t room = 0; room < 80u << 20; room += 3u << 20) {
        pid_t pid = fork();
        if (pid == 0) {
            FILE *f = fopen("/proc/self/statm", "r");
            size_t pages = 0;
            if (f == NULL || fscanf(f, "%zu", &pages) != 1)
                _exit(1);
            fclose(f);
            struct rlimit as = {pages * 4096 + room, RLIM_INFINITY};
            setrlimit(RLIMIT_AS, &as);
            memset(p, 1, 8u << 20);
            quire_snapshot_t *s = quire_snapshot_take(NULL, 0);
            CHECK(s != NULL || errno == ENOMEM || errno == EAGAIN, "errno %d", errno);
            memset(p, 2, 8u << 20);
            if (s != NULL)
                CHECK(quire_snapshot_read(s, p + 12345, &c, 1) == 1
                          ? c == 1
                          : errno == ENOBUFS || errno == EIO,
                      "errno %d", errno);
            if (s != NULL)
                CHECK(quire_snapshot_release(s) == 0);
            free(malloc(1000));
            free(p);
            exit(s != NULL ? 2 : 0);
        }
        int status;
        waitpid(pid, &status, 0);
        CHECK(WIFEXITED(status) && (WEXITSTATUS(status) & ~2) == 0, "with %zu bytes: %#x", room,
              (unsigned)status);
        taken += WIFEXITED(status) && WEXITSTATUS(status) == 2;
    }
    CHECK(taken > 0, "never was there enough");
}

static size_t address_space(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    size_t pages = 0;

    REQUIRE(f != NULL && fscanf(f, "%zu", &pages) == 1);
    fclose(f);
    return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* And none from the cut on: the pages cannot be kept, the next snapshot is as ever. */
static void no_address_space_after_the_cut(void)
{
    size_t size = 8u << 20;
    char c, *p = malloc(size);
    struct rlimit before, as;

    memset(p, 1, size);
    quire_snapshot_t *s = take_protected();
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    as = (struct rlimit){address_space(), before.rlim_max};
    REQUIRE(setrlimit(RLIMIT_AS, &as) == 0);
    memset(p, 2, size);
    CHECK(quire_snapshot_read(s, p + 12345, &c, 1) == 1 ? c == 1 : errno == EIO, "errno %d", errno);
    REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
    CHECK(quire_snapshot_release(s) == 0);
    s = take(0);
    memset(p, 3, size);
    CHECK(quire_snapshot_read(s, p + 12345, &c, 1) == 1 && c == 2, "errno %d", errno);
    quire_snapshot_release(s);
    free(p);
}

/* A page of a block is another mapping now, which cannot be opened with its neighbours. */
static void page_mapped_over(void)
{
    char *p = aligned_alloc(4096, 1u << 20), c;

    memset(p, 1, 1u << 20);
    quire_snapshot_t *s = take_protected();
    REQUIRE(mmap(p + 8 * 4096, 4096, PROT_READ | PROT_WRITE,
                 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
    for (int i = 0; i < 64; i++)
        p[i * 4096] = 2;
    for (int i = 0; i < 64; i++)
        if (i != 8 && quire_snapshot_read(s, p + i * 4096, &c, 1) == 1)
            CHECK(c == 1, "page %d", i);
    quire_snapshot_release(s);
    free(p);
}

static char *barrier_block;
static _Atomic bool barrier_stop;

/* As the barriers of some garbage collectors do: the page is opened again by the handler. */
static void open_again(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr & ~(uintptr_t)4095;

    if (at - (uintptr_t)barrier_block >= 64 * 4096)
        _exit(3);
    mprotect((void *)at, 4096, PROT_READ | PROT_WRITE);
}

static void *close_pages(void *unused)
{
    for (unsigned i = 0; !barrier_stop; i++)
        mprotect(barrier_block + i % 64 * 4096, 4096, PROT_NONE);
    return NULL;
}

/* Pages become unreadable between a first write and its copy. */
static void pages_closed_meanwhile(void)
{
    struct sigaction action = {.sa_sigaction = open_again, .sa_flags = SA_SIGINFO};
    pthread_t thread;

    barrier_block = aligned_alloc(4096, 64 * 4096);
    memset(barrier_block, 1, 64 * 4096);
    REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
    REQUIRE(pthread_create(&thread, NULL, close_pages, NULL) == 0);
    for (int round = 0; round < 100; round++) {
        quire_snapshot_t *s = take(0);
        for (int i = 0; i < 64; i++)
            barrier_block[i * 4096] = (char)round;
        quire_snapshot_release(s);
    }
    barrier_stop = true;
    pthread_join(thread, NULL);
    mprotect(barrier_block, 64 * 4096, PROT_READ | PROT_WRITE);
}

static _Atomic bool moves_stop;

static void *move_blocks(void *unused)
{
    char *p = malloc(40u << 20);

    for (size_t i = 0; !moves_stop; i++)
        p = realloc(p, (40 + i % 7 * 30) << 20);
    free(p);
    return NULL;
}

/* Forks that fall into another thread's realloc: the child can take snapshots. */
static void fork_beside_realloc(void)
{
    pthread_t thread;

    free(malloc(1000));
    REQUIRE(pthread_create(&thread, NULL, move_blocks, NULL) == 0);
    for (int i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            conform_alarm(5);
            quire_snapshot_release(take(0));
            conform_end();
        }
        CHECK(conform_child_ok(pid, "child"));
    }
    moves_stop = true;
    pthread_join(thread, NULL);
}

/* A child without fork handlers gives up its parent's snapshot and goes on. */
static void released_in_a_bare_child(void)
{
    char *big = malloc(30u << 20);

    memset(big, 1, 30u << 20);
    quire_snapshot_t *s = take(0);
    pid_t pid = _Fork();
    if (pid == 0) {
        CHECK(quire_snapshot_release(s) == 0);
        free(big);
        free(malloc(5u << 20));
        CHECK(quire_snapshot_budget(1u << 20) == 0, "errno %d", errno);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    quire_snapshot_release(s);
}

static void budgets(void)
{
    char *p = malloc(1u << 20), c;

    memset(p, 1, 1u << 20);
    CHECK(quire_snapshot_budget(SIZE_MAX) == 0);
    quire_snapshot_t *s = take(0);
    memset(p, 2, 1u << 20);
    CHECK(quire_snapshot_read(s, p, &c, 1) == 1 && c == 1, "errno %d", errno);
    quire_snapshot_release(s);
    CHECK(quire_snapshot_budget(4u << 20) == 0);
    quire_snapshot_release(take(0));
    size_t before = address_space();
    for (size_t i = 0; i < 100; i++) {
        CHECK(quire_snapshot_budget((4u << 20) + i * 4096) == 0);
        quire_snapshot_release(take(0));
    }
    CHECK(address_space() < before + (20u << 20), "%zu, then %zu", before, address_space());
}

/* The process becomes another program: who held its memory gives it back (and stays a zombie). */
static void holder_goes_at_exec(void)
{
    struct quire_snapshot_stat st;
    int pipes[2];
    char word[64] = "", *p = malloc(100000);

    memset(p, 1, 100000);
    REQUIRE(pipe(pipes) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_HOLDER);
        REQUIRE(quire_snapshot_stat(s, &st) == 0 && st.method == QUIRE_SNAPSHOT_BY_HOLDER);
        dup2(pipes[1], 1);
        unsetenv("LD_PRELOAD");
        execl("/bin/sh", "sh", "-c",
              "i=0; while [ $i -lt 500 ]; do i=$((i + 1)); read -r held </proc/$$/task/$$/children"
              " || :; for p in $held; do if grep -q quire-holder /proc/$p/comm && grep -q VmRSS"
              " /proc/$p/status; then sleep 0.2; continue 2; fi; done; echo gone; exit; done;"
              " echo there",
              (char *)NULL);
        _exit(1);
    }
    close(pipes[1]);
    REQUIRE(read(pipes[0], word, sizeof(word) - 1) > 0);
    CHECK(strncmp(word, "gone", 4) == 0, "the holder is %s", word);
    CHECK(conform_child_ok(pid, "shell"));
}

static size_t count_descriptors(void)
{
    size_t nr = 0;

    for (int fd = 0; fd < 1024; fd++)
        nr += fcntl(fd, F_GETFD) >= 0;
    return nr;
}

/* A forked child gives up what it inherited, bases first: memory and descriptors, but no other's. */
static void released_in_a_child(void)
{
    enum { MANY = 50 };
    quire_snapshot_t *base[MANY], *more[MANY], *held;
    char path[] = "/tmp/quire-image-XXXXXX", *p = malloc(1u << 20), c;
    int fd = mkstemp(path);

    REQUIRE(fd >= 0 && p != NULL);
    unlink(path);
    memset(p, 1, 1u << 20);
    quire_snapshot_t *s = take(0);
    REQUIRE(quire_snapshot_save(s, fd, NULL, NULL) == 0);
    p[5000] = 2;
    quire_snapshot_t *newer = take(0);
    off_t end = lseek(fd, 0, SEEK_END);
    REQUIRE(quire_snapshot_save_since(newer, s, fd, NULL, NULL) == 0);
    quire_snapshot_release(s);
    quire_snapshot_release(newer);
    size_t space = address_space(), descriptors = count_descriptors();
    for (int i = 0; i < MANY; i++) {
        lseek(fd, 0, SEEK_SET);
        REQUIRE((base[i] = quire_snapshot_load(fd)) != NULL, "errno %d", errno);
        lseek(fd, end, SEEK_SET);
        REQUIRE((more[i] = quire_snapshot_load_onto(base[i], fd)) != NULL, "errno %d", errno);
    }
    held = take(QUIRE_SNAPSHOT_HOLDER);
    pid_t pid = fork();
    if (pid == 0) {
        size_t had = count_descriptors();
        for (int i = 0; i < MANY; i++) {
            CHECK(quire_snapshot_release(base[i]) == 0);
            CHECK(quire_snapshot_release(more[i]) == 0);
        }
        CHECK(quire_snapshot_release(held) == 0);
        CHECK(count_descriptors() == had - 2 * MANY - 3, "%zu, then %zu", had, count_descriptors());
        CHECK(address_space() < space + (200u << 10), "%zu, then %zu", space, address_space());
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    CHECK(quire_snapshot_read(more[7], p + 5000, &c, 1) == 1 && c == 2);
    CHECK(quire_snapshot_read(held, p + 5000, &c, 1) == 1 && c == 2);
    CHECK(quire_snapshot_release(held) == 0);
    for (int i = 0; i < MANY; i++)
        CHECK(quire_snapshot_release(more[i]) == 0 && quire_snapshot_release(base[i]) == 0);
    CHECK(count_descriptors() == descriptors);
}

/* What the program has under a number that was ours is the program's. */
static void numbers_used_anew(void)
{
    char path[] = "/tmp/quire-image-XXXXXX";
    int fd = mkstemp(path), null = open("/dev/null", O_RDWR);

    REQUIRE(fd >= 0 && null >= 0);
    unlink(path);
    quire_snapshot_t *s = take(0);
    REQUIRE(quire_snapshot_save(s, fd, NULL, NULL) == 0 && lseek(fd, 0, SEEK_SET) == 0);
    quire_snapshot_release(s);
    quire_snapshot_t *image = quire_snapshot_load(fd), *held = take(QUIRE_SNAPSHOT_HOLDER);
    REQUIRE(image != NULL);
    for (int i = 3; i < 200; i++)
        if (i != null)
            dup2(null, i);
    CHECK(quire_snapshot_release(image) == 0);
    CHECK(quire_snapshot_release(held) == 0);
    for (int i = 3; i < 200; i++)
        CHECK(fcntl(i, F_GETFD) >= 0, "%d was closed", i);
}

/* A child of this number; -1 where that cannot be asked for. */
static pid_t fork_as(pid_t number, int signal)
{
    struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
            set_tid_size, cgroup;
    } args = {.exit_signal = (uint64_t)signal, .set_tid = (uintptr_t)&number, .set_tid_size = 1};

    return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

/* The holder was killed, and waited for, and another process has its number now. */
static void holder_gone_by(int signal)
{
    char text[64] = "", *p = malloc(100000), c;
    int status;

    memset(p, 1, 100000);
    quire_snapshot_t *s = take(QUIRE_SNAPSHOT_HOLDER);
    FILE *f = fopen("/proc/thread-self/children", "r");
    if (f == NULL || fgets(text, sizeof(text), f) == NULL)
        conform_skip("no list of children");
    fclose(f);
    pid_t holder = atoi(text);
    REQUIRE(holder > 0 && kill(holder, SIGKILL) == 0);
    REQUIRE(waitpid(-1, &status, __WALL) == holder);
    errno = 0;
    CHECK(quire_snapshot_read(s, p, &c, 1) == -1 && errno == EIO, "errno %d", errno);
    pid_t stranger = fork_as(holder, signal);
    if (stranger == 0) {
        usleep(100000);
        _exit(7);
    }
    if (stranger < 0)
        conform_skip("a number cannot be asked for: %s", strerror(errno));
    CHECK(stranger == holder);
    CHECK(quire_snapshot_release(s) == 0);
    CHECK(waitpid(stranger, &status, __WALL) == stranger, "errno %d", errno);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x", (unsigned)status);
}

static void holder_gone(void)
{
    holder_gone_by(SIGCHLD);
}

static void holder_gone_alike(void)
{
    holder_gone_by(0);
}

static const struct conform_case cases[] = {
    {"no descriptors left", no_descriptors, 30},
    {"little address space", little_address_space, 60},
    {"no address space after the cut", no_address_space_after_the_cut, 30},
    {"userfaultfd refused", userfaultfd_refused, 30},
    {"process_vm_readv refused", careful_copies_refused, 30},
    {"processes refused", processes_refused, 30},
    {"a page is mapped over", page_mapped_over, 30},
    {"pages closed meanwhile", pages_closed_meanwhile, 60},
    {"fork beside realloc", fork_beside_realloc, 120},
    {"released in a child of _Fork", released_in_a_bare_child, 30},
    {"budgets", budgets, 60},
    {"a holder goes at exec", holder_goes_at_exec, 30},
    {"released in a forked child", released_in_a_child, 30},
    {"numbers used anew", numbers_used_anew, 30},
    {"a holder's number is a child's", holder_gone, 30},
    {"a holder's number is that of one alike", holder_gone_alike, 30},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
