/* sys.c - see sys.h. */
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <time.h>

unsigned q_page_shift = 12;

#define OWN_DATA ((size_t)8 << 20)
#define CALLS_BY_KERNEL 64u /* at a start and a while after */

void q_base_init(void)
{
    unsigned long size = getauxval(AT_PAGESZ);

    if (size >= 4096 && size <= Q_SLAB_SIZE)
        q_page_shift = q_fls(size);
}

/* Of the linker: what is zero at the beginning, by all files together. */
extern char __bss_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));

void q_base_small_data(void)
{
    size_t page = getauxval(AT_PAGESZ);
    uintptr_t from = q_align_up((uintptr_t)__bss_start, page),
              to = q_align_up((uintptr_t)_end, page);

    if (to > from && to - from <= OWN_DATA)
        q_madvise((void *)from, to - from, MADV_NOHUGEPAGE);
}

long q_read_file(const char *path, char *buf, size_t size)
{
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    size_t got = 0;

    buf[0] = '\0';
    if (fd < 0)
        return fd;
    while (got < size - 1) {
        long n = q_arch_syscall6(SYS_read, fd, (long)(buf + got), (long)(size - 1 - got), 0, 0, 0);
        if (n == -4) /* EINTR */
            continue;
        if (n <= 0)
            break;
        got += (size_t)n;
    }
    buf[got] = '\0';
    q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    return (long)got;
}

void q_write_all(int fd, const char *buf, size_t len)
{
    while (len > 0) {
        long n = q_arch_syscall6(SYS_write, fd, (long)buf, (long)len, 0, 0, 0);
        if (n == -4) /* EINTR */
            continue;
        if (n <= 0)
            return;
        buf += n;
        len -= (size_t)n;
    }
}

static uint64_t nanoseconds(const struct timespec *ts)
{
    return (uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec;
}

uint64_t q_clock_coarse(void)
{
    struct timespec ts = {0, 0};

    q_arch_syscall6(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, (long)&ts, 0, 0, 0, 0);
    return nanoseconds(&ts);
}

uint64_t q_clock_often(void)
{
    static unsigned calls; /* relaxed: a hint */
    unsigned nr = __atomic_load_n(&calls, __ATOMIC_RELAXED);
    struct timespec ts = {0, 0};
    int saved = errno;

    if (nr < CALLS_BY_KERNEL) {
        __atomic_store_n(&calls, nr + 1, __ATOMIC_RELAXED);
        return q_clock_coarse();
    }
    if (clock_gettime(CLOCK_MONOTONIC_COARSE, &ts) != 0)
        errno = saved;
    return nanoseconds(&ts);
}

uint64_t q_clock_fine(void)
{
    struct timespec ts = {0, 0};

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return nanoseconds(&ts);
}
