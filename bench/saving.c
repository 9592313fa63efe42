/* saving.c - a writer while the heap is saved. See snapshot.h. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot.h"

#define MAX_OPS (1u << 22)
#define PERIOD 100.0 /* us */

static _Atomic bool saved;
static float *latency; /* us, of each write */
static bool *written;  /* [block] since the cut */

/* How far it is drained; how many blocks were written to before that. */
static _Atomic uintptr_t drained_to;
static size_t written_first;

static int by_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

/* How many writes took up to so many us; ten steps to a decade. Sorted. */
static void say_histogram(const char *name, size_t n)
{
    double up_to = 0.1;

    for (size_t i = 0, from = 0; i < n; up_to *= pow(10, 0.1), from = i) {
        while (i < n && latency[i] <= up_to)
            i++;
        if (i > from)
            printf("histogram %s %.4f %zu\n", name, up_to, i - from);
    }
}

static void say_latency(const char *name, size_t n)
{
    char line[64];

    if (n == 0)
        return;
    qsort(latency, n, sizeof(*latency), by_float);
    snprintf(line, sizeof(line), "%s_p50", name);
    say(line, latency[n / 2]);
    snprintf(line, sizeof(line), "%s_p999", name);
    say(line, latency[n - 1 - n / 1000]);
    snprintf(line, sizeof(line), "%s_max", name);
    say(line, latency[n - 1]);
    say_histogram(name, n);
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
        written_first += !written[rng % nr] && (uintptr_t)block[rng % nr] >= drained_to;
        written[rng % nr] = true;
        latency[n++] = (float)(now_us() - due);
    }
    return n;
}

static int drained(void *arg, size_t done, size_t total)
{
    struct quire_snapshot_range r;

    for (size_t i = 0, before = 0; quire_snapshot_range(arg, i, &r) == 0; before += r.size, i++)
        if (done - before <= r.size) {
            drained_to = (uintptr_t)r.start + (done - before);
            break;
        }
    return 0;
}

/* By quire_snapshot_save(), or quire_snapshot_drain(). */
struct job {
    quire_snapshot_t *s;
    int (*save)(quire_snapshot_t *s, int fd, int (*progress)(void *arg, size_t done, size_t total),
                void *arg);
};

static void *save_it(void *arg)
{
    const struct job *job = arg;
    int fd = open("/dev/null", O_WRONLY);

    if (job->save(job->s, fd, drained, job->s) != 0)
        perror("saving a snapshot");
    close(fd);
    saved = true;
    return NULL;
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

static void fill(void)
{
    for (size_t i = 0; i < nr; i++) {
        memset(block[i], (int)i, BLOCK);
        memcpy(block[i], &i, sizeof(i));
    }
    memset(written, 0, nr);
}

/* Bytes that the snapshot shows otherwise than they were at the cut. */
static size_t wrong_bytes(const quire_snapshot_t *s)
{
    static unsigned char got[BLOCK], want[BLOCK];
    size_t wrong = 0;

    for (size_t i = 0; i < nr; i++) {
        memset(want, (int)i, BLOCK);
        memcpy(want, &i, sizeof(i));
        if (quire_snapshot_read(s, block[i], got, BLOCK) != (ssize_t)BLOCK)
            wrong += BLOCK;
        else if (memcmp(got, want, BLOCK) != 0)
            for (size_t k = 0; k < BLOCK; k++)
                wrong += got[k] != want[k];
    }
    return wrong;
}

static double resident_mib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    size_t pages = 0;

    if (f == NULL || fscanf(f, "%*u %zu", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return (double)pages * (double)getpagesize() / (1 << 20);
}

static void latency_while_saving(void)
{
    struct quire_snapshot_stat st;
    pthread_t t;
    size_t pages = 0;

    fill();
    double before = resident_mib(), start = now_us();
    quire_snapshot_t *s = take();
    struct job job = {s, quire_snapshot_save};
    pthread_create(&t, NULL, save_it, &job);
    size_t n = write_until(snapshot_done, start);
    pthread_join(t, NULL);
    say("save_ms", (now_us() - start) / 1000);
    say("save_grown_mib", resident_mib() - before);
    quire_snapshot_stat(s, &st);
    for (size_t i = 0; i < nr; i++)
        pages += written[i];
    say("save_copied_mib", (double)st.saved_bytes / (1 << 20));
    say("save_written_mib", (double)pages * 4096 / (1 << 20));
    say("save_wrong_bytes", (double)wrong_bytes(s));
    quire_snapshot_release(s);
    say_latency("writer", n);
}

static void memory_while_draining(void)
{
    pthread_t t;

    fill();
    saved = false;
    written_first = drained_to = 0;
    double before = resident_mib();
    quire_snapshot_t *s = take();
    struct job job = {s, quire_snapshot_drain};
    pthread_create(&t, NULL, save_it, &job);
    write_until(snapshot_done, now_us());
    pthread_join(t, NULL);
    say("drain_grown_mib", resident_mib() - before);
    say("drain_written_first_mib", (double)written_first * 4096 / (1 << 20));
    quire_snapshot_release(s);
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

void while_saving(void)
{
    latency = mmap(NULL, MAX_OPS * sizeof(*latency), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    written = mmap(NULL, nr, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (latency == MAP_FAILED || written == MAP_FAILED)
        exit(1);
    latency_while_saving();
    memory_while_draining();
    latency_while_forked();
    munmap(latency, MAX_OPS * sizeof(*latency));
    munmap(written, nr);
}
