/*
 * sharing: false sharing that an allocator causes or spreads. Each thread writes to small objects
 * of its own, over and over; where two of them lie in one cache line, each write waits for the
 * other processor.
 *
 *     active    threads allocate at the same time: does the allocator put objects of different
 *               threads into one line?
 *     passive   one thread allocates neighbours and gives one to each thread, which frees it and
 *               allocates again: does the allocator hand the shared line out once more?
 */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define USAGE "active|passive [THREADS [ROUNDS [WRITES [SIZE]]]]   (2, 2000, 1000, 8)"

struct worker {
    pthread_t thread;
    unsigned char *given;
    unsigned rounds;
    unsigned writes;
    size_t size;
    uint64_t sum;
};

static pthread_barrier_t together;

static void write_over_and_over(volatile unsigned char *bytes, size_t size, unsigned writes)
{
    for (unsigned i = 0; i < writes; i++)
        bytes[i % size]++;
    for (size_t i = 0; i < size; i++) {
        unsigned want = (unsigned)(writes / size + (i < writes % size));

        if (bytes[i] != (unsigned char)want)
            fail("byte %zu at %p is %u instead of %u", i, (void *)(uintptr_t)bytes, bytes[i],
                 (unsigned char)want);
    }
}

static void *run(void *arg)
{
    struct worker *worker = arg;

    pthread_barrier_wait(&together);
    if (worker->given) {
        pattern_check(worker->given, worker->size, worker->size);
        free(worker->given);
    }
    for (unsigned round = 0; round < worker->rounds; round++) {
        unsigned char *bytes = must_alloc(worker->size);

        memset(bytes, 0, worker->size);
        write_over_and_over(bytes, worker->size, worker->writes);
        free(bytes);
        worker->sum += worker->writes;
    }
    return NULL;
}

int main(int argc, char **argv)
{
    int passive = argc > 1 && !strcmp(argv[1], "passive");
    unsigned count = (unsigned)argument(argc, argv, 2, 2, 1, 256, USAGE);
    unsigned rounds = (unsigned)argument(argc, argv, 3, 2000, 1, 100000000, USAGE);
    unsigned writes = (unsigned)argument(argc, argv, 4, 1000, 1, 100000000, USAGE);
    size_t size = argument(argc, argv, 5, 8, 1, 4096, USAGE);
    struct worker *workers = calloc(count, sizeof(*workers));
    uint64_t sum = 0;

    if (argc > 1 && !passive && strcmp(argv[1], "active") != 0) {
        fprintf(stderr, "sharing: not \"%s\"\nusage: sharing %s\n", argv[1], USAGE);
        return 2;
    }
    if (!workers)
        fail("no memory for %u threads", count);
    pthread_barrier_init(&together, NULL, count);
    for (unsigned i = 0; i < count; i++) {
        workers[i] = (struct worker){.rounds = rounds, .writes = writes, .size = size};
        if (passive) {
            workers[i].given = must_alloc(size);
            pattern_write(workers[i].given, size, size);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]))
            fail("cannot start thread %u", i);
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        sum += workers[i].sum;
    }
    free(workers);
    printf("ok sharing writes=%llu\n", (unsigned long long)sum);
    return 0;
}
