/*
 * arch.h - the only place that knows which processor this is.
 *
 * Each architecture gives: q_arch_syscall6(), q_thread_pointer() (a value
 * that differs between any two live threads and costs one instruction),
 * q_arch_not_returned(), q_cpu_relax(); and for offsets in files Q_SYS_MMAP
 * (whose offset counts units of Q_MMAP_UNIT bytes), Q_SYS_FTRUNCATE,
 * Q_SYS_FSTATAT, and q_arch_tell(): where the next read or write of fd will
 * be, or a negative error number.
 */
#ifndef Q_BASE_ARCH_H
#define Q_BASE_ARCH_H

#include <sys/syscall.h>

#include "base/types.h"

/* What assembler writes to memory clang's analyzer does not see; of a function of libc's it knows. */
#if defined(__clang_analyzer__)
#include "base/arch_generic.h"
#elif defined(__x86_64__)
#include "base/arch_x86_64.h"
#elif defined(__aarch64__)
#include "base/arch_aarch64.h"
#elif defined(__i386__)
#include "base/arch_i386.h"
#else
#include "base/arch_generic.h"
#endif

#endif
