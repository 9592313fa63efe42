/*
 * inject.c - runs a program and makes chosen system calls of it fail, by ptrace.
 *
 *   inject [--report FD] [--in OBJECT] [--call NUMBER --error ERRNO --at N[+[COUNT]]]
 *          -- PROGRAM ARGS...
 *
 * Counts the system calls that are made by instructions of the mapped file whose name contains
 * OBJECT (without --in: by all). The Nth call of that NUMBER (with +, COUNT calls after it too, or
 * all) is not carried out and returns ERRNO. Threads and forked children are followed; their calls count in
 * one row.
 *
 * At the end prints one line per system call seen, "call NUMBER COUNT", and "injected N", on
 * descriptor FD (2 by default), and exits as the program did (128 + signal if it was killed). Exits
 * with 77 where ptrace is not possible.
 */
#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CALLS = 1024, TASKS = 1024, RANGES = 16, EXIT_SKIPPED = 77 };

struct task {
    pid_t tid;
    bool pending; /* the call it is in was suppressed */
};

static struct task tasks[TASKS];
static unsigned long counts[CALLS];
static unsigned long injected;

static int report_fd = 2;
static const char *object;
static long wanted_call = -1;
static int wanted_error;
static unsigned long wanted_at;
static unsigned long wanted_until; /* the last one */

static struct {
    uint64_t start, end;
} ranges[RANGES];
static size_t range_count;

static void die(const char *what)
{
    fprintf(stderr, "inject: %s: %s\n", what, strerror(errno));
    exit(errno == EPERM || errno == ENOSYS ? EXIT_SKIPPED : 2);
}

static struct task *task_of(pid_t tid)
{
    struct task *spare = NULL;

    for (size_t i = 0; i < TASKS; i++) {
        if (tasks[i].tid == tid) {
            return &tasks[i];
        }
        if (tasks[i].tid == 0 && spare == NULL) {
            spare = &tasks[i];
        }
    }
    if (spare == NULL) {
        fprintf(stderr, "inject: more than %d tasks at once\n", TASKS);
        exit(2);
    }
    spare->tid = tid;
    spare->pending = false;
    return spare;
}

static bool in_ranges(uint64_t address)
{
    for (size_t i = 0; i < range_count; i++) {
        if (address >= ranges[i].start && address < ranges[i].end) {
            return true;
        }
    }
    return false;
}

/* Reads where the object's code is mapped. All tasks come from one program by fork or clone. */
static void read_ranges(pid_t tid)
{
    char name[64], line[4096];
    FILE *maps;

    snprintf(name, sizeof(name), "/proc/%d/maps", tid);
    maps = fopen(name, "r");
    if (maps == NULL) {
        return;
    }
    range_count = 0;
    while (fgets(line, sizeof(line), maps) != NULL && range_count < RANGES) {
        uint64_t start, end;
        char mode[8];
        char *path = strchr(line, '/');

        if (path != NULL && strstr(path, object) != NULL &&
            sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &start, &end, mode) == 3 &&
            mode[2] == 'x') {
            ranges[range_count].start = start;
            ranges[range_count].end = end;
            range_count++;
        }
    }
    fclose(maps);
}

static bool is_objects(pid_t tid, uint64_t address)
{
    if (object == NULL || in_ranges(address)) {
        return true;
    }
    if (range_count == 0) {
        read_ranges(tid);
    }
    return in_ranges(address);
}

/* Replaces the number of the call that a task is about to make by one that does not exist. */
static void suppress(pid_t tid)
{
#if defined(__x86_64__)
    struct user_regs_struct regs;

    if (ptrace(PTRACE_GETREGS, tid, 0, &regs) != 0) {
        return;
    }
    regs.orig_rax = (unsigned long long)-1;
    ptrace(PTRACE_SETREGS, tid, 0, &regs);
#elif defined(__aarch64__)
    int none = -1;
    struct iovec vector = {&none, sizeof(none)};

    ptrace(PTRACE_SETREGSET, tid, (void *)(uintptr_t)NT_ARM_SYSTEM_CALL, &vector);
#endif
}

static void set_result(pid_t tid, long result)
{
#if defined(__x86_64__)
    struct user_regs_struct regs;

    if (ptrace(PTRACE_GETREGS, tid, 0, &regs) == 0) {
        regs.rax = (unsigned long long)result;
        ptrace(PTRACE_SETREGS, tid, 0, &regs);
    }
#elif defined(__aarch64__)
    struct user_regs_struct regs;
    struct iovec vector = {&regs, sizeof(regs)};

    if (ptrace(PTRACE_GETREGSET, tid, (void *)(uintptr_t)NT_PRSTATUS, &vector) == 0) {
        regs.regs[0] = (unsigned long long)result;
        ptrace(PTRACE_SETREGSET, tid, (void *)(uintptr_t)NT_PRSTATUS, &vector);
    }
#endif
}

static void at_system_call(pid_t tid)
{
    struct __ptrace_syscall_info info;
    struct task *task = task_of(tid);

    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, (void *)sizeof(info), &info) <= 0) {
        return;
    }
    if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
        if (task->pending) {
            set_result(tid, -wanted_error);
            task->pending = false;
        }
        return;
    }
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || info.entry.nr >= CALLS ||
        !is_objects(tid, info.instruction_pointer)) {
        return;
    }
    /* Of the futex calls only the waits may come back with an error: a lost wake is no fault. */
    if (info.entry.nr == SYS_futex && (info.entry.args[1] & FUTEX_CMD_MASK) != FUTEX_WAIT &&
        (info.entry.args[1] & FUTEX_CMD_MASK) != FUTEX_WAIT_BITSET) {
        return;
    }
    counts[info.entry.nr]++;
    if ((long)info.entry.nr == wanted_call && counts[wanted_call] >= wanted_at &&
        counts[wanted_call] <= wanted_until) {
        suppress(tid);
        task->pending = true;
        injected++;
    }
}

/* Handles one stop of a task; returns the signal that it is to be given when it goes on. */
static int handle_stop(pid_t tid, int status)
{
    int number = WSTOPSIG(status), event = status >> 16;
    siginfo_t info;

    if (number == (SIGTRAP | 0x80)) {
        at_system_call(tid);
        return 0;
    }
    if (event == PTRACE_EVENT_EXEC) {
        range_count = 0;
    }
    if (event != 0) {
        return 0;
    }
    /* A new task begins with a stop that nobody sent. */
    if (number == SIGSTOP && ptrace(PTRACE_GETSIGINFO, tid, 0, &info) == 0 && info.si_pid == 0) {
        return 0;
    }
    return number;
}

static void print_counts(void)
{
    FILE *out = fdopen(report_fd, "w");

    if (out == NULL) {
        return;
    }
    for (size_t i = 0; i < CALLS; i++) {
        if (counts[i] != 0) {
            fprintf(out, "call %zu %lu\n", i, counts[i]);
        }
    }
    fprintf(out, "injected %lu\n", injected);
    fclose(out);
}

/* Follows everything until the first program has ended; the others go on by themselves. */
static int follow(pid_t first)
{
    int first_status = 0;

    for (;;) {
        int status;
        pid_t tid = waitpid(-1, &status, __WALL);

        if (tid < 0) {
            if (errno == EINTR) {
                continue;
            }
            break; /* none is left */
        }
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            task_of(tid)->tid = 0;
            if (tid == first) {
                first_status = status;
            }
            continue;
        }
        ptrace(PTRACE_SYSCALL, tid, 0, (void *)(uintptr_t)handle_stop(tid, status));
    }
    return WIFSIGNALED(first_status) ? 128 + WTERMSIG(first_status) : WEXITSTATUS(first_status);
}

static int usage(void)
{
    fprintf(stderr, "usage: inject [--report FD] [--in OBJECT] "
                    "[--call NUMBER --error ERRNO --at N[+[COUNT]]] -- PROGRAM ARGS...\n");
    return 2;
}

int main(int argc, char **argv)
{
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                   PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL;
    int i, status;
    pid_t pid;

    for (i = 1; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        if (strcmp(argv[i], "--report") == 0) {
            report_fd = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--in") == 0) {
            object = argv[i + 1];
        } else if (strcmp(argv[i], "--call") == 0) {
            wanted_call = atol(argv[i + 1]);
        } else if (strcmp(argv[i], "--error") == 0) {
            wanted_error = atoi(argv[i + 1]);
        } else if (strcmp(argv[i], "--at") == 0) {
            char *more;
            wanted_until = wanted_at = strtoul(argv[i + 1], &more, 10);
            if (*more == '+') {
                wanted_until =
                    more[1] != '\0' ? wanted_at + strtoul(more + 1, NULL, 10) : ULONG_MAX;
            }
        } else {
            return usage();
        }
    }
    if (i + 1 >= argc || strcmp(argv[i], "--") != 0 || wanted_call >= CALLS) {
        return usage();
    }
    pid = fork();
    if (pid < 0) {
        die("fork");
    }
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) {
            die("ptrace");
        }
        if (report_fd > 2) {
            close(report_fd);
        }
        raise(SIGSTOP);
        execvp(argv[i + 1], argv + i + 1);
        die(argv[i + 1]);
    }
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
        return EXIT_SKIPPED;
    }
    if (ptrace(PTRACE_SETOPTIONS, pid, 0, (void *)options) != 0) {
        kill(pid, SIGKILL);
        die("ptrace");
    }
    ptrace(PTRACE_SYSCALL, pid, 0, 0);
    status = follow(pid);
    print_counts();
    return status;
}
