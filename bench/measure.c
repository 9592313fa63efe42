/*
 * measure: run a program and report what it cost, as one JSON line.
 *
 *     measure [-n TIMES] [-x | -w] [-c CPU[,CPU]...] [-u UID:GID] [-e NAME=VALUE]...
 *             REPORT PROGRAM [ARGUMENT]...
 *
 * Small on purpose. The kernel counts in a child's peak resident memory what it held between fork
 * and exec, which is a copy of its parent's: started from an interpreter, /bin/true would appear to
 * need the interpreter's 15 MB. And the variables given by -e, LD_PRELOAD above all, are set in the
 * child alone, so that nothing but the measured program runs with them.
 *
 * With -n the program is run that many times, one after the other; all figures are then means.
 * With -x the program is stopped on its way out (ptrace) and what it holds at that moment is read
 * from /proc: exact to the page, where the peak that the kernel keeps is only exact to some dozens
 * of pages, which matters for small programs. (With both, it is the last run's.)
 * With -w the program and its descendants are looked at all the while (watch.h): resident memory
 * over time, and the peak of their proportional share.
 * With -c it may run on these CPUs alone; with -u it runs as somebody else, for servers that refuse
 * to be started by root.
 *
 * Exit status: the program's own (the first bad one), 128 + signal where it was killed, 125 where
 * measure itself failed, 127 where the program cannot be started.
 */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_VARIABLES 32

static char *variables[MOST_VARIABLES];
static int variable_count;

/* -x: what the program held when it ended */
static int ending;
static long end_rss_kb;
static long end_private_kb;

/* -w */
static int watching;

/* -c */
static cpu_set_t cpus;
static int pinned;

/* -u */
static unsigned run_as_uid, run_as_gid;
static int somebody_else;

static void give_up(const char *what)
{
    fprintf(stderr, "measure: %s: %s\n", what, strerror(errno));
    exit(125);
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

/* a line of smaps_rollup, in kB; 0 where the kernel has no such line */
static long rollup_field(FILE *file, const char *name)
{
    char line[256];

    rewind(file);
    while (fgets(line, sizeof(line), file)) {
        if (!strncmp(line, name, strlen(name)))
            return atol(line + strlen(name));
    }
    return 0;
}

static void read_ending(pid_t child)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", child);
    file = fopen(path, "re");
    if (!file)
        give_up(path);
    end_rss_kb = rollup_field(file, "Rss:");
    end_private_kb = rollup_field(file, "Private_Dirty:") + rollup_field(file, "Private_Clean:");
    fclose(file);
}

/*
 * Waits for the child, which stops once when it ends. Every other stop is a signal on its way to
 * it, passed on, or the trap that an exec under ptrace brings, which is not for the program.
 */
static int wait_traced(pid_t child, struct rusage *usage)
{
    int status;

    for (;;) {
        int deliver;

        while (wait4(child, &status, 0, usage) < 0) {
            if (errno != EINTR)
                give_up("wait4");
        }
        if (!WIFSTOPPED(status))
            return status;
        deliver = WSTOPSIG(status);
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8))
            read_ending(child);
        if (deliver == SIGTRAP || deliver == SIGSTOP)
            deliver = 0;
        if (ptrace(PTRACE_CONT, child, NULL, (void *)(uintptr_t)deliver) && errno != ESRCH)
            give_up("ptrace");
    }
}

/* what is different in the child from its parent, and only there */
static void become(char **command)
{
    signal(SIGTERM, SIG_DFL);
    if (pinned && sched_setaffinity(0, sizeof(cpus), &cpus))
        give_up("sched_setaffinity");
    if (somebody_else &&
        (setgroups(0, NULL) || setgid((gid_t)run_as_gid) || setuid((uid_t)run_as_uid)))
        give_up("setuid");
    for (int i = 0; i < variable_count; i++)
        putenv(variables[i]);
    execvp(command[0], command);
    fprintf(stderr, "measure: cannot start %s: %s\n", command[0], strerror(errno));
    _exit(127);
}

/* one run; the usage of the program and of all its children that it waited for */
static int run_once(char **command, double *wall, struct rusage *usage)
{
    double start = seconds_now();
    int status, gate[2];
    pid_t child;

    if (ending && pipe2(gate, O_CLOEXEC))
        give_up("pipe");
    child = fork();

    if (child < 0)
        give_up("fork");
    if (child == 0) {
        char byte;

        if (ending) {
            close(gate[1]);
            if (read(gate[0], &byte, 1) != 0)
                _exit(125);
        }
        become(command);
    }
    if (ending) {
        /* the child waits for the pipe to close: it is seized before it becomes the program */
        if (ptrace(PTRACE_SEIZE, child, NULL, (void *)PTRACE_O_TRACEEXIT))
            give_up("ptrace");
        close(gate[0]);
        close(gate[1]);
        status = wait_traced(child, usage);
    } else if (watching) {
        status = watch_until_end(child, usage);
    } else {
        while (wait4(child, &status, 0, usage) < 0) {
            if (errno != EINTR)
                give_up("wait4");
        }
    }
    *wall = seconds_now() - start;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void usage_and_exit(void)
{
    fputs("usage: measure [-n TIMES] [-x | -w] [-c CPU[,CPU]...] [-u UID:GID] "
          "[-e NAME=VALUE]...\n               REPORT PROGRAM [ARGUMENT]...\n",
          stderr);
    exit(125);
}

static void parse_cpus(const char *text)
{
    CPU_ZERO(&cpus);
    for (;;) {
        char *end;
        unsigned long cpu = strtoul(text, &end, 10);

        if (end == text || cpu >= CPU_SETSIZE || (*end && *end != ','))
            usage_and_exit();
        CPU_SET(cpu, &cpus);
        if (!*end)
            break;
        text = end + 1;
    }
    pinned = 1;
}

static void parse_user(const char *text)
{
    if (sscanf(text, "%u:%u", &run_as_uid, &run_as_gid) != 2)
        usage_and_exit();
    somebody_else = 1;
}

static void parse_options(int argc, char **argv, long *times)
{
    int option;

    /* "+": the measured program's own options are left alone */
    while ((option = getopt(argc, argv, "+n:xwc:u:e:")) != -1) {
        if (option == 'n' && atol(optarg) > 0)
            *times = atol(optarg);
        else if (option == 'x')
            ending = 1;
        else if (option == 'w')
            watching = 1;
        else if (option == 'c')
            parse_cpus(optarg);
        else if (option == 'u')
            parse_user(optarg);
        else if (option == 'e' && strchr(optarg, '=') && variable_count < MOST_VARIABLES)
            variables[variable_count++] = optarg;
        else
            usage_and_exit();
    }
    if (argc - optind < 2 || (ending && watching))
        usage_and_exit();
}

int main(int argc, char **argv)
{
    double wall = 0, user = 0, system = 0;
    long times = 1, peak_kb = 0, minor = 0, major = 0, voluntary = 0, involuntary = 0;
    int status = 0, done = 0, report;

    parse_options(argc, argv, &times);
    /* told to end, the program ends and is waited for; who started measure sees to the rest */
    signal(SIGTERM, SIG_IGN);
    report = open(argv[optind], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (report < 0)
        give_up(argv[optind]);

    while (done < times && !status) {
        struct rusage usage;
        double once;

        status = run_once(argv + optind + 1, &once, &usage);
        done++;
        wall += once;
        user += seconds_of(usage.ru_utime);
        system += seconds_of(usage.ru_stime);
        minor += usage.ru_minflt;
        major += usage.ru_majflt;
        voluntary += usage.ru_nvcsw;
        involuntary += usage.ru_nivcsw;
        peak_kb += usage.ru_maxrss;
    }
    dprintf(report,
            "{\"status\": %d, \"times\": %d, \"wall\": %.6f, \"user\": %.6f, \"sys\": %.6f, "
            "\"peak_kb\": %ld, \"minflt\": %ld, \"majflt\": %ld, \"nvcsw\": %ld, \"nivcsw\": %ld",
            status, done, wall / done, user / done, system / done, peak_kb / done, minor / done,
            major / done, voluntary / done, involuntary / done);
    if (ending)
        dprintf(report, ", \"end_rss_kb\": %ld, \"end_private_kb\": %ld", end_rss_kb,
                end_private_kb);
    if (watching)
        watch_report(report);
    dprintf(report, "}\n");
    return status;
}
