/* huge.c - a large heap becomes huge pages, and again after a fork has split them. */
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "steps.h"

#define PIECE ((size_t)2 << 20)
#define NR 24000u
#define BLOCK 4000u /* with NR: 96 MiB in slabs */
#define LARGE ((size_t)24 << 20)

static char *block[NR];
static char *large;

/* MiB of this process that are in huge pages. */
static long huge_mib(void)
{
    FILE *f = fopen("/proc/self/smaps_rollup", "r");
    char line[200];
    long kb = -1;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        sscanf(line, "AnonHugePages: %ld", &kb);
    if (f != NULL)
        fclose(f);
    return kb / 1024;
}

/* Whether this kernel collapses when it is told to (Linux 6.1), and has huge pages at all. */
static void need_collapse(void)
{
    char *p = outside(2 * PIECE), *piece = (char *)(((uintptr_t)p + PIECE - 1) & ~(PIECE - 1));

    if (getpagesize() != 4096 || prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1)
        conform_skip("no huge pages of 2 MiB here");
    memset(piece, 1, PIECE);
    if (madvise(piece, PIECE, 25 /* MADV_COLLAPSE */) != 0)
        conform_skip("MADV_COLLAPSE is refused: %s", strerror(errno));
    munmap(p, 2 * PIECE);
}

static void fill(void)
{
    large = malloc(LARGE);
    REQUIRE(large != NULL);
    conform_fill(large, LARGE, 1);
    for (unsigned i = 0; i < NR; i++) {
        block[i] = malloc(BLOCK);
        REQUIRE(block[i] != NULL);
        conform_fill(block[i], BLOCK, i);
    }
}

/* Can the machine give so many pieces to anybody? Where its memory is in use or in fragments it cannot. */
static void need_pieces(size_t nr)
{
    char *p = outside((nr + 1) * PIECE),
         *piece = (char *)(((uintptr_t)p + PIECE - 1) & ~(PIECE - 1));

    memset(piece, 1, nr * PIECE);
    for (size_t i = 0; i < nr; i++)
        if (madvise(piece + i * PIECE, PIECE, 25 /* MADV_COLLAPSE */) != 0)
            conform_skip("MADV_COLLAPSE of piece %zu of %zu is refused: %s", i, nr,
                         strerror(errno));
    munmap(p, (nr + 1) * PIECE);
}

/*
 * What a program does all the time drives it. Until so much is huge, or there is no hope: quire
 * makes a pause of a minute where the kernel refuses one piece, as it may at any time.
 */
static long churn_until(long mib)
{
    time_t end = time(NULL) + 300;

    while (huge_mib() < mib && time(NULL) < end)
        for (unsigned i = 0; i < 20000; i++) {
            unsigned k = i % NR;
            free(block[k]);
            block[k] = malloc(BLOCK);
            REQUIRE(block[k] != NULL);
            conform_fill(block[k], BLOCK, k);
        }
    if (huge_mib() < mib)
        need_pieces(60);
    return huge_mib();
}

static void check_content(void)
{
    unsigned bad = 0;

    for (unsigned i = 0; i < NR; i++)
        bad += !conform_intact(block[i], BLOCK, i);
    CHECK(bad == 0, "%u blocks differ", bad);
    CHECK(conform_intact(large, LARGE, 1));
}

static void becomes_huge(void)
{
    need_collapse();
    fill();
    CHECK(churn_until(100) >= 100, "%ld MiB of 120 in huge pages", huge_mib());
    check_content();
}

static void again_after_fork(void)
{
    int end[2];
    char c;

    need_collapse();
    fill();
    CHECK(churn_until(100) >= 100);
    REQUIRE(pipe(end) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(end[1]);
        _exit((int)read(end[0], &c, 1));
    }
    close(end[0]);
    for (unsigned i = 0; i < NR; i += 100)
        conform_fill(block[i], BLOCK, i);
    CHECK(huge_mib() < 50, "%ld MiB are still huge: the writes should have split them", huge_mib());
    close(end[1]);
    CHECK(conform_child_ok(pid, "child"));
    CHECK(churn_until(90) >= 90, "%ld MiB of 120 in huge pages", huge_mib());
    check_content();
}

/* A piece that may not be huge does not keep the others from it. */
static void but_for_one_piece(void)
{
    need_collapse();
    fill();
    char *piece = (char *)(((uintptr_t)large + PIECE - 1) & ~(PIECE - 1));
    REQUIRE(madvise(piece, PIECE, MADV_NOHUGEPAGE) == 0);
    CHECK(churn_until(106) >= 106, "%ld MiB of 118 in huge pages", huge_mib());
    check_content();
    madvise(piece, PIECE, MADV_HUGEPAGE);
    free(large);
}

/* With a snapshot alive nothing is moved, and it shows what it should. */
static void not_under_a_snapshot(void)
{
    static char copy[BLOCK];
    unsigned bad = 0;

    fill();
    quire_snapshot_t *s = take(0);
    for (unsigned i = 0; i < NR; i++)
        conform_fill(block[i], BLOCK, i + 1);
    for (unsigned i = 0; i < 400000; i++)
        free(malloc(i % 900));
    for (unsigned i = 0; i < NR; i++) {
        CHECK(quire_snapshot_read(s, block[i], copy, BLOCK) == BLOCK);
        bad += !conform_intact(copy, BLOCK, i);
    }
    CHECK(bad == 0, "%u blocks differ", bad);
    quire_snapshot_release(s);
}

static const struct conform_case cases[] = {
    {"a large heap becomes huge", becomes_huge, 400},
    {"again after fork", again_after_fork, 800},
    {"but for one piece", but_for_one_piece, 400},
    {"not under a snapshot", not_under_a_snapshot, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
