/* cowd_map.c - cowd's mappings of the file, how it gets rid of them, and how it speaks. */
#include <fcntl.h>
#include <time.h>

#include "base/msg.h"
#include "cow/share.h"
#include "zone/memmap.h"

#define UNMAP_BYTES ((size_t)4 << 20) /* at once, so that nobody waits long for the address space */
#define MAX_LITTER 32
#define MAP_TRIES 100
#define MAP_PAUSE_NS 10000000

/* Mappings to get rid of, in pieces, while there is nothing else to do. */
static struct {
    char *at;
    size_t len;
} litter[MAX_LITTER];
static unsigned nr_litter;

char *q_cowd_map(uintptr_t start, size_t len, int flags)
{
    void *at = (flags & MAP_FIXED) != 0 ? (void *)start : NULL;
    long ret = q_mmap_file((void *)at, len, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE,
                           q_cowd.file, start - q_mem.base);

    if (q_sys_failed(ret))
        return NULL;
    /* Nobody inherits it shared. A child that ran no fork handler finds nothing there. */
    if ((flags & MAP_SHARED) != 0 && q_madvise((void *)ret, len, MADV_DONTFORK) != 0) {
        q_munmap((void *)ret, len);
        return NULL;
    }
    return (char *)ret;
}

bool q_cowd_map_private(uintptr_t start, size_t len)
{
    struct timespec pause = {.tv_nsec = MAP_PAUSE_NS};

    for (int i = 0; i < MAP_TRIES; i++) {
        if (q_cowd_map(start, len, MAP_PRIVATE | MAP_FIXED) != NULL)
            return true;
        q_arch_syscall6(SYS_nanosleep, (long)&pause, 0, 0, 0, 0, 0);
    }
    return false;
}

void q_cowd_say(const char *text)
{
    q_arch_syscall6(SYS_close, 2, 0, 0, 0, 0, 0);
    q_arch_syscall6(SYS_openat, AT_FDCWD, (long)"/proc/self/fd/2",
                    O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0, 0, 0);
    q_msg("fork:shared: %s", text);
}

void q_cowd_throw_away(char *at, size_t len)
{
    if (at == NULL || len == 0)
        return;
    if (nr_litter == MAX_LITTER) {
        q_munmap(litter[0].at, litter[0].len);
        litter[0] = litter[--nr_litter];
    }
    litter[nr_litter].at = at;
    litter[nr_litter++].len = len;
}

bool q_cowd_any_litter(void)
{
    return nr_litter > 0;
}

void q_cowd_unmap_a_little(void)
{
    size_t len = q_min(litter[0].len, UNMAP_BYTES);

    q_munmap(litter[0].at, len);
    litter[0].at += len;
    litter[0].len -= len;
    if (litter[0].len == 0)
        litter[0] = litter[--nr_litter];
}
