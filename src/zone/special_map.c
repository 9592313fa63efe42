/*
 * special_map.c - the special zones whose pages have addresses: DMA32, DMA.
 *
 * DMA32 looks for room from 4 GiB downwards, a section at a time, without
 * replacing what is there:
 *
 *   0  min_addr   program, brk ->                     <- sections   4 GiB
 *   |--|----------[######]------------------[##]------[S2][S1][S0]|
 *
 * from the top, because a program linked to a fixed address lies at the
 * bottom and its brk grows upwards. (A compiler's MAP_32BIT takes what lies
 * below 2 GiB, and finds ours in its way last.)
 *
 * DMA locks what is given out, page by page, so that RLIMIT_MEMLOCK counts
 * what is in use and nothing else.
 */
#include "zone/special.h"

#include <errno.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define LOW_END ((uintptr_t)(1ull << 32))
#define KEEP_BYTES ((size_t)1 << 20)

static void *address_of(const struct q_section *s, size_t first)
{
    return (void *)(s->addr + (first << q_page_shift));
}

static void settle(void *at)
{
    if (q_mem.thp_always)
        q_madvise(at, q_max_block_size(), MADV_NOHUGEPAGE);
}

static int grow_anywhere(struct q_special_zone *zone, struct q_section *s)
{
    size_t len = q_max_block_size();
    char *at = q_reserve(len, len);

    if (at == NULL)
        return -ENOMEM;
    if (q_mprotect(at, len, PROT_READ | PROT_WRITE) != 0) {
        q_munmap(at, len);
        return -ENOMEM;
    }
    settle(at);
    s->addr = (uintptr_t)at;
    return 0;
}

/* Map a section that ends at most at zone->cursor. */
static int grow_low(struct q_special_zone *zone, struct q_section *s)
{
    size_t len = q_max_block_size();
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;

    if (!Q_WIDE_LONG)
        return grow_anywhere(zone, s); /* there are no other addresses */
    if (zone->cursor < 2 * len)
        zone->cursor = LOW_END; /* from the top again: something may have gone since */
    while (zone->cursor >= 2 * len) {
        uintptr_t at = zone->cursor - len;
        long ret = q_mmap_file((void *)at, len, PROT_READ | PROT_WRITE, flags, -1, 0);

        if (ret == (long)at) {
            zone->cursor = s->addr = at;
            settle((void *)at);
            return 0;
        }
        if (ret == -EPERM)
            break; /* below vm.mmap_min_addr */
        if (q_sys_failed(ret) && ret != -EEXIST)
            return -ENOMEM; /* no room at all, or a limit; not this address's fault */
        if (!q_sys_failed(ret))
            q_munmap((void *)ret, len); /* an emulator that took the address as a hint */
        zone->cursor = at;
    }
    zone->cursor = 0;
    return -ENOMEM;
}

static bool clean(const struct q_section *s, size_t first, size_t nr)
{
    return q_madvise(address_of(s, first), nr << q_page_shift, MADV_DONTNEED) == 0;
}

/* Lock: populated, and never swapped. */
static int lock_pages(const struct q_section *s, size_t first, size_t nr)
{
    long ret = q_arch_syscall6(SYS_mlock, (long)address_of(s, first), (long)(nr << q_page_shift), 0,
                               0, 0, 0);

    /* EPERM is a limit of 0, EAGAIN memory that could not be had just now. */
    return ret == -EAGAIN ? -ENOMEM : (int)ret;
}

static bool unlock_and_clean(const struct q_section *s, size_t first, size_t nr)
{
    q_arch_syscall6(SYS_munlock, (long)address_of(s, first), (long)(nr << q_page_shift), 0, 0, 0,
                    0);
    return clean(s, first, nr);
}

const struct q_special_ops q_dma32_ops = {
    .name = "DMA32",
    .grow = grow_low,
    .clean = clean,
    .keep_bytes = KEEP_BYTES,
};

const struct q_special_ops q_dma_ops = {
    .name = "DMA",
    .grow = grow_anywhere,
    .ready = lock_pages,
    .clean = unlock_and_clean,
};
