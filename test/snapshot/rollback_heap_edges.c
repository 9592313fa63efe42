/*
 * rollback_heap_edges.c - going back with one heap, where it could go wrong: stacks that lie in other
 * memory of quire's, mappings and blocks that change, branches, heaps that end, owners, limits.
 */
#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "quire/branch.h"
#include "quire/heap.h"
#include "steps.h"

/* Blocks of such heaps have more pages than they ask for: those are not the block's until it grows. */
static void grows_into_its_own_pages(void)
{
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SIGBUS};
    struct quire_heap *heap = quire_heap_create(&attr);
    struct quire_heap_stat st;
    char *p = quire_heap_alloc(heap, 150000);

    REQUIRE(p != NULL);
    conform_fill(p, 150000, 1);
    quire_snapshot_t *s = take_to_go_back(heap);
    char *q = quire_heap_realloc(heap, p, 192566);
    REQUIRE(q != NULL);
    CHECK(quire_heap_usable_size(heap, q) >= 192566 && conform_intact(q, 150000, 1));
    conform_fill(q, 192566, 2);
    q = quire_heap_realloc(heap, q, 400000);
    CHECK(conform_intact(q, 192566, 2));
    quire_heap_free(heap, q);
    quire_heap_stat(heap, &st);
    CHECK(st.live == 0 && st.live_bytes == 0, "%zu bytes", st.live_bytes);
    CHECK(quire_snapshot_restore(s) == 0 && conform_intact(p, 150000, 1));
    CHECK(quire_snapshot_release(s) == 0);
    quire_heap_destroy(heap);
}

/* A mapping that came since the cut, and was in a snapshot that is gone, is given back by going back. */
static void mapping_that_was_shown(void)
{
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SIGBUS};
    struct quire_heap *heap = quire_heap_create(&attr);
    struct quire_heap_stat before, after;

    memset(quire_heap_alloc(heap, 100000), 1, 100000);
    quire_heap_stat(heap, &before);
    quire_snapshot_t *s = take_to_go_back(heap);
    char *p = quire_heap_alloc(heap, 9u << 20);
    *p = 1;
    quire_snapshot_t *plain = quire_snapshot_take(heap, 0);
    CHECK(plain != NULL && quire_snapshot_release(plain) == 0);
    CHECK(quire_snapshot_restore(s) == 0, "errno %d", errno);
    quire_heap_stat(heap, &after);
    CHECK(after.held == before.held && quire_heap_of(p) == NULL);
    CHECK(quire_snapshot_release(s) == 0);
    quire_heap_destroy(heap);
}

/* The caller's stack is in other memory of quire's, which snapshots show. */
static ucontext_t back, on_stack;
static bool newer_of_another;

static __attribute__((noinline)) void restore_deeper(quire_snapshot_t *s, size_t bytes)
{
    volatile char *room = __builtin_alloca(bytes);

    room[0] = 1;
    CHECK(quire_snapshot_restore(s) == 0, "errno %d", errno);
}

static void restore_on_stack(void)
{
    struct quire_heap *heap = quire_heap_create(NULL);
    struct quire_heap *other = quire_heap_of((char *)on_stack.uc_stack.ss_sp);
    char *p = quire_heap_alloc(heap, 100000);

    memset(p, 1, 100000);
    for (size_t bytes = 16; bytes < 8192; bytes += 160) {
        quire_snapshot_t *all = newer_of_another ? NULL : quire_snapshot_take(NULL, 0);
        quire_snapshot_t *s = take_to_go_back(heap);
        quire_snapshot_t *newer = newer_of_another ? quire_snapshot_take(other, 0) : NULL;

        p[5000] = 2;
        restore_deeper(s, bytes + (newer_of_another ? 0 : 32768));
        CHECK(p[5000] == 1);
        CHECK(newer == NULL || quire_snapshot_release(newer) == 0);
        CHECK(quire_snapshot_release(s) == 0);
        CHECK(all == NULL || quire_snapshot_release(all) == 0);
    }
    quire_heap_destroy(heap);
}

static void on_a_stack_of(char *stack, size_t bytes)
{
    REQUIRE(stack != NULL);
    getcontext(&on_stack);
    on_stack.uc_stack.ss_sp = memset(stack, 0, bytes);
    on_stack.uc_stack.ss_size = bytes;
    on_stack.uc_link = &back;
    makecontext(&on_stack, restore_on_stack, 0);
    swapcontext(&back, &on_stack);
}

static void stack_in_another_heap(void)
{
    newer_of_another = true;
    on_a_stack_of(quire_heap_alloc(quire_heap_create(NULL), 1u << 20), 1u << 20);
}

static void stack_from_malloc(void)
{
    on_a_stack_of(malloc(1u << 20), 1u << 20);
}

static size_t held_by(struct quire_heap *heap)
{
    struct quire_heap_stat st;

    quire_heap_stat(heap, &st);
    return st.held;
}

static void *release_branch(void *branch)
{
    CHECK(quire_branch_release(branch) == 0);
    return NULL;
}

/* A snapshot that only its branches still need keeps nothing for going back. */
static void branches_do_not_go_back(void)
{
    enum { BIG = 3 << 20 };
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SINGLE};

    for (int round = 0; round < 2; round++) {
        struct quire_heap *heap = quire_heap_create(round == 0 ? &attr : NULL);
        char *p = quire_heap_alloc(heap, BIG);
        pthread_t t;

        REQUIRE(p != NULL && quire_heap_alloc(heap, 10) != NULL);
        memset(p, 1, BIG);
        quire_snapshot_t *s = take_to_go_back(heap);
        quire_branch_t *b = quire_branch(s);
        REQUIRE(b != NULL, "errno %d", errno);
        CHECK(quire_snapshot_release(s) == 0);
        CHECK(pthread_create(&t, NULL, release_branch, b) == 0 && pthread_join(t, NULL) == 0);
        quire_heap_free(heap, p);
        CHECK(held_by(heap) < BIG, "%zu bytes", held_by(heap));
        quire_heap_destroy(heap);
    }
}

/* What is freed after the cut stays the heap's, and nobody else gets it, until that goes. */
static void freed_memory_is_kept(void)
{
    struct quire_heap_attr attr = {.limit = 40u << 20};
    struct quire_heap *heap = quire_heap_create(&attr);
    char *p[4];

    for (int i = 0; i < 4; i++) {
        p[i] = quire_heap_alloc(heap, 9u << 20);
        REQUIRE(p[i] != NULL);
        memset(p[i], i + 1, 9u << 20);
    }
    quire_snapshot_t *s = take_to_go_back(heap);
    for (int i = 0; i < 4; i++)
        quire_heap_free(heap, p[i]);
    CHECK(quire_heap_of(p[0]) == NULL);
    CHECK(quire_heap_alloc(heap, 9u << 20) == NULL && errno == ENOMEM);
    REQUIRE(quire_snapshot_restore(s) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(quire_heap_of(p[i]) == heap && p[i][0] == i + 1 && p[i][(9u << 20) - 1] == i + 1);
    quire_heap_free(heap, p[2]);
    quire_snapshot_release(s);
    p[2] = quire_heap_alloc(heap, 9u << 20);
    CHECK(p[2] != NULL);
    quire_heap_destroy(heap);
}

static void heap_destroyed(void)
{
    struct quire_heap *heap = quire_heap_create(NULL);
    char *p = quire_heap_alloc(heap, 100), c = 0;

    *p = 5;
    quire_snapshot_t *s = take_to_go_back(heap);
    *p = 6;
    quire_heap_destroy(heap);
    CHECK(quire_snapshot_restore(s) == -1 && errno == EINVAL);
    struct quire_heap *next = quire_heap_create(NULL); /* most likely at the same address */
    CHECK(quire_snapshot_restore(s) == -1 && errno == EINVAL);
    CHECK(quire_snapshot_read(s, p, &c, 1) == 1 && c == 5);
    CHECK(quire_snapshot_release(s) == 0);
    quire_heap_destroy(next);
}

static void *by_another(void *arg)
{
    quire_snapshot_t *s = arg;

    CHECK(quire_snapshot_restore(s) == -1 && errno == EINVAL);
    CHECK(quire_snapshot_release(s) == -1 && errno == EINVAL);
    return NULL;
}

static void refusals(void)
{
    struct quire_heap_attr attr = {.flags = QUIRE_HEAP_SINGLE};
    struct quire_heap *heap = quire_heap_create(&attr);
    pthread_t t;

    REQUIRE(quire_heap_alloc(heap, 10) != NULL);
    quire_snapshot_t *s = take_to_go_back(heap);
    pthread_create(&t, NULL, by_another, s);
    pthread_join(t, NULL);
    CHECK(quire_snapshot_take(heap, QUIRE_SNAPSHOT_ROLLBACK | QUIRE_SNAPSHOT_HOLDER) == NULL &&
          errno == EINVAL);
    quire_snapshot_t *all = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (all != NULL) { /* which the sparse model refuses */
        CHECK(quire_snapshot_restore(s) == -1 && errno == EBUSY);
        CHECK(quire_snapshot_release(s) == -1 && errno == EBUSY);
        CHECK(quire_snapshot_restore(all) == 0);
        CHECK(quire_snapshot_release(all) == 0);
    }
    CHECK(quire_snapshot_restore(s) == 0);
    CHECK(quire_snapshot_release(s) == 0);
    quire_heap_destroy(heap);
}

/* What changed cannot be noted: going back is refused, and the heap goes on. Run with limit:200M. */
static void no_memory_to_note(void)
{
    enum { MANY = 3000 };
    struct quire_heap *heap = quire_heap_create(NULL);
    char **block = outside(MANY * sizeof(*block)), *list = NULL;

    if (getenv("QUIRE_CONF") == NULL || strstr(getenv("QUIRE_CONF"), "limit") == NULL)
        conform_skip("without a limit");
    for (int i = 0; i < MANY; i++) {
        block[i] = quire_heap_alloc(heap, 1000);
        REQUIRE(block[i] != NULL);
        memset(block[i], i, 1000);
    }
    quire_snapshot_t *s = take_to_go_back(heap);
    for (size_t size = 1u << 20; size >= 16; size /= 2)
        for (char *p; (p = malloc(size)) != NULL; list = p)
            *(char **)p = list;
    for (int i = 0; i < MANY; i += 2)
        quire_heap_free(heap, block[i]);
    CHECK(quire_snapshot_restore(s) == -1 && errno == ENOBUFS, "errno %d", errno);
    CHECK(quire_snapshot_release(s) == 0);
    for (char *next; list != NULL; list = next) {
        next = *(char **)list;
        free(list);
    }
    s = take_to_go_back(heap);
    for (int i = 1; i < MANY; i += 2) {
        CHECK(block[i][0] == (char)i && block[i][999] == (char)i);
        quire_heap_free(heap, block[i]);
    }
    CHECK(quire_snapshot_restore(s) == 0, "errno %d", errno);
    for (int i = 1; i < MANY; i += 2)
        CHECK(quire_heap_of(block[i]) == heap && block[i][999] == (char)i);
    CHECK(quire_snapshot_release(s) == 0);
    quire_heap_destroy(heap);
    munmap(block, MANY * sizeof(*block));
}

static const struct conform_case cases[] = {
    {"grows into its own pages", grows_into_its_own_pages, 60},
    {"a mapping that was shown since", mapping_that_was_shown, 60},
    {"on a stack in another heap", stack_in_another_heap, 60},
    {"on a stack from malloc", stack_from_malloc, 60},
    {"branches do not go back", branches_do_not_go_back, 60},
    {"freed memory is kept", freed_memory_is_kept, 60},
    {"heap destroyed", heap_destroyed, 60},
    {"refusals", refusals, 60},
    {"no memory to note what changes", no_memory_to_note, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
