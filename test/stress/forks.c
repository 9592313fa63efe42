/*
 * forks.c - fork while threads allocate; the child, alone, checks what it inherited, allocates,
 * frees, starts threads of its own, forks once more, and ends in time.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

#define INHERITED 400

static struct block *inherited[INHERITED];

static void *worker(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);
    struct block *own[64] = {NULL};

    while (!stress_over()) {
        struct block **b = &own[rng_below(&r, 64)];

        if (*b == NULL) {
            *b = block_new(&r, random_size(&r));
        } else {
            block_free(*b);
            *b = NULL;
        }
    }
    for (size_t i = 0; i < 64; i++)
        if (own[i] != NULL)
            block_free(own[i]);
    return NULL;
}

static void *child_thread(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);

    for (int i = 0; i < 200; i++)
        block_free(block_new(&r, random_size(&r)));
    return NULL;
}

static void wait_for(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid)
        stress_fail("waitpid: error %d", errno);
    if (status != 0)
        stress_fail("the child ended with status %#x%s", status,
                    WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? " (it hung)" : "");
}

static void child(uint64_t salt, int depth)
{
    struct rng r = rng_for(salt);
    struct block *own[100];
    pthread_t t[2];

    alarm(300);
    for (size_t i = 0; i < INHERITED; i += 3)
        block_free(inherited[i]);
    for (size_t i = 0; i < 100; i++)
        own[i] = block_new(&r, random_size(&r));
    for (size_t i = 0; i < 2; i++)
        if (pthread_create(&t[i], NULL, child_thread, (void *)(uintptr_t)(salt + i)) != 0)
            stress_fail("no thread in the child");
    for (size_t i = 1; i < INHERITED; i += 3)
        inherited[i] = block_resize(&r, inherited[i], random_size(&r));
    if (depth > 0) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(200);
            for (size_t i = 0; i < 100; i++)
                block_free(own[i]);
            _exit(0);
        }
        wait_for(pid);
    }
    for (size_t i = 0; i < 2; i++)
        pthread_join(t[i], NULL);
    for (size_t i = 0; i < 100; i++)
        block_free(own[i]);
    for (size_t i = 0; i < INHERITED; i++)
        if (i % 3 != 0)
            block_free(inherited[i]);
    _exit(0);
}

int main(int argc, char **argv)
{
    pthread_t t[256];
    uint64_t forks = 0;

    stress_start(argc, argv, 4, 4);
    struct rng r = rng_for(0);
    for (size_t i = 0; i < INHERITED; i++)
        inherited[i] = block_new(&r, random_size(&r));
    for (size_t i = 0; i < stress.threads; i++)
        if (pthread_create(&t[i], NULL, worker, (void *)(i + 1)) != 0)
            stress_fail("no thread");
    /* On a machine that is so busy, the last ones are without the threads. */
    for (; !stress_over() || forks < 3; forks++) {
        pid_t pid = fork();
        if (pid == 0)
            child(forks + 100, forks % 4 == 0);
        if (pid < 0)
            stress_fail("fork: error %d", errno);
        wait_for(pid);
        /* And the parent goes on as if nothing had happened. */
        size_t i = rng_below(&r, INHERITED);
        inherited[i] = block_resize(&r, inherited[i], random_size(&r));
    }
    for (size_t i = 0; i < stress.threads; i++)
        pthread_join(t[i], NULL);
    for (size_t i = 0; i < INHERITED; i++)
        block_free(inherited[i]);
    return stress_end();
}
