/*
 * holder.c - where userfaultfd is refused: an idle child process.
 *
 * A fork made by raw system call: no handler of the program runs in it, it
 * sends no signal when it ends, and wait() does not see it. It closes all other
 * descriptors, sleeps, and ends when its parent has. The kernel's own
 * copy-on-write keeps its memory as it was; it is read through /proc/PID/mem,
 * which, unlike process_vm_readv(2), makes no private copies of what it reads.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "base/msg.h"
#include "cow/cow.h"
#include "cow/share.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif

#define LOOK_SECONDS 1 /* how soon it notices that its parent is gone */
#define MAX_FDS 65536

/* Descriptors from..to, one by one where the kernel (before Linux 5.9) has no call for it. */
static void close_range_of(unsigned from, unsigned to)
{
    if (from > to || q_arch_syscall6(SYS_close_range, from, to, 0, 0, 0, 0) == 0)
        return;
    for (unsigned fd = from; fd <= to && fd < MAX_FDS; fd++)
        q_arch_syscall6(SYS_close, (long)fd, 0, 0, 0, 0, 0);
}

void q_close_all_but(int fd)
{
    if (fd < 0) {
        close_range_of(0, ~0u);
        return;
    }
    if (fd > 0)
        close_range_of(0, (unsigned)fd - 1);
    close_range_of((unsigned)fd + 1, ~0u);
}

/*
 * The other end of the pipe closes when the parent ends the holder, ends
 * itself, or becomes another program. Children of the parent may have it,
 * too, and there may be none, so its end is looked for as well.
 */
_Noreturn static void hold(int parent, int pipe)
{
    struct timespec second = {.tv_sec = LOOK_SECONDS};
    struct pollfd closed = {.fd = pipe};

    q_arch_syscall6(SYS_prctl, PR_SET_NAME, (long)"quire-holder", 0, 0, 0, 0);
    q_close_all_but(pipe);
    while (q_arch_syscall6(SYS_getppid, 0, 0, 0, 0, 0, 0) == parent) {
        struct timespec left = second; /* the kernel writes what remains */
        long n = q_arch_syscall6(SYS_ppoll, (long)&closed, pipe >= 0, (long)&left, 0, 0, 0);
        if (n > 0)
            break;
    }
    for (;;)
        q_arch_syscall6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
}

static bool look_at(int fd, struct stat *st)
{
    return fd >= 0 && q_fstatat(fd, "", st, AT_EMPTY_PATH) == 0;
}

void q_file_is(struct q_file *f, int fd)
{
    struct stat st = {0};

    look_at(fd, &st);
    *f = (struct q_file){fd, st.st_dev, st.st_ino};
}

bool q_file_same(const struct q_file *f)
{
    struct stat st = {0};

    return look_at(f->fd, &st) && st.st_dev == f->dev && st.st_ino == f->ino;
}

void q_file_close(struct q_file *f)
{
    if (q_file_same(f))
        q_arch_syscall6(SYS_close, f->fd, 0, 0, 0, 0, 0);
    f->fd = -1;
}

/* For children that send no signal when they end, of which the program has few. */
static long wait_for(int pid, int options)
{
    long ret;

    do
        ret = q_arch_syscall6(SYS_waitid, P_PID, pid, 0, WEXITED | __WCLONE | options, 0, 0);
    while (ret == -EINTR);
    return ret;
}

/*
 * It may have been killed, and the program have waited for it (__WALL): then
 * its number may be another process's. The directory belongs to the process
 * whatever becomes of the number, and the call takes it for a pidfd.
 */
static void end(struct quire_snapshot *s)
{
    long ret = -EBADF;

    if (wait_for(s->holder_pid, WNOHANG | WNOWAIT) == -ECHILD)
        return;
    if (q_file_same(&s->holder_proc))
        ret = q_arch_syscall6(SYS_pidfd_send_signal, s->holder_proc.fd, SIGKILL, 0, 0, 0, 0);
    if (ret == -ESRCH)
        return;
    if (ret != 0) /* refused, or no descriptor was left */
        q_arch_syscall6(SYS_kill, s->holder_pid, SIGKILL, 0, 0, 0, 0);
    ret = wait_for(s->holder_pid, 0);
    while (ret != 0 && ret != -ECHILD) { /* refused */
        ret = q_arch_syscall6(SYS_wait4, s->holder_pid, 0, __WCLONE, 0, 0, 0);
        if (ret != -EINTR)
            break;
    }
}

static int open_of(int pid, const char *what, int flags)
{
    char path[32];
    struct q_buf b = {.at = path, .size = sizeof(path)};

    q_buf_printf(&b, "/proc/%d/%s", pid, what);
    return (int)q_arch_syscall6(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0, 0, 0);
}

int q_holder_start(struct quire_snapshot *s)
{
    int parent = q_getpid(), ends[2] = {-1, -1};
    char probe;

    /* Without one, where no descriptor is left: see hold(). */
    q_arch_syscall6(SYS_pipe2, (long)ends, O_CLOEXEC, 0, 0, 0, 0);
    q_share_fork_prepare();
    long pid = q_arch_syscall6(SYS_clone, 0, 0, 0, 0, 0, 0);
    if (pid == 0) {
        q_share_fork_child();
        hold(parent, ends[0]);
    }
    q_share_fork_parent();
    if (ends[0] >= 0)
        q_arch_syscall6(SYS_close, ends[0], 0, 0, 0, 0, 0);
    q_file_is(&s->holder_pipe, ends[1]);
    if (pid < 0) {
        q_holder_end(s);
        return pid == -ENOMEM ? ENOMEM : EAGAIN;
    }
    s->holder_pid = (int)pid;
    q_file_is(&s->holder_mem, open_of((int)pid, "mem", O_RDONLY));
    q_file_is(&s->holder_proc, open_of((int)pid, "", O_RDONLY | O_DIRECTORY));
    if (q_holder_read(s, s->ranges.at[0].start, &probe, 1) == 0)
        return 0;
    q_holder_end(s);
    return EPERM;
}

int q_holder_read(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len)
{
    while (len > 0) {
        struct iovec dst = {to, len}, src = {(void *)addr, len};
        long n = s->holder_mem.fd >= 0 ? q_cow_pread(s->holder_mem.fd, to, len, addr)
                                       : q_arch_syscall6(SYS_process_vm_readv, s->holder_pid,
                                                         (long)&dst, 1, (long)&src, 1, 0);
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n == 0 || n == -ESRCH ? EIO : EFAULT;
        addr += (size_t)n;
        to += n;
        len -= (size_t)n;
    }
    return 0;
}

void q_holder_end(struct quire_snapshot *s)
{
    if (s->holder_pid > 0)
        end(s);
    q_holder_forget(s);
}

void q_holder_forget(struct quire_snapshot *s)
{
    q_file_close(&s->holder_proc);
    q_file_close(&s->holder_mem);
    q_file_close(&s->holder_pipe);
    s->holder_pid = 0;
}
