/* arch_x86_64.h - see arch.h. */
#ifndef Q_BASE_ARCH_X86_64_H
#define Q_BASE_ARCH_X86_64_H

Q_INLINE long q_arch_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

/*
 * The psABI has the word at %fs:0 hold the thread pointer itself. Reading it
 * through the segment address space lets the compiler use it as an operand.
 */
Q_INLINE uintptr_t q_thread_pointer(void)
{
    return *(uintptr_t __seg_fs *)0;
}

/*
 * p itself, kept out of the register that returns results: spares the
 * copy that GCC makes at the end of malloc otherwise.
 */
Q_INLINE void *q_arch_not_returned(void *p)
{
    __asm__("" : "+d"(p));
    return p;
}

Q_INLINE void q_cpu_relax(void)
{
    __builtin_ia32_pause();
}

#include "base/arch_wide.h"

#endif
