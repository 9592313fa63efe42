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

#include "base/arch_wide.h"

#endif
