/* sweep_copy.c - see sweep.h: what cannot be moved home, page by page. */
#include <string.h>

#include "cow/cow.h"

bool q_sweep_copy(uintptr_t from, uintptr_t at, size_t len)
{
    static char page[1 << 16] __attribute__((aligned(64))); /* the sweeper's */

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
