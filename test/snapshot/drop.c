/*
 * drop.c - snapshots that are given up as they are used: what is behind costs nothing any more, and
 * nothing else changes.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

#include "quire/branch.h"
#include "steps.h"

enum { PAGE = 4096, PAGES = 2000, BYTES = PAGES * PAGE };

static size_t held(const quire_snapshot_t *s)
{
    struct quire_snapshot_stat st;

    REQUIRE(quire_snapshot_stat(s, &st) == 0);
    return st.held_bytes;
}

/* One byte of each page. */
static void write_pages(char *p, int from, int to, int value)
{
    for (int i = from; i < to; i++)
        p[(size_t)i * PAGE + 100] = (char)value;
}

static int count_shown(const quire_snapshot_t *s, const char *p, int from, int to, int value)
{
    int shown = 0;
    char c;

    for (int i = from; i < to; i++)
        shown += quire_snapshot_read(s, p + (size_t)i * PAGE + 100, &c, 1) == 1 && c == value;
    return shown;
}

static int count_dropped(const quire_snapshot_t *s, const char *p, int from, int to)
{
    int dropped = 0;
    char c;

    for (int i = from; i < to; i++)
        dropped +=
            quire_snapshot_read(s, p + (size_t)i * PAGE + 100, &c, 1) == -1 && errno == EFAULT;
    return dropped;
}

static char *new_block(void)
{
    char *p = aligned_alloc(PAGE, BYTES);

    REQUIRE(p != NULL);
    write_pages(p, 0, PAGES, 1);
    return p;
}

/* What is behind cannot be read, costs no copies, and gives back those that it cost. */
static void half(void)
{
    struct quire_snapshot_stat before, after;
    char *p = new_block();
    quire_snapshot_t *s = take_protected();

    write_pages(p, 0, PAGES / 4, 2);
    write_pages(p, PAGES - PAGES / 4, PAGES, 2);
    size_t had = held(s);
    CHECK(had >= BYTES / 2 - 2 * PAGE);
    CHECK(quire_snapshot_drop(s, p + BYTES / 2 + 7) == 0); /* by whole pages */
    CHECK(held(s) + BYTES / 4 <= had, "held %zu, now %zu", had, held(s));
    CHECK(count_dropped(s, p, 0, PAGES / 2) == PAGES / 2);
    CHECK(count_shown(s, p, PAGES / 2, PAGES, 1) == PAGES / 2);
    quire_snapshot_stat(s, &before);
    write_pages(p, 0, PAGES / 2, 3);
    quire_snapshot_stat(s, &after);
    CHECK(after.saved_bytes == before.saved_bytes && after.faults == before.faults,
          "%lu faults at dropped pages", (unsigned long)(after.faults - before.faults));
    write_pages(p, PAGES / 2, PAGES, 3);
    CHECK(count_shown(s, p, PAGES / 2, PAGES, 1) == PAGES / 2);
    CHECK(quire_snapshot_drop(s, p) == 0, "it has been dropped further already");
    CHECK(count_shown(s, p, PAGES / 2, PAGES, 1) == PAGES / 2);
    CHECK(quire_snapshot_drop(s, (void *)UINTPTR_MAX) == 0);
    CHECK(held(s) == 0 && count_dropped(s, p, 0, PAGES) == PAGES);
    CHECK(quire_snapshot_release(s) == 0);
    s = take_protected();
    write_pages(p, 0, PAGES, 4);
    CHECK(count_shown(s, p, 0, PAGES, 3) == PAGES, "the next one");
    CHECK(quire_snapshot_release(s) == 0);
    free(p);
}

/* Of several, each is dropped by itself, in whatever order; the others show what they did. */
static void of_several(void)
{
    for (int order = 0; order < 6; order++) {
        char *p = new_block();
        quire_snapshot_t *s[3];
        int first = order % 3, second = (first + 1 + order / 3) % 3, third = 3 - first - second;

        for (int i = 0; i < 3; i++) {
            s[i] = take_protected();
            write_pages(p, 300 * i, 300 * i + 600, i + 2); /* some pages after several cuts */
        }
        CHECK(quire_snapshot_drop(s[first], p + BYTES / 2) == 0);
        write_pages(p, 0, 1100, 7);
        CHECK(quire_snapshot_drop(s[second], p + BYTES / 3) == 0);
        write_pages(p, 0, 1500, 8);
        CHECK(count_dropped(s[first], p, 0, PAGES / 2) == PAGES / 2);
        CHECK(count_dropped(s[second], p, 0, PAGES / 3) == PAGES / 3);
        for (int i = 0; i < 3; i++) {
            int from = i == first ? PAGES / 2 : i == second ? PAGES / 3 + 1 : 0, bad = 0;
            for (int k = from; k < PAGES; k++) {
                int want = 1;
                for (int cut = 0; cut < i; cut++)
                    if (k >= 300 * cut && k < 300 * cut + 600)
                        want = cut + 2;
                bad += count_shown(s[i], p, k, k + 1, want) != 1;
            }
            CHECK(bad == 0, "order %d, snapshot %d: %d pages differ", order, i, bad);
        }
        CHECK(quire_snapshot_drop(s[third], (void *)UINTPTR_MAX) == 0);
        for (int i = 0; i < 3; i++)
            CHECK(quire_snapshot_release(s[(i + order) % 3]) == 0);
        free(p);
    }
}

/* What the program frees goes back at once where nobody shows it any more. */
static void freed(void)
{
    enum { BLOCKS = 64, SIZE = 1 << 20 };
    char *block[BLOCKS];
    uintptr_t end = 0;

    for (int i = 0; i < BLOCKS; i++) {
        block[i] = malloc(SIZE);
        memset(block[i], i + 1, SIZE);
        if ((uintptr_t)block[i] + SIZE > end)
            end = (uintptr_t)block[i] + SIZE;
    }
    quire_snapshot_t *s = take_protected();
    size_t full = conform_resident();
    for (int i = 0; i < BLOCKS; i++)
        free(block[i]);
    quire_trim(0);
    CHECK(conform_resident() + ((size_t)SIZE << 4) > full, "freed memory that is shown stays");
    CHECK(quire_snapshot_drop(s, (void *)end) == 0);
    quire_trim(0);
    CHECK(conform_resident() + (size_t)SIZE * BLOCKS / 2 < full, "%zu bytes, now %zu", full,
          conform_resident());
    CHECK(quire_snapshot_release(s) == 0);
}

static quire_snapshot_t *between;

static void *drop_up_to(void *end)
{
    CHECK(quire_snapshot_drop(between, end) == 0);
    return NULL;
}

/* By several threads at once: what one has dropped stays so. */
static void by_several(void)
{
    char *p = new_block();
    pthread_t thread[4];

    for (int round = 0; round < 200; round++) {
        between = take_protected();
        write_pages(p, 0, 20, round);
        for (int i = 0; i < 4; i++)
            REQUIRE(pthread_create(&thread[i], NULL, drop_up_to,
                                   p + (size_t)((round + i) % 4 + 1) * PAGES / 4 * PAGE) == 0);
        for (int i = 0; i < 4; i++)
            pthread_join(thread[i], NULL);
        CHECK(count_dropped(between, p, PAGES - 50, PAGES) == 50, "round %d", round);
        CHECK(quire_snapshot_release(between) == 0);
    }
    free(p);
}

static void refused(void)
{
    char path[] = "/tmp/quire-drop-XXXXXX", *p = new_block();
    ptrdiff_t distance;
    int fd = mkstemp(path);
    quire_snapshot_t *s = take_protected();

    REQUIRE(fd >= 0 && unlink(path) == 0);
    errno = 0;
    CHECK(quire_snapshot_view(s, &distance) == 0);
    CHECK(quire_snapshot_drop(s, p + PAGE) == -1 && errno == EBUSY, "a view");
    CHECK(quire_snapshot_drain(s, fd, NULL, NULL) == -1 && errno == EBUSY);
    CHECK(lseek(fd, 0, SEEK_END) == 0, "something was written");
    CHECK(p[distance + 100] == 1);
    CHECK(quire_snapshot_save(s, fd, NULL, NULL) == 0);
    quire_snapshot_release(s);
    s = take(0);
    quire_branch_t *b = quire_branch(s);
    CHECK(b != NULL && quire_snapshot_drop(s, p + PAGE) == -1 && errno == EBUSY, "a branch");
    CHECK(quire_branch_release(b) == 0 && quire_snapshot_drop(s, p + PAGE) == 0);
    CHECK(quire_branch(s) == NULL && errno == EFAULT, "a branch of what is left");
    CHECK(quire_snapshot_view(s, &distance) == -1 && errno == EFAULT, "a view of it");
    quire_snapshot_release(s);
    s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (s != NULL) {
        CHECK(quire_snapshot_drop(s, p + PAGE) == -1 && errno == EINVAL, "one to go back to");
        quire_snapshot_release(s);
    }
    lseek(fd, 0, SEEK_SET);
    s = quire_snapshot_load(fd);
    REQUIRE(s != NULL, "errno %d", errno);
    CHECK(quire_snapshot_drop(s, p + PAGE) == -1 && errno == EINVAL, "an image");
    quire_snapshot_release(s);
    CHECK(quire_snapshot_drop(NULL, p) == -1 && errno == EINVAL);
    close(fd);
    free(p);
}

/* --- draining -------------------------------------------------------------------------------- */

static _Atomic bool stop;

static void *writer(void *arg)
{
    char *p = arg;
    uint64_t rng = 5;

    while (!stop) {
        int i = (int)(conform_random(&rng) % PAGES);
        p[(size_t)i * PAGE + 100]++;
    }
    return NULL;
}

/* Drained into a file among writers: the image has every byte, and afterwards nothing is held. */
static void drain_among_writers(unsigned flags)
{
    char path[] = "/tmp/quire-drop-XXXXXX", *p = new_block();
    int fd = mkstemp(path), method_was;
    pthread_t thread[2];

    REQUIRE(fd >= 0 && unlink(path) == 0);
    for (int round = 0; round < 5; round++) {
        write_pages(p, 0, PAGES, 10 + round);
        stop = false;
        quire_snapshot_t *s = take(flags);
        for (int i = 0; i < 2; i++)
            REQUIRE(pthread_create(&thread[i], NULL, writer, p) == 0);
        lseek(fd, 0, SEEK_SET);
        CHECK(quire_snapshot_drain(s, fd, NULL, NULL) == 0, "errno %d", errno);
        stop = true;
        for (int i = 0; i < 2; i++)
            pthread_join(thread[i], NULL);
        method_was = method(s);
        CHECK(method_was != QUIRE_SNAPSHOT_BY_PROTECTION || held(s) == 0);
        CHECK(count_dropped(s, p, 0, PAGES) == PAGES);
        quire_snapshot_t *next = take(0);
        CHECK(quire_snapshot_save_since(next, s, fd, NULL, NULL) == -1 && errno == EINVAL);
        CHECK(quire_snapshot_release(next) == 0);
        CHECK(quire_snapshot_release(s) == 0);
        lseek(fd, 0, SEEK_SET);
        s = quire_snapshot_load(fd);
        REQUIRE(s != NULL, "errno %d", errno);
        CHECK(quire_snapshot_verify(s) == 0);
        CHECK(count_shown(s, p, 0, PAGES, 10 + round) == PAGES, "round %d", round);
        quire_snapshot_release(s);
    }
    close(fd);
    free(p);
}

static void drained(void)
{
    quire_snapshot_release(take_protected());
    drain_among_writers(0);
}

static void drained_lazily(void)
{
    many_blocks();
    quire_snapshot_release(take_protected());
    drain_among_writers(QUIRE_SNAPSHOT_LAZY);
}

static void drained_by_holder(void)
{
    drain_among_writers(QUIRE_SNAPSHOT_HOLDER);
}

/* Copies of what was saved are used for what is written next: as many as of one part in ten. */
static int write_behind(void *arg, size_t done, size_t total)
{
    char *p = arg;
    static int next;

    for (int upto = (int)(PAGES * (uint64_t)done / total); next < upto; next++)
        p[(size_t)next * PAGE + 100]++;
    return 0;
}

/* A program that writes only to what has been saved costs next to nothing. */
static void drained_ahead_of_the_writer(void)
{
    struct quire_snapshot_stat st;
    char *p = new_block();
    int fd = open("/dev/null", O_WRONLY);
    quire_snapshot_t *s = take_protected();

    CHECK(quire_snapshot_drain(s, fd, write_behind, p) == 0);
    quire_snapshot_stat(s, &st);
    CHECK(st.saved_bytes < BYTES / 4, "%lu bytes copied", (unsigned long)st.saved_bytes);
    CHECK(quire_snapshot_release(s) == 0);
    close(fd);
    free(p);
}

static const struct conform_case cases[] = {
    {"half of it", half, 120},
    {"of several", of_several, 120},
    {"freed memory", freed, 120},
    {"by several threads", by_several, 120},
    {"refused", refused, 120},
    {"drained among writers", drained, 120},
    {"drained among writers, lazily", drained_lazily, 120},
    {"drained among writers, by a holder process", drained_by_holder, 120},
    {"drained ahead of the writer", drained_ahead_of_the_writer, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
