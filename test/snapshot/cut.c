/*
 * cut.c - what many threads write while snapshots come and go.
 *
 * Each writer owns pairs of pages (A, B) that lie far apart, and counts: it writes the number to A,
 * then to B, each twice in its page with a mark. Every snapshot must show A == B or A == B + 1, and
 * marks that fit; and the same when it is read again later, with others taken and released since.
 * Other threads allocate, free, resize, trim, fork, start and end threads meanwhile.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

enum { PAGE = 4096, WRITERS = 3, CHURNERS = 2, PAIRS = 3000, ALIVE = 4 };

static char *pairs[2]; /* PAIRS pages each, in blocks of malloc's */
static _Atomic bool stop;
static _Atomic long written;

static uint64_t *word(char *base, size_t pair, size_t at)
{
    return (uint64_t *)(base + pair * PAGE) + at;
}

static uint64_t mark(uint64_t n, size_t pair)
{
    return n * 0x9e3779b97f4a7c15u + pair;
}

static void *writer(void *arg)
{
    size_t id = (size_t)arg;
    uint64_t rng = id + 1;

    while (!stop) {
        size_t pair = conform_random(&rng) % (PAIRS / WRITERS) * WRITERS + id;
        uint64_t n = *word(pairs[0], pair, 0) + 1;

        for (int side = 0; side < 2; side++) {
            __atomic_store_n(word(pairs[side], pair, 0), n, __ATOMIC_RELEASE);
            __atomic_store_n(word(pairs[side], pair, 500), mark(n, pair), __ATOMIC_RELEASE);
        }
        written++;
    }
    return NULL;
}

static void *churner(void *arg)
{
    uint64_t rng = (size_t)arg + 100;
    char *block[300] = {0};

    while (!stop) {
        size_t i = conform_random(&rng) % 300, size = 1 + conform_random(&rng) % 100000;

        if (conform_random(&rng) % 200 == 0)
            size = 5u << 20;
        if (conform_random(&rng) % 3 == 0 || block[i] == NULL) {
            char *now = realloc(block[i], size);
            if (now != NULL) {
                block[i] = now;
                now[0] = now[size - 1] = 1;
            }
        } else {
            free(block[i]);
            block[i] = NULL;
        }
        if (conform_random(&rng) % 5000 == 0)
            quire_trim(0);
    }
    for (size_t i = 0; i < 300; i++)
        free(block[i]);
    return NULL;
}

/* System calls that write into the heap. */
static void *receiver(void *arg)
{
    int fd[2];
    char text[600], *to = malloc(64 * PAGE);

    (void)arg;
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fd) != 0)
        return NULL;
    for (size_t i = 0; !stop; i++) {
        memset(text, (int)i, sizeof(text));
        char *at = to + i % 63 * PAGE + PAGE - 300; /* across two pages */
        if (send(fd[0], text, sizeof(text), 0) != sizeof(text) ||
            recv(fd[1], at, sizeof(text), 0) != sizeof(text) ||
            memcmp(at, text, sizeof(text)) != 0) {
            CHECK(false, "a datagram was lost, errno %d", errno);
            break;
        }
    }
    close(fd[0]);
    close(fd[1]);
    free(to);
    return NULL;
}

static void *short_lived(void *arg)
{
    char *p = malloc(10000);

    memset(p, 1, 10000);
    free(p);
    return arg;
}

static void *thread_maker(void *arg)
{
    pthread_t t;

    while (!stop)
        if (pthread_create(&t, NULL, short_lived, NULL) == 0)
            pthread_join(t, NULL);
    return arg;
}

static void *forker(void *arg)
{
    while (!stop) {
        pid_t pid = fork();
        if (pid == 0) {
            for (size_t i = 0; i < 100; i++)
                *word(pairs[0], i * 7 % PAIRS, 0) = 1;
            free(malloc(100));
            _exit(0);
        }
        CHECK(conform_child_ok(pid, "a child"));
        usleep(20000);
    }
    return arg;
}

/* Read all of a snapshot; a sum over it. */
static uint64_t look(quire_snapshot_t *s, uint64_t *newest)
{
    static char page[2][PAGE];
    uint64_t sum = 0, bad = 0;

    for (size_t i = 0; i < PAIRS; i++) {
        for (int side = 0; side < 2; side++) {
            ssize_t n = quire_snapshot_read(s, word(pairs[side], i, 0), page[side], PAGE);
            REQUIRE(n == PAGE, "read gave %zd, errno %d", n, errno);
        }
        uint64_t a = *(uint64_t *)page[0], b = *(uint64_t *)page[1];
        uint64_t ma = ((uint64_t *)page[0])[500], mb = ((uint64_t *)page[1])[500];
        /* In order: number to A, mark to A, number to B, mark to B. */
        bad += a != b && a != b + 1;
        bad += ma != mark(a, i) && !(a == b + 1 && ma == mark(b, i));
        bad += mb != mark(b, i) && !(a == b && b > 0 && mb == mark(b - 1, i));
        sum = (sum ^ a ^ b << 20 ^ ma ^ mb) * 0x100000001b3u;
        *newest = a > *newest ? a : *newest;
    }
    CHECK(bad == 0, "%lu pairs are torn", (unsigned long)bad);
    return sum;
}

static void run(unsigned flags, int rounds, bool with_forks)
{
    quire_snapshot_t *alive[ALIVE] = {0};
    uint64_t sum[ALIVE], rng = 3, newest = 0;
    pthread_t t[WRITERS + CHURNERS + 4];
    struct quire_snapshot_stat st = {0};
    const char *more = getenv("SNAPSHOT_ROUNDS");
    size_t nr = 0;

    rounds *= more != NULL ? atoi(more) : 1;

    for (int side = 0; side < 2; side++) {
        pairs[side] = aligned_alloc(PAGE, (size_t)PAIRS * PAGE);
        for (size_t i = 0; i < PAIRS; i++) {
            *word(pairs[side], i, 0) = 0;
            *word(pairs[side], i, 500) = mark(0, i);
        }
    }
    for (size_t i = 0; i < WRITERS; i++)
        pthread_create(&t[nr++], NULL, writer, (void *)i);
    for (size_t i = 0; i < CHURNERS; i++)
        pthread_create(&t[nr++], NULL, churner, (void *)i);
    pthread_create(&t[nr++], NULL, receiver, NULL);
    pthread_create(&t[nr++], NULL, thread_maker, NULL);
    if (with_forks)
        pthread_create(&t[nr++], NULL, forker, NULL);
    for (int r = 0; r < rounds; r++) {
        size_t i = conform_random(&rng) % ALIVE;
        if (alive[i] != NULL) {
            CHECK(look(alive[i], &newest) == sum[i], "it changed");
            quire_snapshot_stat(alive[i], &st);
            CHECK(quire_snapshot_release(alive[i]) == 0);
            alive[i] = NULL;
        } else {
            alive[i] = quire_snapshot_take(NULL, flags);
            REQUIRE(alive[i] != NULL, "errno %d", errno);
            sum[i] = look(alive[i], &newest);
        }
    }
    for (size_t i = 0; i < ALIVE; i++) {
        if (alive[i] != NULL) {
            CHECK(look(alive[i], &newest) == sum[i], "it changed");
            quire_snapshot_release(alive[i]);
        }
    }
    stop = true;
    for (size_t i = 0; i < nr; i++)
        pthread_join(t[i], NULL);
    printf("# %ld pairs written, %lu faults, %lu KiB saved, longest stall %lu us, cut %lu us\n",
           (long)written, (unsigned long)st.faults, (unsigned long)st.saved_bytes >> 10,
           (unsigned long)st.longest_stall_ns / 1000, (unsigned long)st.pause_ns / 1000);
    CHECK(newest > 0, "no snapshot saw a write");
}

static void by_protection(void)
{
    run(0, 24, false);
}

static void lazily(void)
{
    run(QUIRE_SNAPSHOT_LAZY, 24, false);
}

static void lazily_with_forks(void)
{
    run(QUIRE_SNAPSHOT_LAZY, 16, true);
}

static void with_forks(void)
{
    run(0, 16, true);
}

static void by_holder(void)
{
    run(QUIRE_SNAPSHOT_HOLDER, 8, false);
}

static const struct conform_case cases[] = {
    {"cuts among writers", by_protection, 600},
    {"cuts among writers, with forks", with_forks, 600},
    {"cuts among writers, lazily", lazily, 600},
    {"cuts among writers, lazily, with forks", lazily_with_forks, 600},
    {"cuts among writers, by a holder process", by_holder, 600},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
