/*
 * snapshot.c - measures snapshots and fork(2) on the same heap; bench/snapshot.py runs it.
 *
 *   snapshot MiB               all of it
 *   snapshot MiB rollback      going back alone
 *   snapshot MiB rollback-heap the same of one heap of the program's
 *   snapshot MiB rollback-sigbus and of one whose writers save (QUIRE_HEAP_SIGBUS)
 *   snapshot MiB sigbus        first writes to a heap whose writers save pages themselves
 *
 * The heap is one of small blocks (4000 bytes), all written. Prints a name and a number a line:
 * microseconds unless the name says else; medians of several rounds.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "quire/heap.h"
#include "snapshot.h"

#define ROUNDS 9
#define LAZY QUIRE_SNAPSHOT_LAZY

char **block;
size_t nr;
static struct quire_heap *heap; /* NULL: malloc */

double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

void say(const char *what, double value)
{
    printf("%s %.6f\n", what, value);
    fflush(stdout);
}

quire_snapshot_t *take(void)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);

    if (s == NULL) {
        perror("quire_snapshot_take");
        exit(1);
    }
    return s;
}

static double fork_pause(void)
{
    double v[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        v[i] = now_us() - t;
        waitpid(pid, NULL, 0);
    }
    return median(v, ROUNDS);
}

static double snapshot_pause(unsigned flags)
{
    double v[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        quire_snapshot_t *s = quire_snapshot_take(NULL, flags);
        v[i] = now_us() - t;
        if (s == NULL)
            return -1;
        quire_snapshot_release(s);
    }
    return median(v, ROUNDS);
}

/* Microseconds for each page of a write to blocks [0, n) times stride. */
double write_pages(size_t n, size_t stride)
{
    double t = now_us();

    for (size_t i = 0; i < n; i++)
        *(volatile char *)block[i * stride] = 1;
    return (now_us() - t) / (double)n;
}

/* The same, each page announced before. */
static double touch_pages(size_t n, size_t stride)
{
    double t = now_us();

    for (size_t i = 0; i < n; i++) {
        quire_snapshot_touch(block[i * stride], 1);
        *(volatile char *)block[i * stride] = 1;
    }
    return (now_us() - t) / (double)n;
}

static double first_write(double (*write)(size_t n, size_t stride), size_t n, size_t stride)
{
    double v[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        quire_snapshot_t *s = take();
        v[i] = write(n, stride);
        quire_snapshot_release(s);
    }
    return median(v, ROUNDS);
}

/* The same while a child has the memory, too. */
static double first_write_fork(size_t n, size_t stride)
{
    double v[ROUNDS];
    char c;

    for (int i = 0; i < ROUNDS; i++) {
        int end[2];
        if (pipe(end) != 0)
            exit(1);
        pid_t pid = fork();
        if (pid == 0) {
            close(end[1]);
            _exit((int)read(end[0], &c, 1));
        }
        close(end[0]);
        v[i] = write_pages(n, stride);
        close(end[1]);
        waitpid(pid, NULL, 0);
    }
    return median(v, ROUNDS);
}

/* --- going back ------------------------------------------------------------------------------- */

#define DIRTY 100u
#define GO_BACK_ROUNDS 200

static uint64_t go_back_rng;

/* DIRTY blocks anywhere in the heap; the same, touched before they are written; the first DIRTY. */
enum pages { ANYWHERE, TOUCHED, SAME };

/* One iteration's work. */
static void dirty(enum pages which)
{
    for (size_t i = 0; i < DIRTY; i++) {
        go_back_rng ^= go_back_rng << 13;
        go_back_rng ^= go_back_rng >> 7;
        go_back_rng ^= go_back_rng << 17;
        volatile uint64_t *at = (volatile uint64_t *)block[which != SAME ? go_back_rng % nr : i];
        if (which == TOUCHED)
            quire_snapshot_touch((const void *)(uintptr_t)at, sizeof(*at));
        *at = go_back_rng;
    }
}

/* Microseconds for an iteration that writes and is undone. */
static double undone_by_restore(enum pages which)
{
    static double v[GO_BACK_ROUNDS];
    quire_snapshot_t *s = quire_snapshot_take(heap, QUIRE_SNAPSHOT_ROLLBACK);

    if (s == NULL)
        return 0;
    go_back_rng = 88172645463325252u;
    for (int i = 0; i < GO_BACK_ROUNDS; i++) {
        double t = now_us();
        dirty(which);
        if (quire_snapshot_restore(s) != 0)
            perror("quire_snapshot_restore");
        v[i] = now_us() - t;
    }
    quire_snapshot_release(s);
    return median(v, GO_BACK_ROUNDS);
}

/* The same in a child for each. */
static double undone_by_fork(enum pages which)
{
    double v[ROUNDS];

    go_back_rng = 88172645463325252u;
    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        pid_t pid = fork();
        if (pid == 0) {
            dirty(which);
            _exit(0);
        }
        waitpid(pid, NULL, 0);
        v[i] = now_us() - t;
    }
    return median(v, ROUNDS);
}

static void by_writers(void)
{
    say("sigbus", first_write(write_pages, 1000, nr / 1000 / 2));
    say("sigbus_touch", first_write(touch_pages, 1000, nr / 1000 / 2));
    say("sigbus_fork", first_write_fork(1000, nr / 1000 / 2));
}

static void going_back(void)
{
    say("rollback", undone_by_restore(ANYWHERE));
    say("rollback_touched", undone_by_restore(TOUCHED));
    say("rollback_fork", undone_by_fork(ANYWHERE));
    say("rollback_hot", undone_by_restore(SAME));
    say("rollback_hot_fork", undone_by_fork(SAME));
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--map") == 0)
        return map_back(argv[2]);
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 256) << 20;
    struct quire_snapshot_stat st;

    const char *what = argc > 2 ? argv[2] : "";
    bool sigbus = strstr(what, "sigbus") != NULL;
    if (sigbus || strcmp(what, "rollback-heap") == 0) {
        heap =
            quire_heap_create(&(struct quire_heap_attr){.flags = sigbus ? QUIRE_HEAP_SIGBUS : 0});
        if (heap == NULL)
            return 1;
    }
    nr = bytes / 4096;
    block =
        mmap(NULL, nr * sizeof(*block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < nr; i++) {
        block[i] = heap != NULL ? quire_heap_alloc(heap, BLOCK) : malloc(BLOCK);
        if (block[i] == NULL)
            return 1;
        memset(block[i], (int)i, BLOCK);
    }
    if (strcmp(what, "sigbus") == 0) {
        by_writers();
        return 0;
    }
    if (*what != '\0') {
        going_back();
        return 0;
    }
    quire_snapshot_t *s = take();
    quire_snapshot_stat(s, &st);
    quire_snapshot_release(s);
    say("method", st.method);
    say("pause", snapshot_pause(0));
    say("pause_lazy", snapshot_pause(LAZY));
    say("pause_fork", fork_pause());
    say("dense", first_write(write_pages, nr / 4, 1));
    say("dense_fork", first_write_fork(nr / 4, 1));
    say("sparse", first_write(write_pages, 1000, nr / 1000 / 2));
    say("touch", first_write(touch_pages, 1000, nr / 1000 / 2));
    say("sparse_fork", first_write_fork(1000, nr / 1000 / 2));
    while_saving();
    going_back();
    load_and_resume();
    return 0;
}
