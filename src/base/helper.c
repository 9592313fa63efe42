/* helper.c - see helper.h. */
#include "base/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/sys.h"

#define MAX_HELPERS 16u /* eight handlers, the sweeper, the keeper, cowd, kswapd */

/* Process and thread; 0: none. In a child of fork, which has none of them, the process is another. */
static _Atomic uint64_t helper[MAX_HELPERS];

static uint64_t self(void)
{
    return (uint64_t)q_getpid() << 32 |
           (uint64_t)(uint32_t)q_arch_syscall6(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

/* Relaxed throughout: numbers, each by itself. */
void q_helper_begin(void)
{
    uint64_t me = self();

    for (unsigned i = 0; i < MAX_HELPERS; i++) {
        uint64_t was = atomic_load_explicit(&helper[i], memory_order_relaxed);

        if (was >> 32 != me >> 32 &&
            atomic_compare_exchange_strong_explicit(&helper[i], &was, me, memory_order_relaxed,
                                                    memory_order_relaxed))
            return;
    }
}

void q_helper_end(void)
{
    uint64_t me = self();

    for (unsigned i = 0; i < MAX_HELPERS; i++) {
        uint64_t was = me;

        atomic_compare_exchange_strong_explicit(&helper[i], &was, 0, memory_order_relaxed,
                                                memory_order_relaxed);
    }
}

bool q_helper_is_gone(int tid)
{
    return q_arch_syscall6(SYS_tgkill, q_getpid(), tid, 0, 0, 0, 0) == -ESRCH;
}

/* Those that are there. One that was killed (a seccomp filter) is forgotten before its number is used again. */
static unsigned count_helpers(void)
{
    uint64_t pid = (uint64_t)q_getpid();
    unsigned nr = 0;

    for (unsigned i = 0; i < MAX_HELPERS; i++) {
        uint64_t is = atomic_load_explicit(&helper[i], memory_order_relaxed);

        if (is >> 32 != pid)
            continue;
        if (!q_helper_is_gone((int)(uint32_t)is))
            nr++;
        else
            atomic_compare_exchange_strong_explicit(&helper[i], &is, 0, memory_order_relaxed,
                                                    memory_order_relaxed);
    }
    return nr;
}

unsigned q_count_threads(void)
{
    struct stat st = {0};

    if (q_fstatat(AT_FDCWD, "/proc/self/task", &st, 0) != 0)
        return 0;
    return (unsigned)st.st_nlink - 2;
}

/* An ended main thread, which stays while there are others, has no program file any more. */
bool q_program_is_gone(void)
{
    unsigned ours = count_helpers();
    char c;

    return q_count_threads() == ours + 1 &&
           q_arch_syscall6(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)&c, 1, 0, 0) ==
               -ENOENT;
}

void q_program_end(void)
{
    static _Atomic bool ended;
    sigset_t none;

    if (atomic_exchange_explicit(&ended, true, memory_order_relaxed))
        return; /* another of ours does it */
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    exit(0);
}
