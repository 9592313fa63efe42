/*
 * trees: build binary trees and drop them again, many of the same small size, while one large tree
 * stays. Allocation in one order, release in another, nearly no other work: the pattern of
 * compilers, interpreters and anything else that builds a structure per request.
 *
 * With several threads each has its own trees; nothing crosses over.
 */
#include "common.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define USAGE "[DEPTH [ROUNDS [THREADS]]]   (14, 20, 1)"

struct node {
    struct node *left;
    struct node *right;
    uint64_t key;
};

struct work {
    pthread_t thread;
    unsigned depth;
    unsigned rounds;
    uint64_t seed;
    uint64_t nodes;
};

static struct node *build(unsigned depth, uint64_t key)
{
    struct node *node = must_alloc(sizeof(*node));

    node->key = key;
    node->left = depth ? build(depth - 1, key * 2 + 1) : NULL;
    node->right = depth ? build(depth - 1, key * 2 + 2) : NULL;
    return node;
}

/* checks every node's bytes on the way down; returns how many there were */
static uint64_t drop(struct node *node, unsigned depth, uint64_t key)
{
    uint64_t nodes = 1;

    if (node->key != key || !node->left != !depth || !node->right != !depth)
        fail("the node at %p is not what was written there", (void *)node);
    if (depth) {
        nodes += drop(node->left, depth - 1, key * 2 + 1);
        nodes += drop(node->right, depth - 1, key * 2 + 2);
    }
    free(node);
    return nodes;
}

static void *run(void *arg)
{
    struct work *work = arg;
    struct rng rng = {work->seed};
    uint64_t lasting = rng_next(&rng);
    struct node *kept = build(work->depth, lasting);

    for (unsigned round = 0; round < work->rounds; round++) {
        for (unsigned depth = 4; depth <= work->depth; depth += 2) {
            uint64_t trees = 1ULL << (work->depth - depth);

            while (trees--) {
                uint64_t key = rng_next(&rng);

                work->nodes += drop(build(depth, key), depth, key);
            }
        }
    }
    work->nodes += drop(kept, work->depth, lasting);
    return NULL;
}

static uint64_t expected(const struct work *work)
{
    uint64_t round = 0;

    for (unsigned depth = 4; depth <= work->depth; depth += 2)
        round += (1ULL << (work->depth - depth)) * ((2ULL << depth) - 1);
    return round * work->rounds + (2ULL << work->depth) - 1;
}

int main(int argc, char **argv)
{
    unsigned depth = (unsigned)argument(argc, argv, 1, 14, 4, 24, USAGE);
    unsigned rounds = (unsigned)argument(argc, argv, 2, 20, 1, 100000, USAGE);
    unsigned threads = (unsigned)argument(argc, argv, 3, 1, 1, 256, USAGE);
    struct work *works = calloc(threads, sizeof(*works));
    uint64_t nodes = 0;

    if (!works)
        fail("no memory for %u threads", threads);
    for (unsigned i = 0; i < threads; i++) {
        works[i] = (struct work){.depth = depth, .rounds = rounds, .seed = i + 1};
        if (threads == 1)
            run(&works[i]);
        else if (pthread_create(&works[i].thread, NULL, run, &works[i]))
            fail("cannot start thread %u", i);
    }
    for (unsigned i = 0; i < threads; i++) {
        if (threads > 1)
            pthread_join(works[i].thread, NULL);
        if (works[i].nodes != expected(&works[i]))
            fail("thread %u saw %llu nodes", i, (unsigned long long)works[i].nodes);
        nodes += works[i].nodes;
    }
    free(works);
    printf("ok trees nodes=%llu\n", (unsigned long long)nodes);
    return 0;
}
