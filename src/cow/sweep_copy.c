/* sweep_copy.c - see sweep.h: what cannot be moved home, page by page; what sweep.c has no room for. */
#include <string.h>

#include "cow/cow.h"

#define SPARE 64u /* pages, each a mapping */

static char *spare;

/*
 * Moving pieces takes a few mappings more than there were, and a process that
 * has used up its number (vm.max_map_count) must get its memory back all the
 * same. So some are held ready: pages that cannot be one mapping.
 */
bool q_sweep_hold_spare(void)
{
    size_t page = q_page_size();

    if (spare == NULL)
        spare = q_mmap(NULL, SPARE * page, PROT_NONE, MAP_NORESERVE);
    bool ok = spare != NULL;
    for (size_t i = 0; ok && i < SPARE; i += 2)
        ok = q_mprotect(spare + i * page, page, PROT_READ) == 0;
    return ok;
}

void q_sweep_release_spare(void)
{
    if (spare != NULL) /* one mapping again */
        q_mprotect(spare, SPARE * q_page_size(), PROT_NONE);
}

/*
 * The kernel counts mappings before it waits for its lock, unmaps the target
 * of mremap(), and counts again. Where other threads have used up the last
 * ones meanwhile it fails, and leaves a hole. Nothing may be found there but
 * by asking: so it cannot be read before it is registered.
 */
void q_sweep_close_hole(uintptr_t at, size_t len)
{
    void *to = (void *)at;

    /* Does nothing to such memory, but says whether all of it is mapped. */
    if (q_arch_syscall6(SYS_msync, (long)at, (long)len, MS_ASYNC, 0, 0, 0) == 0)
        return;
    void *map = q_mmap(to, len, PROT_NONE, MAP_NORESERVE | MAP_FIXED_NOREPLACE);
    if (map == to &&
        q_uffd_register(&q_cow.uffd, at, len,
                        UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP) == 0 &&
        q_mprotect(to, len, PROT_READ | PROT_WRITE) == 0)
        return;
    if (map != NULL)
        q_munmap(map, len);
}

bool q_sweep_copy(uintptr_t from, uintptr_t at, size_t len)
{
    static char page[1 << 16] __attribute__((aligned(64))); /* the sweeper's; then the keeper's */

    for (size_t off = 0; off < len; off += q_page_size()) {
        if (!q_copy_carefully(page, (const void *)(from + off), q_page_size()))
            return false;
        bool zero = page[0] == 0 && memcmp(page, page + 1, q_page_size() - 1) == 0;
        long ret = q_uffd_fill(&q_cow.uffd, at + off, zero ? NULL : page);
        if (ret != 0 && ret != -EEXIST) /* there already: from the last time that this was tried */
            return false;
    }
    if (q_munmap((void *)from, len) != 0) /* in the middle of a mapping: that would make two */
        q_madvise((void *)from, len, MADV_DONTNEED);
    return true;
}

bool q_sweep_protect_for(const struct q_ranges *g, uintptr_t from, uintptr_t to, uintptr_t distance)
{
    for (size_t i = q_ranges_after(g, from); i < g->nr && g->at[i].start < to; i++) {
        uintptr_t lo = q_max(from, g->at[i].start), hi = q_min(to, g->at[i].end);

        if (q_uffd_protect(&q_cow.uffd, lo + distance, hi - lo, true) != 0)
            return false;
    }
    return true;
}
