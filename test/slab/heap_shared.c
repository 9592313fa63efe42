/*
 * heap_shared.c - heaps of one's own that are not one thread's alone: several threads, another
 * owner, a child of fork; and snapshots of them.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "heap.h"
#include "quire/snapshot.h"

static struct quire_heap *shared;

static void *churn(void *arg)
{
    uint64_t state = (uintptr_t)arg;
    struct block mine[50] = {{NULL, 0, 0}};

    for (int i = 0; i < 20000; i++) {
        struct block *b = &mine[conform_random(&state) % 50];

        if (b->p == NULL) {
            b->size = conform_random(&state) % 2000;
            REQUIRE((b->p = quire_heap_alloc(shared, b->size)) != NULL);
            fill(b, &state);
        } else {
            CHECK(conform_intact(b->p, b->size, b->seed), "%zu bytes", b->size);
            quire_heap_free(shared, b->p);
            b->p = NULL;
        }
    }
    return NULL;
}

static void case_threads(void)
{
    pthread_t t[4];

    REQUIRE((shared = quire_heap_create(NULL)) != NULL);
    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&t[i], NULL, churn, (void *)(i + 1)) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    CHECK(stat_of(shared).live <= 200);
    quire_heap_destroy(shared);
}

static void *use_handed_over(void *text)
{
    quire_heap_own(shared);
    CHECK(strcmp(text, "handed over") == 0);
    quire_heap_free(shared, text);
    CHECK(quire_heap_alloc(shared, 10) != NULL);
    quire_heap_destroy(shared);
    return NULL;
}

static void case_handed_over(void)
{
    pthread_t t;

    shared = quire_heap_create(&(struct quire_heap_attr){.flags = QUIRE_HEAP_SINGLE});
    REQUIRE(shared != NULL);
    char *text = quire_heap_strdup(shared, "handed over");
    REQUIRE(text != NULL && pthread_create(&t, NULL, use_handed_over, text) == 0);
    pthread_join(t, NULL);
}

static void case_fork(void)
{
    char *text;

    REQUIRE((shared = quire_heap_create(NULL)) != NULL);
    REQUIRE((text = quire_heap_strdup(shared, "before")) != NULL);
    int pid = fork();
    if (pid == 0) {
        strcpy(text, "child");
        bool good = quire_heap_alloc(shared, 100000) != NULL && stat_of(shared).live == 2;
        quire_heap_destroy(shared);
        _exit(good ? 0 : 1);
    }
    conform_child_ok(pid, "the child");
    CHECK(strcmp(text, "before") == 0 && stat_of(shared).live == 1);
    quire_heap_destroy(shared);
}

/* Going back to a snapshot: heaps, too, are as they were. */
static void case_rollback(void)
{
    static struct block blocks[200];
    struct quire_heap *h = quire_heap_create(NULL);
    uint64_t state = 3;

    REQUIRE(h != NULL);
    for (int i = 0; i < 200; i++)
        make(h, &blocks[i], &state, 100000);
    size_t held = stat_of(h).held;
    quire_snapshot_t *snap = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (snap == NULL)
        conform_skip("no snapshot that can be gone back to, errno %d", errno);
    for (int round = 0; round < 10; round++) {
        struct quire_heap *late = quire_heap_create(NULL);
        REQUIRE(late != NULL && quire_heap_alloc(late, 1000) != NULL);
        for (int i = 0; i < 200; i += 1 + round)
            quire_heap_free(h, blocks[i].p);
        for (int i = 0; i < 300; i++)
            memset(quire_heap_alloc(h, (size_t)i * 100 + 1), 0xee, (size_t)i * 100 + 1);
        REQUIRE(quire_snapshot_restore(snap) == 0, "errno %d", errno);
        CHECK(stat_of(h).live == 200 && stat_of(h).held == held);
        for (int i = 0; i < 200; i++)
            CHECK(quire_heap_of(blocks[i].p) == h &&
                      conform_intact(blocks[i].p, blocks[i].size, blocks[i].seed),
                  "round %d, block %d", round, i);
    }
    REQUIRE(quire_snapshot_release(snap) == 0);
    quire_heap_destroy(h);
}

static void *overwrite(void *arg)
{
    uint64_t state = 77;

    for (int i = 0; i < 3000; i++) {
        struct block *b = &((struct block *)arg)[conform_random(&state) % 200];

        memset(b->p, i, b->size);
    }
    return NULL;
}

/* A snapshot of one heap: what was in it, whatever becomes of it; and nothing else. */
static void case_snapshot(unsigned flags)
{
    static struct block blocks[200], then[200];
    static unsigned char text[8u << 20];
    struct quire_heap *h = quire_heap_create(NULL), *other = quire_heap_create(NULL);
    uint64_t state = 4;
    pthread_t t;

    REQUIRE(h != NULL && other != NULL);
    errno = 0;
    CHECK(quire_snapshot_take(&state, flags) == NULL && errno == EINVAL);
    char *foreign = quire_heap_strdup(other, "foreign"), *mallocs = malloc(100);
    for (int i = 0; i < 200; i++)
        make(h, &blocks[i], &state, 7u << 20);
    memcpy(then, blocks, sizeof(then));
    quire_snapshot_t *snap = quire_snapshot_take(h, flags);
    if (snap == NULL)
        conform_skip("no snapshot can be taken, errno %d", errno);
    REQUIRE(pthread_create(&t, NULL, overwrite, blocks) == 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 200; i++) {
            REQUIRE(quire_snapshot_read(snap, then[i].p, text, then[i].size) ==
                        (ssize_t)then[i].size,
                    "block %d, errno %d", i, errno);
            CHECK(conform_intact(text, then[i].size, then[i].seed), "block %d of %zu", i,
                  then[i].size);
        }
        errno = 0;
        CHECK(quire_snapshot_read(snap, foreign, text, 8) < 0 && errno == EFAULT);
        CHECK(quire_snapshot_read(snap, mallocs, text, 8) < 0 && errno == EFAULT);
        if (round == 0) {
            pthread_join(t, NULL);
            quire_heap_destroy(h);
            for (int i = 0; i < 200; i++)
                make(other, &blocks[i], &state, 7u << 20);
        }
    }
    CHECK(quire_snapshot_release(snap) == 0);
    quire_heap_destroy(other);
}

static void case_snapshot_by_protection(void)
{
    case_snapshot(0);
}

static void case_snapshot_by_holder(void)
{
    case_snapshot(QUIRE_SNAPSHOT_HOLDER);
}

static const struct conform_case cases[] = {
    {"threads share a heap", case_threads, 0},
    {"a heap is handed over", case_handed_over, 0},
    {"fork copies", case_fork, 0},
    {"going back to a snapshot", case_rollback, 0},
    {"a snapshot of one heap", case_snapshot_by_protection, 0},
    {"the same by a holder", case_snapshot_by_holder, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
