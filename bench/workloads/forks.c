/*
 * forks: a process with a heap forks again and again, as servers and shells do. The child checks
 * some of what it inherited, frees some of it, allocates, and ends; the parent goes on allocating
 * meanwhile and checks in the end that nothing of its own has changed. Every page that a child's
 * allocator touches is copied: an allocator that writes all over its lists pays here.
 *
 * Every tenth child forks once more, and every third runs with a second thread in the parent.
 */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define USAGE "[CHILDREN [MEGABYTES [OBJECTS]]]   (300, 32, 2000)"

struct heap {
    struct object *objects;
    size_t count;
};

static void heap_fill(struct heap *heap, size_t bytes)
{
    struct rng rng = {41};
    size_t used = 0;

    heap->objects = must_alloc(bytes / 64 * sizeof(*heap->objects));
    for (heap->count = 0; used < bytes && heap->count < bytes / 64; heap->count++) {
        struct object *object = &heap->objects[heap->count];

        object_make(object, rng_size_skewed(&rng, 16, 1000), (uint32_t)rng_next(&rng));
        used += object->size;
    }
}

/* what a process does with a heap, its own or its parent's: replace a few hundred objects */
static void work_on(struct heap *heap, unsigned objects, uint64_t seed)
{
    struct rng rng = {seed};

    for (unsigned i = 0; i < objects; i++) {
        struct object *object = &heap->objects[rng_below(&rng, (uint32_t)heap->count)];

        object_drop(object);
        object_make(object, rng_size_skewed(&rng, 16, 1000), (uint32_t)rng_next(&rng));
    }
}

static void child(struct heap *heap, unsigned objects, unsigned long number)
{
    int status = 0;
    pid_t grandchild = number % 10 == 0 ? fork() : 1;

    if (grandchild < 0)
        fail("a child cannot fork");
    work_on(heap, objects, 5000 + number + (unsigned long)(grandchild == 0));
    if (grandchild > 1 && (waitpid(grandchild, &status, 0) < 0 || status))
        fail("a grandchild ended with status %x", (unsigned)status);
    _exit(0);
}

static volatile int stop;

static void *beside(void *arg)
{
    struct rng rng = {43};
    struct object object;

    (void)arg;
    while (!stop) {
        object_make(&object, rng_size_skewed(&rng, 16, 3000), (uint32_t)rng_next(&rng));
        object_drop(&object);
    }
    return NULL;
}

static void fork_once(struct heap *heap, unsigned objects, unsigned long number)
{
    pthread_t thread;
    int status, threaded = number % 3 == 0;
    pid_t pid;

    stop = 0;
    if (threaded && pthread_create(&thread, NULL, beside, NULL))
        fail("cannot start a thread");
    pid = fork();
    if (pid < 0)
        fail("cannot fork");
    if (pid == 0)
        child(heap, objects, number);
    work_on(heap, objects / 4, 9000 + number);
    if (waitpid(pid, &status, 0) < 0 || status)
        fail("child %lu ended with status %x", number, (unsigned)status);
    stop = 1;
    if (threaded)
        pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
    unsigned long children = argument(argc, argv, 1, 300, 1, 1000000, USAGE);
    size_t bytes = argument(argc, argv, 2, 32, 1, 16384, USAGE) << 20;
    unsigned objects = (unsigned)argument(argc, argv, 3, 2000, 4, 10000000, USAGE);
    uint64_t sum = 0;
    struct heap heap;

    heap_fill(&heap, bytes);
    for (unsigned long i = 0; i < children; i++)
        fork_once(&heap, objects, i);
    for (size_t i = 0; i < heap.count; i++) {
        sum += heap.objects[i].key;
        object_drop(&heap.objects[i]);
    }
    free(heap.objects);
    printf("ok forks sum=%llx\n", (unsigned long long)sum);
    return 0;
}
