/* sort.c - heapsort, since qsort() may allocate; mostly all is in order already. */
#include <string.h>

#include "cow/range.h"

#define SIZE_MAX_ENTRY 64u

static uint64_t start_of(const char *a, size_t i, size_t size)
{
    uint64_t start;

    memcpy(&start, a + i * size, sizeof(start));
    return start;
}

static void swap(char *a, size_t i, size_t k, size_t size)
{
    char t[SIZE_MAX_ENTRY];

    memcpy(t, a + i * size, size);
    memcpy(a + i * size, a + k * size, size);
    memcpy(a + k * size, t, size);
}

static void sift(char *a, size_t at, size_t nr, size_t size)
{
    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= nr)
            return;
        if (child + 1 < nr && start_of(a, child + 1, size) > start_of(a, child, size))
            child++;
        if (start_of(a, at, size) >= start_of(a, child, size))
            return;
        swap(a, at, child, size);
        at = child;
    }
}

void q_sort_by_start(void *at, size_t nr, size_t size)
{
    bool sorted = true;

    for (size_t i = 1; i < nr; i++)
        sorted &= start_of(at, i - 1, size) < start_of(at, i, size);
    if (sorted)
        return;
    for (size_t i = nr / 2; i-- > 0;)
        sift(at, i, nr, size);
    for (size_t n = nr; n-- > 1;) {
        swap(at, 0, n, size);
        sift(at, 0, n, size);
    }
}
