/* arch_wide.h - see arch.h. Calls with offsets in files, where one argument holds an offset. */
#ifndef Q_BASE_ARCH_WIDE_H
#define Q_BASE_ARCH_WIDE_H

enum { Q_SYS_MMAP = SYS_mmap, Q_SYS_FTRUNCATE = SYS_ftruncate, Q_SYS_FSTATAT = SYS_newfstatat };

#define Q_MMAP_UNIT 1u

Q_INLINE int64_t q_arch_tell(int fd)
{
    return q_arch_syscall6(SYS_lseek, fd, 0, 1 /* SEEK_CUR */, 0, 0, 0);
}

#endif
