/* life.c - one function at a time: what it gives, and how it fails. */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

static quire_snapshot_t *take(unsigned flags)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, flags);

    REQUIRE(s != NULL, "errno %d", errno);
    return s;
}

static int method(const quire_snapshot_t *s)
{
    struct quire_snapshot_stat st;

    REQUIRE(quire_snapshot_stat(s, &st) == 0);
    return st.method;
}

/* Take one by protection, or skip the case. */
static quire_snapshot_t *take_protected(void)
{
    quire_snapshot_t *s = take(0);

    if (method(s) != QUIRE_SNAPSHOT_BY_PROTECTION)
        conform_skip("no write protection here");
    return s;
}

static void wrong_arguments(void)
{
    struct quire_snapshot_range r;
    char x;

    errno = 0;
    CHECK(quire_snapshot_take(&x, 0) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_snapshot_take(NULL, 0x80) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_snapshot_release(NULL) == -1 && errno == EINVAL);
    quire_snapshot_t *s = take(0);
    errno = 0;
    CHECK(quire_snapshot_read(s, &x, &x, 1) == -1 && errno == EFAULT, "the stack is not in it");
    errno = 0;
    CHECK(quire_snapshot_range(s, 1u << 30, &r) == -1 && errno == ENOENT);
    errno = 0;
    CHECK(quire_snapshot_ptr(s, &x) == NULL && errno != 0);
    CHECK(quire_snapshot_verify(s) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(quire_snapshot_release(s) == 0 && errno == 0);
}

static void ranges(void)
{
    struct quire_snapshot_range r;
    struct quire_snapshot_stat st;
    char *small = malloc(40), *run = malloc(100000), *large = malloc(30u << 20), *last = NULL;
    size_t found = 0, sum = 0;

    quire_snapshot_t *s = take(0);
    for (size_t i = 0; quire_snapshot_range(s, i, &r) == 0; i++) {
        char *start = r.start;

        CHECK(start >= last && r.size > 0 && r.size % 4096 == 0);
        last = start + r.size;
        sum += r.size;
        found += small >= start && small < last;
        found += run >= start && run < last;
        found += large >= start && large + (30u << 20) <= last;
    }
    CHECK(found == 3);
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.bytes == sum && st.error == 0);
    /* A read beyond the end of a stretch is short. */
    CHECK(quire_snapshot_read(s, last - 10, run, 100000) == 10);
    quire_snapshot_release(s);
    free(large);
}

static void free_is_left_out(void)
{
    struct quire_snapshot_stat full, empty;
    char *p[200];

    for (int i = 0; i < 200; i++)
        p[i] = malloc(1u << 20);
    quire_snapshot_t *s = take(0);
    quire_snapshot_stat(s, &full);
    quire_snapshot_release(s);
    for (int i = 0; i < 200; i++)
        free(p[i]);
    s = take(0);
    quire_snapshot_stat(s, &empty);
    quire_snapshot_release(s);
    CHECK(full.bytes > 200u << 20 && empty.bytes < 20u << 20, "%lu, then %lu",
          (unsigned long)full.bytes, (unsigned long)empty.bytes);
}

static void trim_while_held_by(unsigned flags)
{
    size_t size = 64u << 20;
    char *big = malloc(size), *small[64], *copy = malloc(size);

    conform_fill(big, size, 1);
    for (int i = 0; i < 64; i++) {
        small[i] = malloc(1u << 20);
        conform_fill(small[i], 1u << 20, 100 + (unsigned)i);
    }
    quire_snapshot_t *s = take(flags);
    size_t before = conform_resident();
    free(big);
    for (int i = 0; i < 64; i++)
        free(small[i]);
    quire_trim(0);
    CHECK(quire_snapshot_read(s, big, copy, size) == (ssize_t)size);
    CHECK(conform_intact(copy, size, 1), "a freed mapping");
    for (int i = 0; i < 64; i++) {
        CHECK(quire_snapshot_read(s, small[i], copy, 1u << 20) == 1 << 20);
        CHECK(conform_intact(copy, 1u << 20, 100 + (unsigned)i), "a freed run");
    }
    quire_snapshot_release(s);
    quire_trim(0);
    CHECK(conform_resident() + (100u << 20) < before + size, "memory did not go back: %zu, now %zu",
          before, conform_resident());
}

static void trim_while_held(void)
{
    trim_while_held_by(0);
}

static void budget(void)
{
    struct quire_snapshot_stat st;
    size_t size = 32u << 20;
    char *p = malloc(size), c;

    memset(p, 1, size);
    CHECK(quire_snapshot_budget(4u << 20) == 0);
    quire_snapshot_t *s = take_protected();
    CHECK(quire_snapshot_budget(1) == -1 && errno == EBUSY);
    memset(p, 2, 1u << 20); /* fits */
    CHECK(quire_snapshot_read(s, p, &c, 1) == 1 && c == 1);
    memset(p, 3, size); /* does not; but the program goes on */
    CHECK(p[size - 1] == 3);
    errno = 0;
    CHECK(quire_snapshot_read(s, p, &c, 1) == -1 && errno == ENOBUFS);
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.error == ENOBUFS);
    quire_snapshot_t *second = take(0); /* others come and go */
    memset(p, 4, 1u << 20);
    CHECK(quire_snapshot_read(second, p, &c, 1) == 1 && c == 3);
    quire_snapshot_release(s);
    CHECK(quire_snapshot_read(second, p + 1, &c, 1) == 1 && c == 3);
    quire_snapshot_release(second);
    CHECK(quire_snapshot_budget(0) == 0);
    s = take(0);
    memset(p, 5, size);
    CHECK(quire_snapshot_read(s, p + 5, &c, 1) == 1);
    quire_snapshot_release(s);
}

static void view(void)
{
    ptrdiff_t distance;
    size_t size = 5u << 20;
    char **list = NULL, *large = malloc(size);

    conform_fill(large, size, 9);
    for (int i = 0; i < 10000; i++) { /* a list through the heap */
        char **node = malloc(24 + (size_t)i % 100);
        node[0] = (char *)list;
        node[1] = (char *)(intptr_t)i;
        list = node;
    }
    quire_snapshot_t *s = take_protected();
    for (char **n = list; n != NULL; n = (char **)n[0])
        n[1] = NULL;
    memset(large, 0, size);
    CHECK(quire_snapshot_view(s, &distance) == 0, "errno %d", errno);
    int want = 9999, bad = 0;
    for (char *const *n = (char *const *)list; n != NULL; n = (char *const *)n[0]) {
        n = quire_snapshot_ptr(s, n);
        bad += n == NULL || (intptr_t)n[1] != want--;
    }
    CHECK(bad == 0 && want == -1, "%d nodes differ", bad);
    CHECK(conform_intact(large + distance, size, 9));
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(quire_snapshot_view(s, &distance) == -1 && errno == ESTALE);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    quire_snapshot_release(s);
}

static void child_of_fork(void)
{
    char *p = malloc(100000), c;

    memset(p, 1, 100000);
    quire_snapshot_t *s = take(0);
    memset(p, 2, 50000);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(quire_snapshot_read(s, p, &c, 1) == -1 && errno == ESTALE);
        memset(p, 3, 100000);
        free(malloc(5u << 20));
        CHECK(quire_snapshot_release(s) == 0);
        quire_snapshot_t *own = take(0);
        memset(p, 4, 100000);
        CHECK(quire_snapshot_read(own, p + 70000, &c, 1) == 1 && c == 3);
        CHECK(quire_snapshot_release(own) == 0);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    memset(p, 5, 100000);
    CHECK(quire_snapshot_read(s, p + 70000, &c, 1) == 1 && c == 1);
    quire_snapshot_release(s);
}

/* A child that runs no fork handlers. */
static void child_of_bare_fork(void)
{
    char *p = malloc(100000), c;

    memset(p, 1, 100000);
    quire_snapshot_t *s = take(0);
    pid_t pid = _Fork();
    if (pid == 0) {
        CHECK(quire_snapshot_read(s, p, &c, 1) == -1 && errno == ESTALE);
        quire_snapshot_t *own = take(0);
        memset(p, 4, 100000);
        CHECK(quire_snapshot_read(own, p + 70000, &c, 1) == 1 && c == 1);
        CHECK(quire_snapshot_release(own) == 0);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    memset(p, 5, 100000);
    CHECK(quire_snapshot_read(s, p + 70000, &c, 1) == 1 && c == 1);
    quire_snapshot_release(s);
}

static void *take_on_heap_stack(void *arg)
{
    char *p = arg, c;
    volatile char here[5000];

    memset((char *)here, 7, sizeof(here));
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);
    if (s == NULL)
        return NULL;
    memset((char *)here, 8, sizeof(here));
    *p = 2;
    bool ok = quire_snapshot_read(s, p, &c, 1) == 1 && c == 1;
    ok &= quire_snapshot_read(s, (char *)here + 100, &c, 1) == 1 && c == 7;
    quire_snapshot_release(s);
    return ok ? p : NULL;
}

static void stack_in_the_heap(void)
{
    size_t size = 256u << 10;
    char *stack = aligned_alloc(4096, size), *p = malloc(10);
    pthread_attr_t attr;
    pthread_t t;
    void *ret;

    *p = 1;
    pthread_attr_init(&attr);
    REQUIRE(pthread_attr_setstack(&attr, stack, size) == 0);
    REQUIRE(pthread_create(&t, &attr, take_on_heap_stack, p) == 0);
    pthread_join(t, &ret);
    CHECK(ret == p);
}

static void unreadable_memory(void)
{
    size_t size = 64 * 4096;
    char *p = aligned_alloc(4096, size), c;

    memset(p, 1, size);
    REQUIRE(mprotect(p + 8 * 4096, 4096, PROT_NONE) == 0);
    quire_snapshot_t *s = take(0);
    for (int i = 0; i < 8; i++)
        p[i * 4096] = 2; /* one after the other, so that neighbours are saved along */
    for (int i = 9; i < 64; i++)
        p[i * 4096] = 2;
    CHECK(quire_snapshot_read(s, p + 9 * 4096, &c, 1) == 1 && c == 1);
    if (method(s) == QUIRE_SNAPSHOT_BY_PROTECTION)
        CHECK(quire_snapshot_read(s, p + 8 * 4096, &c, 1) == -1 && errno == EFAULT);
    mprotect(p + 8 * 4096, 4096, PROT_READ | PROT_WRITE);
    quire_snapshot_release(s);
}

/*
 * Two snapshots, of which the newer lacks part of a stretch of the older: serving a first write
 * there must not open what lies beside it and is protected for the newer.
 */
static void neighbours_in_another_snapshot(void)
{
    enum { BYTES = 512 << 10, TRIES = 64 };
    char *run[TRIES], *a = NULL, *b = NULL, c;

    for (int i = 0; i < TRIES; i++) {
        run[i] = malloc(BYTES);
        memset(run[i], 1, BYTES);
        if (i > 0 && a == NULL && run[i] == run[i - 1] + BYTES &&
            (uintptr_t)run[i - 1] >> 21 == ((uintptr_t)run[i] + BYTES - 1) >> 21) {
            a = run[i - 1];
            b = run[i];
        }
    }
    if (a == NULL)
        conform_skip("no two runs side by side");
    quire_snapshot_t *older = take_protected();
    *(volatile char *)b = 2; /* saved for the older, and nothing beside it */
    free(a);
    quire_snapshot_t *newer = take(0);
    for (size_t i = 0; i < BYTES; i += 4096) /* as whoever is given it next would, page after page */
        ((volatile char *)a)[i] = 9;
    memset(b, 3, BYTES);
    size_t bad = 0;
    for (size_t i = 0; i < BYTES; i += 4096) {
        bad += quire_snapshot_read(older, b + i, &c, 1) != 1 || c != 1;
        bad += quire_snapshot_read(newer, b + i, &c, 1) != 1 || c != (i == 0 ? 2 : 1);
        bad += quire_snapshot_read(older, a + i, &c, 1) != 1 || c != 1;
    }
    CHECK(bad == 0, "%zu pages differ", bad);
    quire_snapshot_release(older);
    CHECK(quire_snapshot_read(newer, b, &c, 1) == 1 && c == 2);
    quire_snapshot_release(newer);
}

static _Atomic bool stop_moving;

static void *mover(void *arg)
{
    char *p = malloc(40u << 20);

    for (size_t i = 0; !stop_moving; i++) {
        size_t size = (40u + i % 7 * 3) << 20;
        char *now = realloc(p, size);
        if (now == NULL)
            break;
        p = now;
        p[size - 1] = 1;
    }
    free(p);
    return arg;
}

/* A block that realloc is moving is in every snapshot, at its old place or its new one. */
static void block_on_the_move(void)
{
    struct quire_snapshot_stat st;
    size_t missed = 0;
    pthread_t t;

    free(malloc(40u << 20));
    pthread_create(&t, NULL, mover, NULL);
    usleep(50000);
    for (int i = 0; i < 400; i++) {
        quire_snapshot_t *s = take(0);
        quire_snapshot_stat(s, &st);
        missed += st.bytes < 40u << 20;
        quire_snapshot_release(s);
    }
    stop_moving = true;
    pthread_join(t, NULL);
    CHECK(missed == 0, "%zu times it was in neither place", missed);
}

static volatile char *volatile storm_at;

static void storm(int sig)
{
    (void)sig;
    for (int i = 0; i < 10; i++)
        storm_at[i * 4096]++;
}

static void signals(void)
{
    struct sigaction sa = {.sa_handler = storm};
    pthread_t self = pthread_self();
    char *p = calloc(300, 4096), c;

    (void)self;
    storm_at = p;
    sigaction(SIGALRM, &sa, NULL);
    ualarm(500, 500);
    for (int i = 0; i < 300; i++) {
        quire_snapshot_t *s = take(0);
        p[200 * 4096] = (char)i;
        CHECK(quire_snapshot_read(s, p + 200 * 4096, &c, 1) == 1 && c == (char)(i == 0 ? 0 : i - 1));
        quire_snapshot_release(s);
    }
    ualarm(0, 0);
}

static int count_calls(void *arg, size_t done, size_t total)
{
    CHECK(done <= total);
    ++*(int *)arg;
    return 0;
}

static int stop_at_once(void *arg, size_t done, size_t total)
{
    return 1;
}

static void image_of(unsigned flags)
{
    char path[] = "/tmp/quire-image-XXXXXX", c;
    size_t size = 9u << 20;
    char *p = malloc(size), *copy = malloc(size), *empty = calloc(1, size);
    int fd = mkstemp(path), calls = 0;
    ptrdiff_t distance;

    REQUIRE(fd >= 0);
    unlink(path);
    CHECK(write(fd, "before", 6) == 6);
    conform_fill(p, size, 5);
    quire_snapshot_t *s = take(flags);
    memset(p, 1, size);
    CHECK(quire_snapshot_save(s, fd, stop_at_once, NULL) == -1 && errno == ECANCELED);
    CHECK(lseek(fd, 6, SEEK_SET) == 6 && ftruncate(fd, 6) == 0);
    CHECK(quire_snapshot_save(s, fd, count_calls, &calls) == 0, "errno %d", errno);
    CHECK(calls > 0);
    quire_snapshot_release(s);
    memset(p, 2, size);
    lseek(fd, 6, SEEK_SET);
    s = quire_snapshot_load(fd);
    REQUIRE(s != NULL, "errno %d", errno);
    CHECK(quire_snapshot_verify(s) == 0);
    CHECK(method(s) == QUIRE_SNAPSHOT_BY_IMAGE);
    CHECK(quire_snapshot_read(s, p, copy, size) == (ssize_t)size && conform_intact(copy, size, 5));
    CHECK(quire_snapshot_read(s, empty + 4000, copy, size - 4000) == (ssize_t)size - 4000 &&
          copy[0] == 0 && copy[size / 2] == 0);
    if (quire_snapshot_view(s, &distance) == 0) {
        CHECK(conform_intact(p + distance, size, 5), "by a view");
        CHECK(empty[distance + 12345] == 0);
    }
    CHECK(quire_snapshot_read(s, &c, &c, 1) == -1 && errno == EFAULT);
    quire_snapshot_release(s);
    close(fd);
}

static void image(void)
{
    image_of(0);
}

static void image_by_holder(void)
{
    image_of(QUIRE_SNAPSHOT_HOLDER);
}

static void loads_not(int fd, const char *what, size_t at)
{
    lseek(fd, 0, SEEK_SET);
    errno = 0;
    quire_snapshot_t *s = quire_snapshot_load(fd);
    if (s != NULL && quire_snapshot_verify(s) == 0)
        CHECK(false, "%s at %zu was not noticed", what, at);
    else
        CHECK(errno == EBADMSG || errno == ENOTSUP, "%s at %zu: errno %d", what, at, errno);
    if (s != NULL)
        quire_snapshot_release(s);
}

static void damaged_images(void)
{
    int fd = memfd_create("image", 0), bad = memfd_create("bad", 0);
    char *p = malloc(300000);
    uint64_t rng = 11;

    conform_fill(p, 300000, 3);
    quire_snapshot_t *s = take(0);
    REQUIRE(quire_snapshot_save(s, fd, NULL, NULL) == 0);
    quire_snapshot_release(s);
    size_t size = (size_t)lseek(fd, 0, SEEK_END);
    char *image = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    REQUIRE(image != MAP_FAILED);
    for (int i = 0; i < 300; i++) {
        size_t at = i < 100 ? (size_t)i * size / 100 : conform_random(&rng) % size;
        char c = (char)(image[at] ^ (1 << conform_random(&rng) % 8));

        if (i >= 200)
            at = conform_random(&rng) % 400, c = (char)~image[at];
        CHECK(ftruncate(bad, 0) == 0 && pwrite(bad, image, at, 0) == (ssize_t)at);
        loads_not(bad, "the end", at);
        CHECK(pwrite(bad, image, size, 0) == (ssize_t)size && pwrite(bad, &c, 1, (off_t)at) == 1);
        loads_not(bad, "another byte", at);
    }
    CHECK(ftruncate(bad, 0) == 0);
    loads_not(bad, "nothing", 0);
    int zero = open("/dev/zero", O_RDONLY);
    errno = 0;
    CHECK(quire_snapshot_load(zero) == NULL && errno != 0);
    int pipes[2];
    REQUIRE(pipe(pipes) == 0);
    errno = 0;
    CHECK(quire_snapshot_load(pipes[0]) == NULL && errno == ESPIPE);
    CHECK(quire_snapshot_load(-1) == NULL && errno == EBADF);
}

static void save_fails(void)
{
    quire_snapshot_t *s = take(0);
    int full = open("/dev/full", O_WRONLY);

    errno = 0;
    CHECK(quire_snapshot_save(s, full, NULL, NULL) == -1 && errno == ENOSPC, "errno %d", errno);
    errno = 0;
    CHECK(quire_snapshot_save(s, -1, NULL, NULL) == -1 && errno == EBADF);
    quire_snapshot_release(s);
}

static void holder_goes_with_us(void)
{
    char c, *p = malloc(10);

    *p = 1;
    quire_snapshot_t *s = take(QUIRE_SNAPSHOT_HOLDER);
    *p = 2;
    CHECK(method(s) == QUIRE_SNAPSHOT_BY_HOLDER);
    CHECK(quire_snapshot_read(s, p, &c, 1) == 1 && c == 1);
    errno = 0;
    CHECK(waitpid(-1, NULL, 0) == -1 && errno == ECHILD, "the program sees no child");
    quire_snapshot_release(s);
}

/* From now on system call nr fails with EPERM; where arg is not 0, only with that second argument. */
static void refuse(unsigned nr, unsigned arg)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* the number */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 24), /* low half of the second argument */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arg, 0, arg != 0 ? 1 : 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {COUNT_OF(code), code};

    REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
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
    view();
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
                CHECK(quire_snapshot_read(s, p + 12345, &c, 1) == 1 ? c == 1 : errno == ENOBUFS);
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

static const struct conform_case cases[] = {
    {"wrong arguments", wrong_arguments, 20},
    {"ranges", ranges, 20},
    {"free memory is left out", free_is_left_out, 20},
    {"free and trim while it lives", trim_while_held, 30},
    {"budget", budget, 30},
    {"view", view, 30},
    {"child of fork", child_of_fork, 30},
    {"child of _Fork", child_of_bare_fork, 30},
    {"stack in the heap", stack_in_the_heap, 30},
    {"unreadable memory", unreadable_memory, 30},
    {"neighbours in another snapshot", neighbours_in_another_snapshot, 30},
    {"a block on the move", block_on_the_move, 60},
    {"signals that write", signals, 60},
    {"image", image, 30},
    {"image, by a holder process", image_by_holder, 30},
    {"damaged images", damaged_images, 60},
    {"save fails", save_fails, 30},
    {"a holder process is not seen", holder_goes_with_us, 30},
    {"no descriptors left", no_descriptors, 30},
    {"little address space", little_address_space, 60},
    {"userfaultfd refused", userfaultfd_refused, 30},
    {"process_vm_readv refused", careful_copies_refused, 30},
    {"processes refused", processes_refused, 30},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
