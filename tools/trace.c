/*
 * Watch a program from its start to its first allocation.
 *
 * The program is stopped at each system call, which is seldom during start-up, and its statistics
 * page read there. It is ended at once when the answer is known: nearly always before it has done
 * anything that could be noticed. What it cannot escape from: ending without an allocation, or
 * waiting long before the first one.
 */
#include "trace.h"

#include "process.h"
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/* Seconds after which a program that still has not allocated is judged as it is. */
#define PATIENCE 10

#define OPTIONS                                                                                    \
    (PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | PTRACE_O_TRACESYSGOOD)

static void on_alarm(int sig)
{
    (void)sig; /* only there to interrupt waitpid() */
}

/* The child: wait for the tracer, become the program, or report errno through the pipe. */
static void child(const char *path, char **argv, int pipe_fd)
{
    int err;

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0) {
        raise(SIGSTOP);
        program_exec(path, argv);
    }
    err = errno;
    if (write(pipe_fd, &err, sizeof(err)) < 0)
        _exit(126);
    _exit(127);
}

/*
 * Can the verdict still change? The preloaded library is mapped before the libraries a program
 * needs itself: once libc is there, quire is either there too or never will be. A static program
 * has all it will ever have.
 */
static bool final(const struct verdict *v, bool dynamic)
{
    switch (v->state) {
    case VERDICT_IDLE:
        return false;
    case VERDICT_ABSENT:
    case VERDICT_BYPASSED:
        return !dynamic || !v->loading;
    default:
        return true;
    }
}

static bool is_dynamic(pid_t pid)
{
    char exe[64];
    struct program p;

    snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
    return program_inspect(exe, &p) != 0 || !p.elf || p.dynamic;
}

enum end {
    ANSWERED,    /* there is a verdict, and the program is still there */
    ENDED,       /* there is a verdict, and the program is gone */
    NOT_STARTED, /* gone before it began */
};

/* Follow the program from one stop to the next. */
static enum end follow(pid_t pid, struct verdict *v)
{
    bool started = false, dynamic = true;
    int status, sig;

    for (;;) {
        if (waitpid(pid, &status, 0) < 0) {
            /* Patience is over: judge it while it runs. */
            verdict_of(pid, v);
            return ANSWERED;
        }
        if (!WIFSTOPPED(status))
            return started ? ENDED : NOT_STARTED;
        sig = WSTOPSIG(status);
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) {
            started = true;
            dynamic = is_dynamic(pid);
            sig = 0;
        } else if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXIT << 8)) {
            return ANSWERED;
        } else if (sig == (SIGTRAP | 0x80)) {
            sig = 0;
        } else if (!started && sig == SIGSTOP) {
            sig = 0;
            ptrace(PTRACE_SETOPTIONS, pid, NULL, OPTIONS);
        }
        if (started) {
            verdict_of(pid, v);
            if (final(v, dynamic))
                return ANSWERED;
        }
        /* Fails only for a program that was killed meanwhile, which waitpid() then tells. */
        ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(uintptr_t)sig);
    }
}

int trace_program(const char *path, char **argv, struct verdict *v)
{
    struct sigaction action = {.sa_handler = on_alarm};
    int fds[2], err = 0;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) != 0)
        return errno;
    pid = fork();
    if (pid < 0) {
        err = errno;
        close(fds[0]);
        close(fds[1]);
        return err;
    }
    if (pid == 0)
        child(path, argv, fds[1]);
    close(fds[1]);
    sigaction(SIGALRM, &action, NULL);
    alarm(PATIENCE);
    switch (follow(pid, v)) {
    case ANSWERED:
        kill(pid, SIGKILL);
        /* A program that is held on its way out has to be let go as well. */
        ptrace(PTRACE_CONT, pid, NULL, NULL);
        waitpid(pid, NULL, 0);
        break;
    case ENDED:
        break;
    case NOT_STARTED:
        if (read(fds[0], &err, sizeof(err)) != sizeof(err))
            err = ECHILD;
        break;
    }
    alarm(0);
    close(fds[0]);
    return err;
}
