/* arch_i386.h - see arch.h. A 32-bit process, on a 32-bit kernel or a 64-bit one. */
#ifndef Q_BASE_ARCH_I386_H
#define Q_BASE_ARCH_I386_H

/*
 * The sixth argument goes into the register that holds the frame, where there
 * is one, so the compiler cannot be asked to put it there.
 */
Q_INLINE long q_arch_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    long ret;

    __asm__ volatile("pushl %[sixth]\n\t"
                     "pushl %%ebp\n\t"
                     "movl 4(%%esp), %%ebp\n\t"
                     "int $0x80\n\t"
                     "popl %%ebp\n\t"
                     "addl $4, %%esp"
                     : "=a"(ret)
                     : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [sixth] "g"(f)
                     : "memory", "cc");
    return ret;
}

/* The word at %gs:0 holds the thread pointer itself, as the psABI has it. */
Q_INLINE uintptr_t q_thread_pointer(void)
{
    return *(uintptr_t __seg_gs *)0;
}

Q_INLINE void *q_arch_not_returned(void *p)
{
    return p;
}

Q_INLINE void q_cpu_relax(void)
{
    __builtin_ia32_pause();
}

/* Calls with offsets in files have other names here. */
enum { Q_SYS_MMAP = SYS_mmap2, Q_SYS_FTRUNCATE = SYS_ftruncate64, Q_SYS_FSTATAT = SYS_fstatat64 };

#define Q_MMAP_UNIT 4096u /* bytes, of Q_SYS_MMAP's offset */

Q_INLINE int64_t q_arch_tell(int fd)
{
    int64_t at = 0;
    long ret = q_arch_syscall6(SYS__llseek, fd, 0, 0, (long)&at, 1 /* SEEK_CUR */, 0);

    return ret < 0 ? ret : at;
}

#endif
