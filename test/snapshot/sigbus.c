/*
 * sigbus.c - heaps whose writers save pages themselves (QUIRE_HEAP_SIGBUS): what is promised, and
 * what is not; what can be had without privilege, or without descriptors.
 *
 * Other handlers of SIGBUS are in sigbus_handlers.c, memory that comes and goes in sigbus_memory.c.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "bus.h"

enum { NOBODY = 65534 };

static void by_the_writer(void)
{
    struct quire_snapshot_stat st;

    setup();
    quire_snapshot_t *s = take_heap(heap);
    for (int i = 0; i < SIZE; i += 3 * PAGE)
        block[i] = 2;
    CHECK(shows(s, block, SIZE, 1));
    CHECK(quire_snapshot_stat(s, &st) == 0);
    CHECK(st.sigbus_faults > 0 && st.sigbus_faults == st.faults, "%llu of %llu",
          (unsigned long long)st.sigbus_faults, (unsigned long long)st.faults);
    quire_snapshot_release(s);
    quire_heap_destroy(heap);
}

static void system_calls(void)
{
    int end[2], sock[2];
    char c = 7;

    setup();
    REQUIRE(pipe(end) == 0 && socketpair(AF_UNIX, SOCK_DGRAM, 0, sock) == 0);
    for (int round = 0; round < 2; round++) {
        quire_snapshot_t *s = take_heap(heap);
        REQUIRE(write(end[1], "abc", 3) == 3 && send(sock[1], &c, 1, 0) == 1);
        errno = 0;
        CHECK(read(end[0], block, 3) == -1 && errno == EFAULT, "errno %d", errno);
        quire_snapshot_touch(block, 3);
        CHECK(read(end[0], block, 3) == 3 && memcmp(block, "abc", 3) == 0, "errno %d", errno);
        block[5 * PAGE] = 2; /* written once: also good */
        CHECK(recv(sock[0], block + 5 * PAGE, 1, 0) == 1 && block[5 * PAGE] == 7);
        quire_snapshot_touch(block + 8 * PAGE - 1, 3 * PAGE);
        CHECK(getrandom(block + 8 * PAGE - 1, 256, 0) == 256);
        CHECK(quire_snapshot_read(s, block + 9 * PAGE, block + 20 * PAGE, PAGE) == PAGE,
              "quire's own calls write there");
        if (round == 0)
            CHECK(shows(s, block, SIZE, 1));
        quire_snapshot_release(s);
        REQUIRE(write(end[1], "x", 1) == 1);
        CHECK(read(end[0], block + 30 * PAGE, 1) == 1, "no snapshot is alive: errno %d", errno);
    }
}

/* What an older snapshot protected is open when none lives. */
static void opened_in_the_end(void)
{
    struct quire_heap *other = make_heap();
    int end[2];

    setup();
    memset(quire_heap_alloc(other, SIZE), 1, SIZE);
    REQUIRE(pipe(end) == 0);
    quire_snapshot_t *first = take_heap(heap), *second = take_heap(other);
    quire_snapshot_release(first);
    REQUIRE(write(end[1], "ab", 2) == 2);
    quire_snapshot_touch(block, 1);
    CHECK(read(end[0], block, 1) == 1, "touched: errno %d", errno);
    quire_snapshot_release(second);
    CHECK(read(end[0], block + PAGE, 1) == 1, "errno %d", errno);
}

static void other_memory_as_ever(void)
{
    char *p = malloc(SIZE);
    int end[2];

    setup();
    memset(p, 1, SIZE);
    REQUIRE(pipe(end) == 0 && write(end[1], "abc", 3) == 3);
    quire_snapshot_t *s = take_protected();
    CHECK(read(end[0], p + 5, 3) == 3, "errno %d", errno);
    CHECK(shows(s, p, SIZE, 1));
    p[9 * PAGE] = block[9 * PAGE] = 2;
    CHECK(shows(s, p, SIZE, 1) && shows(s, block, SIZE, 1));
    quire_snapshot_release(s);
}

static void touch_anything(void)
{
    char c[2];
    char *p = malloc(SIZE);

    quire_snapshot_touch(NULL, 0);
    quire_snapshot_touch(p, SIZE);
    memset(p, 1, SIZE);
    quire_snapshot_t *s = take_protected();
    struct quire_snapshot_stat st;
    quire_snapshot_touch(c, 2);
    quire_snapshot_touch(NULL, 0);
    quire_snapshot_touch(p, SIZE);
    quire_snapshot_touch(p + 5, SIZE - 9);
    memset(p, 2, SIZE);
    CHECK(quire_snapshot_stat(s, &st) == 0);
    CHECK(st.touched_bytes >= SIZE, "%llu", (unsigned long long)st.touched_bytes);
    CHECK(shows(s, p, SIZE, 1));
    char *fresh = malloc(12u << 20); /* not in it */
    quire_snapshot_touch(fresh, 12u << 20);
    quire_snapshot_release(s);
    s = take(QUIRE_SNAPSHOT_HOLDER);
    quire_snapshot_touch(p, SIZE);
    memset(p, 3, SIZE);
    CHECK(shows(s, p, SIZE, 2));
    quire_snapshot_release(s);
}

static void *touch_and_write(void *arg)
{
    for (int i = 0; i < SIZE; i += PAGE) {
        quire_snapshot_touch(block + i, 1);
        /* Whoever was first: it is open now. */
        CHECK(getrandom(block + i + 8 * (uintptr_t)arg, 8, 0) == 8, "errno %d", errno);
    }
    return NULL;
}

static void touched_by_several(void)
{
    pthread_t thread[8];

    setup();
    for (int round = 0; round < 50; round++) {
        memset(block, 1, SIZE);
        quire_snapshot_t *s = take_heap(heap);
        for (uintptr_t i = 0; i < COUNT_OF(thread); i++)
            REQUIRE(pthread_create(&thread[i], NULL, touch_and_write, (void *)i) == 0);
        for (size_t i = 0; i < COUNT_OF(thread); i++)
            pthread_join(thread[i], NULL);
        CHECK(shows(s, block, SIZE, 1));
        quire_snapshot_release(s);
    }
    printf("# %d pages compared\n", 50 * SIZE / PAGE);
}

/* A user without any privilege: only these heaps have snapshots by protection. */
static void without_privilege(void)
{
    struct quire_snapshot_stat st;
    int dev = open("/dev/userfaultfd", O_RDWR);

    if (dev >= 0)
        close(dev);
    if (getuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        conform_skip("cannot become nobody");
    if (open("/dev/userfaultfd", O_RDWR) >= 0 || syscall(SYS_userfaultfd, 0) >= 0)
        conform_skip("userfaultfd is free for all here");
    setup();
    char *big = quire_heap_alloc(heap, 9u << 20), *p = malloc(3u << 20);
    memset(big, 1, 9u << 20);
    quire_snapshot_t *s = take_heap(heap);
    memset(block, 2, SIZE);
    memset(big, 2, 9u << 20);
    CHECK(shows(s, block, SIZE, 1) && shows(s, big, 9u << 20, 1));
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.sigbus_faults == st.faults && st.faults > 0);
    quire_snapshot_release(s);
    memset(block, 1, SIZE);
    s = take_heap(heap);
    quire_heap_destroy(heap); /* and its memory is malloc's, which nobody watches */
    for (int i = 0; i < 20; i++)
        memset(malloc(1u << 20), 3, 1u << 20);
    CHECK(shows(s, block, SIZE, 1) && shows(s, big, 9u << 20, 2));
    quire_snapshot_release(s);
    memset(p, 1, 3u << 20);
    s = quire_snapshot_take(NULL, 0);
    if (s != NULL) {
        CHECK(method(s) == QUIRE_SNAPSHOT_BY_HOLDER);
        memset(p, 2, 3u << 20);
        CHECK(shows(s, p, 3u << 20, 1));
        quire_snapshot_release(s);
    }
    /* The program closes all it has open: said, and nobody waits. */
    setup();
    s = take_heap(heap);
    for (int fd = 3; fd < 100; fd++)
        close(fd);
    memset(block, 2, SIZE);
    char c;
    errno = 0;
    CHECK(quire_snapshot_read(s, block, &c, 1) == -1 && errno == EIO, "errno %d", errno);
    quire_snapshot_release(s);
}

static void descriptors_closed(void)
{
    char c;

    setup();
    quire_snapshot_release(take_protected());
    usleep(200000); /* the sweeper has it, too */
    quire_snapshot_t *s = take_heap(heap);
    for (int fd = 3; fd < 100; fd++)
        close(fd);
    memset(block, 2, SIZE);
    ssize_t n = quire_snapshot_read(s, block, &c, 1);
    CHECK((n == 1 && c == 1) || (n == -1 && errno == EIO), "%zd, %d, errno %d", n, c, errno);
    quire_snapshot_release(s);
    memset(block, 3, SIZE);
}

static void flags(void)
{
    struct quire_heap_attr dma = {.flags = QUIRE_HEAP_SIGBUS, .gfp = QUIRE_GFP_DMA32};

    CHECK(quire_heap_create(&dma) == NULL && errno == EINVAL);
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SIGBUS | QUIRE_HEAP_SINGLE,
                                   .limit = 8u << 20};
    struct quire_heap *h = quire_heap_create(&attr);
    REQUIRE(h != NULL);
    size_t nr = 0;
    while (quire_heap_alloc(h, 100000) != NULL)
        nr++;
    CHECK(nr >= 50, "%zu", nr);
    quire_heap_destroy(h);
}

static const struct conform_case cases[] = {
    {"flags", flags, 0},
    {"the writer saves its pages", by_the_writer, 0},
    {"system calls", system_calls, 0},
    {"open in the end", opened_in_the_end, 0},
    {"other memory as ever", other_memory_as_ever, 0},
    {"touch anything", touch_anything, 0},
    {"touched by several", touched_by_several, 120},
    {"without privilege", without_privilege, 0},
    {"descriptors closed", descriptors_closed, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
