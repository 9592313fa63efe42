/* life.c - one function at a time: what it gives, and how it fails. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "steps.h"

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
    view_of_a_list(0);
}

static void view_by_holder(void)
{
    view_of_a_list(QUIRE_SNAPSHOT_HOLDER);
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
        quire_snapshot_touch(p, 100000);
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

/* Made while memory is moved aside, which it lacks then, and which is its parent's affair. */
static void child_during_the_sweep(void)
{
    char **block = many_blocks(), c;

    quire_snapshot_release(take(0));
    for (int round = 0; round < 20; round++) {
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
        pid_t pid = _Fork();
        if (pid == 0) {
            pid_t child = fork();
            if (child == 0)
                _exit(0);
            _exit(child < 0 || waitpid(child, NULL, 0) != child);
        }
        CHECK(conform_child_ok(pid, "child"));
        for (int i = 0; i < MANY_BLOCKS; i++)
            block[i][50000] = (char)(round + 1);
        for (int i = 0; round > 0 && i < MANY_BLOCKS; i++)
            CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 && c == (char)round);
        CHECK(quire_snapshot_release(s) == 0);
    }
    check_many_blocks(block);
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
    for (size_t i = 0; i < BYTES;
         i += 4096) /* as whoever is given it next would, page after page */
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
        CHECK(quire_snapshot_read(s, p + 200 * 4096, &c, 1) == 1 &&
              c == (char)(i == 0 ? 0 : i - 1));
        quire_snapshot_release(s);
    }
    ualarm(0, 0);
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

static const struct conform_case cases[] = {
    {"wrong arguments", wrong_arguments, 20},
    {"ranges", ranges, 20},
    {"free memory is left out", free_is_left_out, 20},
    {"free and trim while it lives", trim_while_held, 30},
    {"budget", budget, 30},
    {"view", view, 30},
    {"view, by a holder process", view_by_holder, 30},
    {"child of fork", child_of_fork, 30},
    {"child of _Fork", child_of_bare_fork, 30},
    {"child of _Fork during the sweep", child_during_the_sweep, 60},
    {"stack in the heap", stack_in_the_heap, 30},
    {"unreadable memory", unreadable_memory, 30},
    {"neighbours in another snapshot", neighbours_in_another_snapshot, 30},
    {"a block on the move", block_on_the_move, 60},
    {"signals that write", signals, 60},
    {"a holder process is not seen", holder_goes_with_us, 30},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
