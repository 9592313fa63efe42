/*
 * snapshot.c - measures snapshots and fork(2) on the same heap; bench/snapshot.py runs it.
 *
 *   snapshot MiB
 *
 * The heap is one of small blocks (4000 bytes), all written. Prints a name and a number a line:
 * microseconds unless the name says else; medians of several rounds.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "quire/snapshot.h"

#define ROUNDS 9
#define BLOCK 4000u

static char **block;
static size_t nr;

static double now_us(void)
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

static void say(const char *what, double value)
{
    printf("%s %.6f\n", what, value);
    fflush(stdout);
}

static void say_of(const char *what, const char *part, double value)
{
    char line[64];

    snprintf(line, sizeof(line), "%s_%s", what, part);
    say(line, value);
}

static quire_snapshot_t *take(unsigned flags)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, flags);

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

/* How long the whole call takes; and how long others may not go on meanwhile. */
static void snapshot_pause(const char *name, unsigned flags)
{
    struct quire_snapshot_stat st;
    double call[ROUNDS], pause[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        quire_snapshot_t *s = take(flags);
        call[i] = now_us() - t;
        quire_snapshot_stat(s, &st);
        pause[i] = (double)st.pause_ns / 1000;
        quire_snapshot_release(s);
    }
    say(name, median(call, ROUNDS));
    say_of(name, "locked", median(pause, ROUNDS));
}

/* Microseconds for each page of a write to blocks [0, n) times stride. */
static double write_pages(size_t n, size_t stride)
{
    double t = now_us();

    for (size_t i = 0; i < n; i++)
        *(volatile char *)block[i * stride] = 1;
    return (now_us() - t) / (double)n;
}

static double first_write(size_t n, size_t stride)
{
    double v[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        quire_snapshot_t *s = take(0);
        v[i] = write_pages(n, stride);
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

/* --- a writer while the heap is saved -------------------------------------------------------- */

#define MAX_OPS (1u << 22)
#define PERIOD 100.0 /* us */

static _Atomic bool saved;
static float *latency; /* us, of each write */

static void *save_it(void *arg)
{
    int fd = open("/dev/null", O_WRONLY);

    if (quire_snapshot_save(arg, fd, NULL, NULL) != 0)
        perror("quire_snapshot_save");
    close(fd);
    saved = true;
    return NULL;
}

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

static void say_latency(const char *name, size_t n)
{
    if (n == 0)
        return;
    qsort(latency, n, sizeof(*latency), by_float);
    say_of(name, "p50", latency[n / 2]);
    say_of(name, "p999", latency[n - 1 - n / 1000]);
    say_of(name, "max", latency[n - 1]);
}

/*
 * Writes to random blocks, one each PERIOD as planned from the beginning: a pause counts for every
 * write that should have happened in it.
 */
static size_t write_until(bool (*done)(void), double start)
{
    uint64_t rng = 88172645463325252u;
    size_t n = 0;

    while (n < MAX_OPS && !done()) {
        double due = start + PERIOD * (double)n;

        while (now_us() < due)
            ;
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        memset(block[rng % nr], 3, 64);
        latency[n++] = (float)(now_us() - due);
    }
    return n;
}

static bool snapshot_done(void)
{
    return saved;
}

static pid_t child;

static bool child_done(void)
{
    return waitpid(child, NULL, WNOHANG) != 0;
}

static void latency_while_saving(const char *name, unsigned flags)
{
    struct quire_snapshot_stat st;
    pthread_t t;
    double start = now_us();

    saved = false;
    quire_snapshot_t *s = take(flags);
    pthread_create(&t, NULL, save_it, s);
    size_t n = write_until(snapshot_done, start);
    pthread_join(t, NULL);
    quire_snapshot_stat(s, &st);
    say_of(name, "save_ms", (now_us() - start) / 1000);
    say_of(name, "copied_mib", (double)st.saved_bytes / (1 << 20));
    say_of(name, "written_mib", (double)n * 4096 / (1 << 20));
    quire_snapshot_release(s);
    say_latency(name, n);
}

static void latency_while_forked(void)
{
    double start = now_us();

    child = fork();
    if (child == 0) {
        int fd = open("/dev/null", O_WRONLY);
        char *copy =
            mmap(NULL, 1 << 18, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (size_t i = 0; i < nr; i += 64) {
            for (size_t k = 0; k < 64 && i + k < nr; k++)
                memcpy(copy + k * 4096, block[i + k], BLOCK);
            if (write(fd, copy, 1 << 18) < 0)
                _exit(1);
        }
        _exit(0);
    }
    say_latency("writer_fork", write_until(child_done, start));
}

/* --- going back ------------------------------------------------------------------------------- */

#define DIRTY 100u
#define GO_BACK_ROUNDS 200

static uint64_t go_back_rng;

/* One iteration's work: DIRTY blocks anywhere in the heap, or the first DIRTY every time. */
static void dirty(bool anywhere)
{
    for (size_t i = 0; i < DIRTY; i++) {
        go_back_rng ^= go_back_rng << 13;
        go_back_rng ^= go_back_rng >> 7;
        go_back_rng ^= go_back_rng << 17;
        *(volatile uint64_t *)block[anywhere ? go_back_rng % nr : i] = go_back_rng;
    }
}

/* Microseconds for an iteration that writes and is undone. */
static double undone_by_restore(bool anywhere)
{
    static double v[GO_BACK_ROUNDS];
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);

    if (s == NULL)
        return 0;
    go_back_rng = 88172645463325252u;
    for (int i = 0; i < GO_BACK_ROUNDS; i++) {
        double t = now_us();
        dirty(anywhere);
        if (quire_snapshot_restore(s) != 0)
            perror("quire_snapshot_restore");
        v[i] = now_us() - t;
    }
    quire_snapshot_release(s);
    return median(v, GO_BACK_ROUNDS);
}

/* The same in a child for each. */
static double undone_by_fork(bool anywhere)
{
    double v[ROUNDS];

    go_back_rng = 88172645463325252u;
    for (int i = 0; i < ROUNDS; i++) {
        double t = now_us();
        pid_t pid = fork();
        if (pid == 0) {
            dirty(anywhere);
            _exit(0);
        }
        waitpid(pid, NULL, 0);
        v[i] = now_us() - t;
    }
    return median(v, ROUNDS);
}

static void going_back(void)
{
    say("rollback", undone_by_restore(true));
    say("rollback_fork", undone_by_fork(true));
    say("rollback_hot", undone_by_restore(false));
    say("rollback_hot_fork", undone_by_fork(false));
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 256) << 20;
    struct quire_snapshot_stat st;

    nr = bytes / 4096;
    block =
        mmap(NULL, nr * sizeof(*block), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    latency = mmap(NULL, MAX_OPS * sizeof(*latency), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    for (size_t i = 0; i < nr; i++) {
        block[i] = malloc(BLOCK);
        if (block[i] == NULL)
            return 1;
        memset(block[i], (int)i, BLOCK);
    }
    quire_snapshot_t *s = take(0);
    quire_snapshot_stat(s, &st);
    quire_snapshot_release(s);
    say("method", st.method);
    snapshot_pause("pause", 0);
    snapshot_pause("pause_lazy", QUIRE_SNAPSHOT_LAZY);
    say("pause_fork", fork_pause());
    say("dense", first_write(nr / 4, 1));
    say("dense_fork", first_write_fork(nr / 4, 1));
    say("sparse", first_write(1000, nr / 1000 / 2));
    say("sparse_fork", first_write_fork(1000, nr / 1000 / 2));
    latency_while_saving("writer", 0);
    latency_while_saving("writer_lazy", QUIRE_SNAPSHOT_LAZY);
    latency_while_forked();
    going_back();
    return 0;
}
