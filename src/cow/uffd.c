/* uffd.c - see uffd.h. */
#include "cow/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>

#define TRIES                                                                                      \
    100000 /* EAGAIN means that the address space is changing just now: some ten seconds */
#define TRIES_AT_ONCE 1000
#define USER_MODE_ONLY 1            /* Linux 5.11 */
#define PATIENCE 100                /* ms */
#define LOWEST ((uintptr_t)1 << 20) /* about the first address that may be mapped */

static long ioctl3(int fd, unsigned long request, void *arg)
{
    return q_arch_syscall6(SYS_ioctl, fd, (long)request, (long)arg, 0, 0, 0);
}

static void close_fd(int fd)
{
    q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
}

/*
 * A descriptor whose faults may also be the kernel's: others would make system calls fail. That is
 * what those do whose faults are signals, in any case.
 */
static long open_one(uint64_t need)
{
    if ((need & UFFD_FEATURE_SIGBUS) != 0)
        return q_arch_syscall6(SYS_userfaultfd, O_CLOEXEC | USER_MODE_ONLY, 0, 0, 0, 0, 0);
    long dev = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)"/dev/userfaultfd", O_RDWR | O_CLOEXEC,
                               0, 0, 0);

    if (dev >= 0) {
        long fd = ioctl3((int)dev, _IO(0xAA, 0), (void *)(long)O_CLOEXEC);
        close_fd((int)dev);
        if (fd >= 0)
            return fd;
    }
    return q_arch_syscall6(SYS_userfaultfd, O_CLOEXEC, 0, 0, 0, 0, 0);
}

static bool refused(struct q_uffd *u, const char *why)
{
    if (u->fd >= 0)
        close_fd(u->fd);
    u->fd = -1;
    u->refuse = why;
    return false;
}

static const char *why_not_open(long error)
{
    if (error == -EPERM)
        return "userfaultfd is not permitted: set the sysctl vm.unprivileged_userfaultfd to 1, "
               "give the user /dev/userfaultfd, or allow the call in the seccomp filter";
    if (error == -ENOSYS)
        return "the kernel has no userfaultfd";
    if (error == -EMFILE || error == -ENFILE)
        return "no file descriptor was left for userfaultfd";
    return "userfaultfd failed";
}

bool q_uffd_open(struct q_uffd *u)
{
    return q_uffd_open_for(u, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
                           Q_UFFD_WP_UNPOPULATED | UFFD_FEATURE_EVENT_REMAP);
}

bool q_uffd_open_for(struct q_uffd *u, uint64_t need, uint64_t like)
{
    struct uffdio_api api = {.api = UFFD_API};
    long fd = open_one(need);

    *u = (struct q_uffd){.fd = (int)fd};
    if (fd < 0) {
        u->fd = -1;
        return refused(u, why_not_open(fd));
    }
    /* A descriptor can be asked once only, so one asks and another is used. */
    if (ioctl3(u->fd, UFFDIO_API, &api) != 0)
        return refused(u, "the kernel speaks another userfaultfd");
    u->features = api.features;
    close_fd(u->fd);
    u->fd = -1;
    if ((u->features & UFFD_FEATURE_PAGEFAULT_FLAG_WP) == 0)
        return refused(u, "the kernel cannot write-protect by userfaultfd (Linux 5.7, x86-64; "
                          "6.10, arm64)");
    if ((u->features & need) != need)
        return refused(u, "the kernel's userfaultfd lacks what this needs (Linux 6.4)");
    fd = open_one(need);
    if (fd < 0)
        return refused(u, why_not_open(fd));
    u->fd = (int)fd;
    api = (struct uffdio_api){.api = UFFD_API, .features = need | (u->features & like)};
    if (ioctl3(u->fd, UFFDIO_API, &api) != 0)
        return refused(u, "userfaultfd refused its own features");
    return true;
}

bool q_uffd_ours(const struct q_uffd *u)
{
    /* Other kinds of files do not know the call (ENOTTY). */
    return u->fd >= 0 && q_uffd_wake(u, LOWEST, LOWEST) == 0;
}

void q_uffd_close(struct q_uffd *u)
{
    if (q_uffd_ours(u))
        close_fd(u->fd);
    u->fd = -1;
}

void q_uffd_set_blocking(int fd, bool on)
{
    q_arch_syscall6(SYS_fcntl, fd, F_SETFL, on ? 0 : O_NONBLOCK, 0, 0, 0);
}

long q_uffd_register(const struct q_uffd *u, uintptr_t start, size_t len, uint64_t mode)
{
    struct uffdio_register r = {.range = {start, len}, .mode = mode};

    return ioctl3(u->fd, UFFDIO_REGISTER, &r);
}

long q_uffd_unregister(const struct q_uffd *u, uintptr_t start, size_t len)
{
    struct uffdio_range r = {start, len};

    return ioctl3(u->fd, UFFDIO_UNREGISTER, &r);
}

/* Try again while an mremap() is going on (EAGAIN), but not for ever. */
static bool again(long ret, int *tries)
{
    struct timespec little = {.tv_nsec = 100000};

    if ((ret != -EAGAIN && ret != -EINTR) || ++*tries > TRIES)
        return false;
    if (*tries > TRIES_AT_ONCE)
        q_arch_syscall6(SYS_nanosleep, (long)&little, 0, 0, 0, 0, 0);
    return true;
}

long q_uffd_protect(const struct q_uffd *u, uintptr_t start, size_t len, bool on)
{
    struct uffdio_writeprotect w = {.range = {start, len},
                                    .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
    int tries = 0;
    long ret;

    do
        ret = ioctl3(u->fd, UFFDIO_WRITEPROTECT, &w);
    while (again(ret, &tries));
    return ret;
}

void q_uffd_open_up(const struct q_uffd *u, uintptr_t start, size_t len)
{
    long ret = q_uffd_protect(u, start, len, false);

    if (ret == 0)
        return;
    if (ret != -ENOENT || len <= q_page_size()) {
        q_uffd_wake(u, start, len); /* who still cannot go on asks again */
        return;
    }
    size_t half = q_align_up(len / 2, q_page_size());
    q_uffd_open_up(u, start, half);
    q_uffd_open_up(u, start + half, len - half);
}

long q_uffd_fill(const struct q_uffd *u, uintptr_t at, const void *src)
{
    struct uffdio_copy c = {.dst = at, .src = (uintptr_t)src, .len = q_page_size()};
    struct uffdio_zeropage z = {.range = {at, q_page_size()}};
    int tries = 0;
    long ret;

    do
        ret = src != NULL ? ioctl3(u->fd, UFFDIO_COPY, &c) : ioctl3(u->fd, UFFDIO_ZEROPAGE, &z);
    while (again(ret, &tries));
    return ret;
}

long q_uffd_wake(const struct q_uffd *u, uintptr_t at, size_t len)
{
    struct timespec ms = {.tv_nsec = 1000000};
    struct uffdio_range r = {at, len};
    long ret = ioctl3(u->fd, UFFDIO_WAKE, &r);

    /* Somebody waits for it, so whatever else may be in the way (a filter, a debugger) is waited for. */
    for (int i = 0; i < PATIENCE && ret != 0 && ret != -EINVAL && ret != -EBADF && ret != -ENOTTY;
         i++) {
        q_arch_syscall6(SYS_nanosleep, (long)&ms, 0, 0, 0, 0, 0);
        ret = ioctl3(u->fd, UFFDIO_WAKE, &r);
    }
    return ret;
}

void q_uffd_wake_all(const struct q_uffd *u)
{
    for (unsigned bits = 56; bits > 30; bits--)
        if (q_uffd_wake(u, LOWEST, ((size_t)1 << bits) - 2 * LOWEST) == 0)
            return; /* the first that is not above the end of the address space */
}

long q_uffd_continue(const struct q_uffd *u, uintptr_t at, size_t len, bool protect)
{
    struct uffdio_continue c = {.range = {at, len}, .mode = protect ? Q_UFFD_CONTINUE_WP : 0};
    long ret = -EAGAIN;

    for (int i = 0; i < TRIES_AT_ONCE && (ret == -EAGAIN || ret == -EINTR); i++) {
        ret = ioctl3(u->fd, UFFDIO_CONTINUE, &c);
        if (c.mapped > 0)
            return (long)c.mapped;
    }
    return ret;
}
