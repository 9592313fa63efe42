/* arch_generic.h - see arch.h. Any 64-bit Linux that libc knows. */
#ifndef Q_BASE_ARCH_GENERIC_H
#define Q_BASE_ARCH_GENERIC_H

#include <errno.h>
#include <unistd.h>

Q_INLINE long q_arch_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    int saved = errno;
    long ret = syscall(nr, a, b, c, d, e, f);

    if (ret == -1)
        ret = -errno;
    errno = saved;
    return ret;
}

Q_INLINE uintptr_t q_thread_pointer(void)
{
    return (uintptr_t)__builtin_thread_pointer();
}

/*
 * p itself, kept out of the register that returns results: spares the
 * copy that GCC makes at the end of malloc otherwise.
 */
Q_INLINE void *q_arch_not_returned(void *p)
{
    return p;
}

Q_INLINE void q_cpu_relax(void)
{
    __asm__ volatile("" ::: "memory");
}

enum { Q_SYS_MMAP = SYS_mmap, Q_SYS_FTRUNCATE = SYS_ftruncate, Q_SYS_FSTATAT = SYS_newfstatat };

#define Q_MMAP_UNIT 1u

Q_INLINE int64_t q_arch_tell(int fd)
{
    return q_arch_syscall6(SYS_lseek, fd, 0, 1 /* SEEK_CUR */, 0, 0, 0);
}

#endif
