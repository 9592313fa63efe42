/*
 * alias.c - two threads whose pointers are a quarter of the sparse model's frames apart, and a block
 * of one that has its slab descriptor in common with a slab of the other.
 *
 * The test of free() (slab/slab.h) adds four times the thread's pointer to the address, modulo what
 * there are descriptors for. So here the one thread's block looks to it as the other's object does.
 * It wants QUIRE_CONF=model:sparse,window:64M; with other options it shows nothing. And what else
 * a descriptor may still say when the memory is another's.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "conform.h"

#define SPAN ((size_t)64 << 20) /* the frames that there are */
#define STACK ((size_t)256 << 10)
#define OBJECTS 60000
#define TRIES 400
#define RUNS 900

static char *object[OBJECTS];
static pthread_barrier_t turn;
static char *alias;
static size_t alias_bytes;

/* Every second object is freed: each slab has a freelist, and a live owner. */
static void *owner(void *arg)
{
    for (size_t i = 0; i < OBJECTS; i++)
        object[i] = malloc(64);
    for (size_t i = 1; i < OBJECTS; i += 2)
        free(object[i]);
    pthread_barrier_wait(&turn);
    pthread_barrier_wait(&turn);
    for (size_t i = 1; i < OBJECTS && alias != NULL; i += 2) {
        object[i] = malloc(64);
        REQUIRE(object[i] < alias || object[i] >= alias + alias_bytes,
                "malloc(64) gave %p, of the other's freed block %p", (void *)object[i],
                (void *)alias);
    }
    return NULL;
}

static bool is_alias(const char *p)
{
    for (size_t i = 0; i < OBJECTS; i += 2)
        if ((uintptr_t)object[i] - (uintptr_t)p == SPAN ||
            (uintptr_t)p - (uintptr_t)object[i] == SPAN)
            return true;
    return false;
}

/* Large blocks, each with a mapping of its own, until one lies so. */
static void *stranger(void *arg)
{
    pthread_barrier_wait(&turn);
    free(malloc(10)); /* it has a heap of its own */
    for (size_t i = 0; i < TRIES && alias == NULL; i++) {
        size_t bytes = ((size_t)4 << 20) + ((i % 16 + 1) << 16);
        char *p = malloc(bytes);

        REQUIRE(p != NULL);
        p[0] = 1;
        if (is_alias(p)) {
            free(p);
            alias_bytes = bytes;
            alias = p;
        }
    }
    pthread_barrier_wait(&turn);
    return NULL;
}

static void case_alias(void)
{
    pthread_attr_t attr;
    pthread_t thread[2];
    char *room = mmap(NULL, SPAN / 4 + STACK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    REQUIRE(room != MAP_FAILED && mprotect(room, STACK, PROT_READ | PROT_WRITE) == 0 &&
            mprotect(room + SPAN / 4, STACK, PROT_READ | PROT_WRITE) == 0);
    pthread_barrier_init(&turn, NULL, 2);
    pthread_attr_init(&attr);
    pthread_attr_setstack(&attr, room, STACK);
    REQUIRE(pthread_create(&thread[0], &attr, owner, NULL) == 0);
    pthread_attr_setstack(&attr, room + SPAN / 4, STACK);
    REQUIRE(pthread_create(&thread[1], &attr, stranger, NULL) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    if (alias == NULL)
        conform_skip("no block lay %zu bytes from an object", SPAN);
}

/* Slabs go, their pages become larger blocks, and these are freed by who had the slabs. */
static void case_runs_after_slabs(void)
{
    static char *run[RUNS];
    size_t before = mallinfo2().uordblks;

    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < OBJECTS; i++)
            REQUIRE((object[i] = malloc(640)) != NULL);
        for (size_t i = 0; i < OBJECTS; i++)
            free(object[i]);
        for (size_t i = 0; i < RUNS; i++) {
            REQUIRE((run[i] = malloc(65536)) != NULL);
            conform_fill(run[i], 65536, (unsigned)i);
        }
        for (size_t i = 0; i < RUNS; i++) {
            CHECK(conform_intact(run[i], 65536, (unsigned)i));
            free(run[i]);
        }
    }
    size_t after = mallinfo2().uordblks;
    CHECK(after < before + 1000000, "%zu bytes in use before, %zu after", before, after);
}

static const struct conform_case cases[] = {
    {"a block that shares a descriptor with another thread's slab", case_alias, 60},
    {"runs where slabs were", case_runs_after_slabs, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
