/*
 * sigbus_memory.c - heaps whose writers save pages themselves (QUIRE_HEAP_SIGBUS): memory that
 * comes to them and leaves them, by free, by going back, and by fork.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "bus.h"

/* Freed memory is malloc's again, and system calls write to it. */
static void given_back(void)
{
    struct quire_heap *h = make_heap();
    char *p[100], *q[100];
    int zero = open("/dev/zero", O_RDONLY);

    quire_snapshot_release(take_protected());
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 100; i++) {
            p[i] = quire_heap_alloc(h, i % 10 == 0 ? 7u << 20 : 700000);
            memset(p[i], 5, 700000);
        }
        quire_snapshot_t *s = round == 1 ? take_protected() : take_heap(h);
        for (int i = 0; i < 100; i++)
            quire_heap_free(h, p[i]);
        quire_trim(0);
        for (int i = 0; i < 100; i++) {
            q[i] = malloc(i % 10 == 0 ? 7u << 20 : 700000);
            CHECK(read(zero, q[i], 700000) == 700000, "errno %d", errno);
        }
        for (int i = 0; i < 100; i++)
            CHECK(shows(s, p[i], 700000, 5), "block %d", i);
        quire_snapshot_release(s);
        for (int i = 0; i < 100; i++)
            free(q[i]);
    }
    quire_heap_destroy(h);
}

static void blocks_of_all_sizes(void)
{
    static struct {
        unsigned char *at;
        size_t size;
        unsigned seed;
    } b[300];
    struct quire_heap *h = make_heap();
    uint64_t rng = 11;
    quire_snapshot_t *s = NULL;

    for (int i = 0; i < 20000; i++) {
        size_t k = conform_random(&rng) % COUNT_OF(b), size = 1 + conform_random(&rng) % 9000;

        size <<= conform_random(&rng) % 10 == 0 ? conform_random(&rng) % 10 : 0;
        if (b[k].at != NULL && conform_random(&rng) % 3 == 0) {
            size_t both = size < b[k].size ? size : b[k].size;
            (void)both;
            CHECK(conform_intact(b[k].at, b[k].size, b[k].seed), "block of %zu", b[k].size);
            b[k].at = quire_heap_realloc(h, b[k].at, size);
        } else {
            CHECK(b[k].at == NULL || conform_intact(b[k].at, b[k].size, b[k].seed));
            quire_heap_free(h, b[k].at);
            b[k].at = i % 5 == 0 ? quire_heap_calloc(h, 1, size)
                                 : quire_heap_aligned(h, 16u << (i % 10), size);
            for (size_t n = 0; i % 5 == 0 && n < size; n++)
                if (b[k].at[n] != 0) {
                    CHECK(false, "calloc of %zu bytes", size);
                    break;
                }
        }
        REQUIRE(b[k].at != NULL);
        CHECK(quire_heap_usable_size(h, b[k].at) >= size && quire_heap_of(b[k].at) == h);
        b[k].size = size;
        b[k].seed = (unsigned)i;
        conform_fill(b[k].at, size, b[k].seed);
        if (i % 500 == 0) {
            if (s != NULL)
                quire_snapshot_release(s);
            s = i % 1500 == 0 ? NULL : take_heap(h);
        }
    }
    if (s != NULL)
        quire_snapshot_release(s);
    quire_heap_reset(h);
    struct quire_heap_stat st;
    quire_heap_stat(h, &st);
    CHECK(st.held == 0 && st.live == 0 && st.live_bytes == 0, "%zu, %zu, %zu", st.held, st.live,
          st.live_bytes);
    quire_heap_destroy(h);
}

static void going_back(void)
{
    struct quire_snapshot_stat st;
    char *more[40];

    setup();
    char *gone = quire_heap_alloc(heap, 3u << 20);
    memset(gone, 4, 3u << 20);
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (s == NULL && errno == ENOTSUP)
        conform_skip("no going back here");
    REQUIRE(s != NULL, "errno %d", errno);
    for (int round = 0; round < 30; round++) {
        for (int i = 0; i < 40; i++) {
            more[i] = quire_heap_alloc(heap, 50000 * (size_t)(1 + i % 30));
            memset(more[i], round, 50000);
            block[(size_t)(i * 37 + round) % 256 * PAGE] = 9;
        }
        quire_heap_free(heap, gone);
        for (int i = 0; i < 20; i++)
            quire_heap_free(heap, more[2 * i]);
        memset(malloc(4u << 20), 7, 4u << 20);
        CHECK(quire_snapshot_restore(s) == 0, "errno %d", errno);
        for (int i = 0; i < SIZE; i++)
            if (block[i] != 1) {
                CHECK(false, "byte %d, round %d", i, round);
                break;
            }
        CHECK(gone[0] == 4 && gone[(3u << 20) - 1] == 4 && quire_heap_of(gone) == heap);
    }
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.sigbus_faults > 0);
    quire_snapshot_release(s);
    writes_are_saved();
    quire_heap_destroy(heap);
}

static void in_a_child(void)
{
    setup();
    quire_snapshot_t *s = take_heap(heap);
    for (int i = 0; i < 5; i++) {
        pid_t pid = i < 3 ? fork() : _Fork(); /* also one that runs no handlers of fork */
        if (pid == 0) {
            int end[2];
            REQUIRE(pipe(end) == 0 && write(end[1], "ab", 2) == 2);
            CHECK(read(end[0], block + 9 * PAGE, 1) == 1, "nothing is protected here");
            quire_snapshot_touch(block, SIZE);
            memset(block, 1, SIZE);
            memset(quire_heap_alloc(heap, 5u << 20), 1, 5u << 20);
            writes_are_saved();
            struct quire_snapshot_stat st;
            quire_snapshot_t *own = take_heap(heap);
            memset(block, 3, SIZE);
            CHECK(quire_snapshot_stat(own, &st) == 0 && st.sigbus_faults > 0 && in_force(heap));
            quire_heap_destroy(heap);
            CHECK(shows(own, block, SIZE, 1));
            conform_end();
        }
        CHECK(conform_child_ok(pid, "a child"));
    }
    memset(block, 2, SIZE);
    CHECK(shows(s, block, SIZE, 1));
    quire_snapshot_release(s);
}

static const struct conform_case cases[] = {
    {"memory given back", given_back, 120},
    {"blocks of all sizes", blocks_of_all_sizes, 120},
    {"going back", going_back, 120},
    {"in a child", in_a_child, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
