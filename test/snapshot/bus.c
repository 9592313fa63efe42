/* bus.c - see bus.h. */
#include "bus.h"

#include <stdbool.h>
#include <sys/mman.h>

struct quire_heap *heap;
char *block;

bool in_force(struct quire_heap *h)
{
    struct quire_heap_stat st;

    quire_heap_stat(h, &st);
    return st.sigbus != 0;
}

struct quire_heap *make_heap(void)
{
    struct quire_heap *h = quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SIGBUS});

    REQUIRE(h != NULL, "errno %d", errno);
    if (!in_force(h))
        conform_skip("no SIGBUS mode here");
    return h;
}

void setup(void)
{
    heap = make_heap();
    block = quire_heap_aligned(heap, PAGE, SIZE);
    REQUIRE(block != NULL);
    memset(block, 1, SIZE);
}

quire_snapshot_t *take_heap(struct quire_heap *h)
{
    quire_snapshot_t *s = quire_snapshot_take(h, 0);

    REQUIRE(s != NULL, "errno %d", errno);
    CHECK(method(s) == QUIRE_SNAPSHOT_BY_PROTECTION);
    return s;
}

bool shows(const quire_snapshot_t *s, const char *p, size_t size, char c)
{
    char *copy = outside(size);
    bool ok = quire_snapshot_read(s, p, copy, size) == (ssize_t)size;

    for (size_t i = 0; ok && i < size; i++)
        ok = copy[i] == c;
    munmap(copy, size);
    return ok;
}

void writes_are_saved(void)
{
    quire_snapshot_t *s = take_heap(heap);

    memset(block, 2, SIZE);
    CHECK(shows(s, block, SIZE, 1));
    memset(block, 1, SIZE);
    quire_snapshot_release(s);
}
