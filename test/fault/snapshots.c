/*
 * snapshots.c - takes snapshots in every way while system calls fail, and believes nothing.
 *
 *   snapshots FAILED [fork]
 *
 * Each round takes one, writes, and looks. Any function may fail with an errno of its own; but what
 * a snapshot shows must be right, the program's own memory too, and nobody may wait for ever. In at
 * most FAILED rounds anything may fail (-1: in all), so that one failed system call is seen to do no
 * lasting harm. Exit status 0: all is well; 1: it is not, with a line on stderr.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "quire/heap.h"
#include "quire/snapshot.h"

enum { PAGE = 4096, PAGES = 64, SECONDS = 250 };

static char *block;
static int number; /* all pages of the block have it */
static long failed;
static int this_round;

static void wrong(const char *what)
{
    char text[200];
    int length = snprintf(text, sizeof(text), "snapshots: round %d: %s, errno %d\n", this_round,
                          what, errno);

    (void)!write(2, text, (size_t)length);
    _exit(1);
}

/* Whatever stood in the way, it has a name. */
static void may_fail(const char *what)
{
    if (errno == 0)
        wrong(what);
    errno = 0;
}

static void write_all(int value)
{
    for (int i = 0; i < PAGES; i++)
        memset(block + i * PAGE + i * 8, value, 64);
    number = value;
}

static void check_all(const char *what)
{
    for (int i = 0; i < PAGES; i++)
        if (block[i * PAGE + i * 8] != (char)number)
            wrong(what);
}

/* False where something failed, as it may. */
static bool shows(const quire_snapshot_t *s, int value)
{
    char c;

    for (int i = 0; i < PAGES; i++) {
        if (quire_snapshot_read(s, block + i * PAGE + i * 8, &c, 1) != 1) {
            may_fail("read");
            return false;
        }
        if (c != (char)value)
            wrong("the snapshot shows another byte");
    }
    return true;
}

static void release(quire_snapshot_t *s)
{
    if (quire_snapshot_release(s) != 0)
        wrong("release");
}

static bool read_back(unsigned flags)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, flags);
    int before = number;

    if (s == NULL)
        may_fail("take");
    write_all(number + 1);
    bool ok = s != NULL && shows(s, before);
    check_all("after reading");
    if (s != NULL)
        release(s);
    return ok;
}

static bool by_protection(void)
{
    return read_back(0);
}

static bool by_holder(void)
{
    return read_back(QUIRE_SNAPSHOT_HOLDER);
}

/* The heap is large enough to be moved aside: pages of these blocks are never touched. */
static bool lazily(void)
{
    char *ballast[200];

    for (int i = 0; i < 200; i++)
        ballast[i] = malloc(100000);
    bool ok = read_back(QUIRE_SNAPSHOT_LAZY);
    for (int i = 0; i < 200; i++)
        free(ballast[i]);
    return ok;
}

static bool two_at_once(void)
{
    quire_snapshot_t *first = quire_snapshot_take(NULL, 0);
    bool ok = read_back(0);

    if (first == NULL)
        return false;
    ok &= shows(first, number - 1);
    release(first);
    return ok;
}

static bool go_back(void)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    int before = number;
    bool ok = s != NULL;

    if (s == NULL)
        may_fail("take to go back");
    for (int i = 0; ok && i < 3; i++) {
        write_all(number + 1);
        ok = quire_snapshot_restore(s) == 0;
        if (ok)
            number = before;
        else
            may_fail("restore");
        check_all("going back");
    }
    if (s != NULL)
        release(s);
    write_all(before + 1);
    return ok;
}

static bool save_and_load(void)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);
    int fd = memfd_create("image", MFD_CLOEXEC), before = number;
    bool ok = false;

    if (s == NULL)
        may_fail("take");
    write_all(number + 1);
    if (s != NULL && fd >= 0) {
        ok = quire_snapshot_save(s, fd, NULL, NULL) == 0;
        if (!ok)
            may_fail("save");
    }
    if (s != NULL)
        release(s);
    if (ok) {
        lseek(fd, 0, SEEK_SET);
        s = quire_snapshot_load(fd);
        if (s == NULL)
            may_fail("load");
        ok = s != NULL && shows(s, before);
        if (s != NULL)
            release(s);
    }
    close(fd);
    check_all("after saving");
    return ok;
}

static bool child_writes(void)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);
    int status, before = number;
    bool ok = s != NULL;

    pid_t pid = fork();
    if (pid == 0) {
        alarm(SECONDS);
        write_all(77);
        check_all("in a child");
        if (s != NULL)
            release(s);
        _exit(0);
    }
    if (pid < 0)
        wrong("fork");
    if (waitpid(pid, &status, 0) != pid || status != 0)
        wrong("the child ended badly");
    write_all(number + 1);
    if (s != NULL) {
        ok &= shows(s, before);
        release(s);
    }
    return ok;
}

static void *writer(void *arg)
{
    volatile char *own = arg;

    for (int i = 1; i < 100; i++)
        for (int page = 0; page < PAGES; page++) {
            own[page * PAGE] = (char)i;
            if (own[page * PAGE] != (char)i)
                wrong("a writer's byte");
        }
    return NULL;
}

static bool among_writers(void)
{
    char *own = calloc(PAGES, PAGE);
    pthread_t thread;
    bool ok = true;

    if (own == NULL || pthread_create(&thread, NULL, writer, own) != 0)
        return false;
    for (int i = 0; i < 5; i++)
        ok &= read_back(0);
    pthread_join(thread, NULL);
    free(own);
    return ok;
}

/* A heap whose writers save pages themselves, or, where that fails, one like others. */
static bool by_writers(void)
{
    struct quire_heap *heap =
        quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SIGBUS});
    char *malloced = block, *own = heap != NULL ? quire_heap_alloc(heap, PAGES * PAGE) : NULL;
    char *large = own != NULL ? quire_heap_alloc(heap, 6u << 20) : NULL;
    int before = number;
    bool ok = own != NULL && large != NULL;

    if (!ok)
        may_fail("a heap of its own");
    if (own != NULL) {
        block = own;
        write_all(1);
        quire_snapshot_t *all = quire_snapshot_take(NULL, 0), *s = quire_snapshot_take(heap, 0);
        ok &= all != NULL && s != NULL;
        if (large != NULL)
            memset(large, 1, 6u << 20);
        write_all(2);
        ok &= s != NULL && shows(s, 1);
        quire_heap_free(heap, large);
        quire_snapshot_touch(own, PAGES * PAGE);
        check_all("of its own");
        if (s != NULL)
            release(s);
        ok &= all != NULL && shows(all, 1);
        quire_heap_destroy(heap);
        if (all != NULL)
            release(all);
        block = malloced;
        number = before;
    } else {
        quire_heap_destroy(heap);
    }
    return ok;
}

/*
 * One heap goes back: to two cuts, one after the other, with objects, a run and a mapping that are
 * freed meanwhile.
 */
static bool one_goes_back(void)
{
    struct quire_heap *heap = quire_heap_create(NULL);
    char *malloced = block, *own = heap != NULL ? quire_heap_alloc(heap, PAGES * PAGE) : NULL;
    char *small = own != NULL ? quire_heap_alloc(heap, 100) : NULL;
    char *large = small != NULL ? quire_heap_alloc(heap, 6u << 20) : NULL;
    quire_snapshot_t *cut[2] = {NULL, NULL};
    int before = number;
    bool ok = large != NULL;

    if (!ok)
        may_fail("a heap that goes back");
    for (int i = 0; ok && i < 2; i++) {
        block = own;
        write_all(i + 1);
        large[5u << 20] = small[50] = (char)(i + 1);
        cut[i] = quire_snapshot_take(heap, QUIRE_SNAPSHOT_ROLLBACK);
        if (cut[i] == NULL)
            may_fail("take of a heap");
        ok = cut[i] != NULL;
    }
    for (int i = 1; i >= 0; i--) {
        if (ok) {
            write_all(7);
            large[5u << 20] = small[50] = 7;
            quire_heap_free(heap, large);
            quire_heap_free(heap, small);
            ok = quire_snapshot_restore(cut[i]) == 0;
            if (!ok)
                may_fail("restore of a heap");
        }
        number = i + 1;
        if (ok)
            check_all("of a heap that went back");
        if (ok && (small[50] != i + 1 || large[5u << 20] != i + 1 || quire_heap_of(small) != heap ||
                   quire_heap_of(large) != heap))
            wrong("a block that came back");
        if (cut[i] != NULL)
            release(cut[i]);
    }
    quire_heap_destroy(heap);
    block = malloced;
    number = before;
    return ok;
}

static bool touched(void)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);
    int before = number;

    if (s == NULL)
        may_fail("take");
    quire_snapshot_touch(block, PAGES * PAGE);
    write_all(number + 1);
    bool ok = s != NULL && shows(s, before);
    if (s != NULL)
        release(s);
    return ok;
}

int main(int argc, char **argv)
{
    bool (*const rounds[])(void) = {by_protection, lazily,        two_at_once,   go_back,
                                    by_holder,     save_and_load, touched,       by_writers,
                                    among_writers, child_writes,  one_goes_back, by_protection};
    long allowed = argc > 1 ? atol(argv[1]) : 0;

    alarm(SECONDS); /* nobody waits for ever */
    block = malloc((size_t)PAGES * PAGE + PAGE);
    if (block == NULL)
        return allowed != 0 ? 0 : 1;
    write_all(1);
    for (size_t i = 0; i < sizeof(rounds) / sizeof(rounds[0]); i++) {
        this_round = (int)i;
        failed += !rounds[i]();
        check_all("after a round");
    }
    if (allowed >= 0 && failed > allowed) {
        this_round = -1;
        wrong("more rounds failed than one failed call explains");
    }
    return 0;
}
