/*
 * watch: samples of resident memory; see watch.h.
 *
 * The number of samples is bounded and the run's length is not known: when the table is full, every
 * two samples become one and the interval doubles.
 *
 *     |.|.|.|.|.|.|.|.|        full, 2 ms apart
 *     |: |: |: |: |  |  ...    half full, 4 ms apart, the larger of each two kept
 *
 * So a peak that was seen is never lost. The interval also doubles where looking takes more than a
 * tenth of it: a large program is looked at less often.
 */
#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define MOST_SAMPLES 128
#define FIRST_INTERVAL 0.002
/* children of children: enough for make, shells and servers, and an end to any mistake */
#define MOST_DEPTH 6

struct sample {
    double at;
    long rss_kb;
    long pss_kb;
};

static struct sample samples[MOST_SAMPLES];
static int count;
static double interval = FIRST_INTERVAL;
static long peak_rss_kb;
static long peak_pss_kb;

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void sleep_for(double seconds)
{
    struct timespec time = {
        .tv_sec = (time_t)seconds,
        .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9),
    };

    nanosleep(&time, NULL);
}

/* A process may end while it is looked at: then it adds nothing. */
static void add_process(pid_t pid, struct sample *sum)
{
    char line[256], path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    file = fopen(path, "re");
    if (!file)
        return;
    while (fgets(line, sizeof(line), file)) {
        if (!strncmp(line, "Rss:", 4))
            sum->rss_kb += atol(line + 4);
        else if (!strncmp(line, "Pss:", 4))
            sum->pss_kb += atol(line + 4);
    }
    fclose(file);
}

static void add_tree(pid_t pid, int depth, struct sample *sum);

/* the children that one thread has started */
static void add_children(pid_t pid, const char *thread, int depth, struct sample *sum)
{
    char path[320];
    FILE *file;
    int child;

    snprintf(path, sizeof(path), "/proc/%d/task/%s/children", pid, thread);
    file = fopen(path, "re");
    if (!file)
        return;
    while (fscanf(file, "%d", &child) == 1)
        add_tree(child, depth + 1, sum);
    fclose(file);
}

static void add_tree(pid_t pid, int depth, struct sample *sum)
{
    char path[64];
    struct dirent *entry;
    DIR *threads;

    add_process(pid, sum);
    if (depth == MOST_DEPTH)
        return;
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    threads = opendir(path);
    if (!threads)
        return;
    while ((entry = readdir(threads))) {
        if (entry->d_name[0] != '.')
            add_children(pid, entry->d_name, depth, sum);
    }
    closedir(threads);
}

static void halve(void)
{
    for (int i = 0; i < MOST_SAMPLES / 2; i++) {
        const struct sample *one = &samples[2 * i], *two = &samples[2 * i + 1];

        samples[i] = one->rss_kb > two->rss_kb ? *one : *two;
    }
    count = MOST_SAMPLES / 2;
    interval *= 2;
}

static void look(pid_t child, double start)
{
    struct sample now = {.at = seconds_now() - start};
    double took;

    add_tree(child, 0, &now);
    took = seconds_now() - start - now.at;
    /* between the end of its memory and the end of the process there is nothing to see */
    if (now.rss_kb == 0)
        return;
    if (now.rss_kb > peak_rss_kb)
        peak_rss_kb = now.rss_kb;
    if (now.pss_kb > peak_pss_kb)
        peak_pss_kb = now.pss_kb;
    samples[count++] = now;
    if (count == MOST_SAMPLES)
        halve();
    else if (took > interval / 10)
        interval *= 2;
}

int watch_until_end(pid_t child, struct rusage *usage)
{
    double start = seconds_now();
    int status;

    for (;;) {
        pid_t ended = wait4(child, &status, WNOHANG, usage);

        if (ended == child)
            return status;
        if (ended < 0 && errno != EINTR) {
            perror("measure: wait4");
            exit(125);
        }
        look(child, start);
        sleep_for(interval);
    }
}

void watch_report(int fd)
{
    dprintf(fd, ", \"watch\": {\"peak_rss_kb\": %ld, \"peak_pss_kb\": %ld, \"samples\": [",
            peak_rss_kb, peak_pss_kb);
    for (int i = 0; i < count; i++)
        dprintf(fd, "%s[%.3f, %ld, %ld]", i ? ", " : "", samples[i].at, samples[i].rss_kb,
                samples[i].pss_kb);
    dprintf(fd, "]}");
}
