/*
 * arch.h - the only place that knows which processor this is.
 *
 * Each architecture gives: q_arch_syscall6(), q_thread_pointer() (a value
 * that differs between any two live threads and costs one instruction) and
 * q_cpu_relax().
 */
#ifndef Q_BASE_ARCH_H
#define Q_BASE_ARCH_H

#include "base/types.h"

/* What assembler writes to memory clang's analyzer does not see; of a function of libc's it knows. */
#if defined(__clang_analyzer__)
#include "base/arch_generic.h"
#elif defined(__x86_64__)
#include "base/arch_x86_64.h"
#elif defined(__aarch64__)
#include "base/arch_aarch64.h"
#else
#include "base/arch_generic.h"
#endif

#endif
