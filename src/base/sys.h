/*
 * sys.h - raw system calls.
 *
 * Results are the kernel's own: >= 0 or a negative error number. errno is
 * never touched, no libc code runs, so all of this works before libc is
 * initialised and inside signal handlers.
 */
#ifndef Q_BASE_SYS_H
#define Q_BASE_SYS_H

#include <sys/mman.h>

#include "base/arch.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

Q_INLINE bool q_sys_failed(long ret)
{
    return (unsigned long)ret > -4096ul;
}

/* mmap(2) of a file, or of anything; offset in bytes. */
Q_INLINE long q_mmap_file(void *at, size_t len, int prot, int flags, int fd, uint64_t offset)
{
    return q_arch_syscall6(Q_SYS_MMAP, (long)at, (long)len, prot, flags, fd,
                           (long)(offset / Q_MMAP_UNIT));
}

/* Map anonymous private memory. Returns the address or NULL. */
Q_INLINE void *q_mmap(void *hint, size_t len, int prot, int extra_flags)
{
    long ret = q_mmap_file(hint, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | extra_flags, -1, 0);

    return q_sys_failed(ret) ? NULL : (void *)ret;
}

Q_INLINE long q_munmap(void *addr, size_t len)
{
    return q_arch_syscall6(SYS_munmap, (long)addr, (long)len, 0, 0, 0, 0);
}

Q_INLINE long q_mprotect(void *addr, size_t len, int prot)
{
    return q_arch_syscall6(SYS_mprotect, (long)addr, (long)len, prot, 0, 0, 0);
}

Q_INLINE long q_madvise(void *addr, size_t len, int advice)
{
    return q_arch_syscall6(SYS_madvise, (long)addr, (long)len, advice, 0, 0, 0);
}

/* Grow, shrink or move a mapping. Returns the new address or NULL. */
Q_INLINE void *q_mremap(void *addr, size_t old_len, size_t new_len, int flags)
{
    long ret = q_arch_syscall6(SYS_mremap, (long)addr, (long)old_len, (long)new_len, flags, 0, 0);
    return q_sys_failed(ret) ? NULL : (void *)ret;
}

Q_INLINE long q_futex(_Atomic uint32_t *word, int op, uint32_t val)
{
    return q_arch_syscall6(SYS_futex, (long)word, op, (long)val, 0, 0, 0);
}

/*
 * Calls that take offsets and lengths in files: one argument in a 64-bit
 * process, two in a 32-bit one, the lower half first.
 */
#define Q_WIDE_LONG (sizeof(long) == sizeof(uint64_t))
#define Q_UPPER_HALF(n) ((long)((uint64_t)(n) >> 32))

Q_INLINE long q_pread(int fd, void *buf, size_t len, uint64_t at)
{
    return q_arch_syscall6(SYS_pread64, fd, (long)buf, (long)len, (long)at,
                           Q_WIDE_LONG ? 0 : Q_UPPER_HALF(at), 0);
}

Q_INLINE long q_pwrite(int fd, const void *buf, size_t len, uint64_t at)
{
    return q_arch_syscall6(SYS_pwrite64, fd, (long)buf, (long)len, (long)at,
                           Q_WIDE_LONG ? 0 : Q_UPPER_HALF(at), 0);
}

Q_INLINE long q_ftruncate(int fd, uint64_t size)
{
    return q_arch_syscall6(Q_SYS_FTRUNCATE, fd, (long)size, Q_WIDE_LONG ? 0 : Q_UPPER_HALF(size), 0,
                           0, 0);
}

Q_INLINE long q_fallocate(int fd, int mode, uint64_t at, uint64_t len)
{
    return Q_WIDE_LONG ? q_arch_syscall6(SYS_fallocate, fd, mode, (long)at, (long)len, 0, 0)
                       : q_arch_syscall6(SYS_fallocate, fd, mode, (long)at, Q_UPPER_HALF(at),
                                         (long)len, Q_UPPER_HALF(len));
}

struct stat;
Q_INLINE long q_fstatat(int fd, const char *path, struct stat *st, int flags)
{
    return q_arch_syscall6(Q_SYS_FSTATAT, fd, (long)path, (long)st, flags, 0, 0);
}

Q_INLINE int q_getpid(void)
{
    return (int)q_arch_syscall6(SYS_getpid, 0, 0, 0, 0, 0, 0);
}

/* Read a small file whole into buf (always terminated). Returns its length or a negative errno. */
long q_read_file(const char *path, char *buf, size_t size);

/* Write all of buf to a descriptor, however often the kernel interrupts it. */
void q_write_all(int fd, const char *buf, size_t len);

/*
 * Nanoseconds of a monotonic clock. The coarse one is a system call, ticks
 * every 1 to 4 ms, and bounds every wait. For those who ask all the time there
 * is the same without a system call, from libc (the vDSO) once it was asked a
 * few times: every program asks a few times, and libc's way touches pages of
 * libc that few others do. The fine one is libc's, for measuring. A program
 * may have its own clock_gettime(): these two are for policy and figures.
 */
uint64_t q_clock_coarse(void);
uint64_t q_clock_often(void);
uint64_t q_clock_fine(void);

/* Set up the page size; safe to call again. */
void q_base_init(void);

/*
 * No huge pages for the library's own data, of which most is never used: where
 * the kernel uses them always, 2 MiB or 4 would be resident in each program.
 * Before anything of it is written. Not where the data lie among a program's own that are large.
 */
void q_base_small_data(void);

#endif
