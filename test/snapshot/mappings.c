/*
 * mappings.c - where the process has no mapping left (vm.max_map_count), or
 * the heap's own are split: a clear error at worst, never a wrong byte.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "steps.h"

enum { PAGE = 4096, BYTES = 1 << 20 };

/* One page in two of a large mapping is made read-only, until the kernel has no room for another. */
static size_t use_up_mappings(char *map, size_t pages)
{
    size_t at = 0;

    while (at < pages && mprotect(map + at * PAGE, PAGE, PROT_READ) == 0)
        at += 2;
    return at;
}

static void use_mappings_up(unsigned flags)
{
    enum { MANY = 1 << 18 };
    char *map = outside((size_t)MANY * PAGE), *p = malloc(BYTES), c;
    size_t end = use_up_mappings(map, MANY), taken = 0;

    if (end >= MANY)
        conform_skip("vm.max_map_count is above %d", MANY / 2);
    memset(p, 1, BYTES);
    for (size_t spare = 0; spare < 24; spare++) {
        errno = 0;
        quire_snapshot_t *s = quire_snapshot_take(NULL, flags);
        CHECK(s != NULL || errno == ENOMEM || errno == EAGAIN, "%zu spare: errno %d", spare, errno);
        memset(p, (int)spare + 2, BYTES);
        if (s != NULL) {
            ptrdiff_t distance;
            bool ok = quire_snapshot_read(s, p + 7 * PAGE, &c, 1) == 1;
            CHECK(ok ? c == (char)(spare + 1) : errno == EIO, "%d, errno %d", c, errno);
            if (ok && quire_snapshot_view(s, &distance) == 0)
                CHECK(p[distance + 9 * PAGE] == (char)(spare + 1));
            CHECK(quire_snapshot_release(s) == 0);
            taken++;
        }
        free(malloc(100));
        char *large = malloc(9u << 20);
        if (large != NULL)
            memset(large, 1, 9u << 20);
        free(large);
        end -= 2; /* room for one or two more */
        mprotect(map + end * PAGE, PAGE, PROT_READ | PROT_WRITE);
    }
    CHECK(taken > 0, "never was there enough");
}

static void mappings_used_up(void)
{
    use_mappings_up(0);
}

static void mappings_used_up_lazily(void)
{
    many_blocks();
    use_mappings_up(QUIRE_SNAPSHOT_LAZY);
}

/* What is left of the process's mappings is used up while the sweep is under way, and stays so. */
static char *hungry_map;
static _Atomic size_t hungry_at;
static _Atomic bool fed;

/*
 * Not as fast as it can: between its looks at the number of mappings mremap() would wait for this
 * thread, and leave a hole where the heap was (doc/cow.md).
 */
static void *hungry(void *arg)
{
    while (!fed) {
        if (mprotect(hungry_map + hungry_at * PAGE, PAGE, PROT_READ) == 0)
            hungry_at += 2;
        usleep(20);
    }
    return arg;
}

static void mappings_used_up_meanwhile(void)
{
    enum { MANY = 1 << 18, ROOM = 60 };
    char **block = many_blocks(), c;
    pthread_t thread;

    hungry_map = outside((size_t)MANY * PAGE);
    quire_snapshot_release(take_protected());
    hungry_at = use_up_mappings(hungry_map, MANY);
    if (hungry_at >= MANY)
        conform_skip("vm.max_map_count is above %d", MANY / 2);
    size_t end = hungry_at;
    for (int round = 0; round < 6; round++) {
        for (; hungry_at > end - 2 * ROOM; hungry_at -= 2)
            mprotect(hungry_map + (hungry_at - 2) * PAGE, PAGE, PROT_READ | PROT_WRITE);
        fed = false;
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
        REQUIRE(pthread_create(&thread, NULL, hungry, NULL) == 0);
        for (int i = 0; i < MANY_BLOCKS; i++) {
            block[i][50000] = (char)(i + 1);
            CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 ? c == (char)i
                                                                       : errno == EIO);
        }
        CHECK(quire_snapshot_release(s) == 0);
        check_many_blocks(block);
        fed = true;
        pthread_join(thread, NULL);
        for (; hungry_at > end / 2; hungry_at -= 2)
            mprotect(hungry_map + (hungry_at - 2) * PAGE, PAGE, PROT_READ | PROT_WRITE);
        /* And with room again all is as ever. */
        s = take_protected();
        for (int i = 0; i < MANY_BLOCKS; i++) {
            block[i][50000] = (char)i;
            CHECK(quire_snapshot_read(s, block[i] + 50000, &c, 1) == 1 && c == (char)(i + 1));
        }
        CHECK(quire_snapshot_release(s) == 0);
        hungry_at += use_up_mappings(hungry_map + hungry_at * PAGE, MANY - hungry_at);
    }
}

/*
 * The program splits the heap's mapping: the part before a read-only one is not moved aside, as it
 * does not end where a piece does, and is protected all the same.
 */
static void split_mapping_lazily(void)
{
    enum { SPLIT_BYTES = 4 << 20, READ_ONLY = 512 << 10 };
    char *block[12], c;
    int bad = 0;

    for (size_t i = 0; i < COUNT_OF(block); i++) {
        block[i] = malloc(SPLIT_BYTES - 4096);
        REQUIRE(block[i] != NULL);
        memset(block[i], 1, SPLIT_BYTES - 4096);
    }
    quire_snapshot_release(take_protected());
    for (size_t i = 0; i < COUNT_OF(block); i++) {
        /* A border of pieces, with 2 MiB of the block before it. */
        char *border =
            (char *)(((uintptr_t)block[i] + SPLIT_BYTES - 4096) & ~(((uintptr_t)2 << 20) - 1));
        char *from = border - ((size_t)2 << 20);
        if (from < block[i])
            from = block[i];
        REQUIRE(mprotect(border - READ_ONLY, READ_ONLY, PROT_READ) == 0);
        quire_snapshot_t *s = take(QUIRE_SNAPSHOT_LAZY);
        REQUIRE(mprotect(border - READ_ONLY, READ_ONLY, PROT_READ | PROT_WRITE) == 0);
        for (char *p = from; p < border; p += 4096) {
            p[100] = 2;
            bad += quire_snapshot_read(s, p + 100, &c, 1) != 1 || c != 1;
        }
        CHECK(quire_snapshot_release(s) == 0);
    }
    CHECK(bad == 0, "%d pages differ", bad);
}

static const struct conform_case cases[] = {
    {"mappings used up", mappings_used_up, 120},
    {"mappings used up, lazily", mappings_used_up_lazily, 120},
    {"mappings used up meanwhile", mappings_used_up_meanwhile, 120},
    {"a split mapping, lazily", split_mapping_lazily, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
