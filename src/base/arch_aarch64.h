/* arch_aarch64.h - see arch.h. */
#ifndef Q_BASE_ARCH_AARCH64_H
#define Q_BASE_ARCH_AARCH64_H

Q_INLINE long q_arch_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory", "cc");
    return x0;
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
    __asm__ volatile("yield" ::: "memory");
}

#include "base/arch_wide.h"

#endif
