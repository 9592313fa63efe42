/*
 * numa.c - the interface of quire/numa.h, on the nodes there are or that are pretended. What the
 * kernel says of pages is for test/vm.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/heap.h"
#include "quire/numa.h"
#include "quire/page.h"
#include "quire/quire.h"

#define MAXNODE (8 * sizeof(unsigned long))

static unsigned long all;
static int nr;

static void learn(void)
{
    nr = quire_nodes(&all, MAXNODE);
    REQUIRE(nr >= 1 && __builtin_popcountl(all) == nr);
}

/* The node that quire set the memory up on; mappings of their own have none. */
static int home(const void *p)
{
    struct quire_page *page = quire_virt_to_page(p);

    return page != NULL ? quire_page_to_nid(page) : -1;
}

static const size_t sizes[] = {1, 16, 100, 5000, 32768, 32769, 200000, 4000000, 5000000};

static void on_each_node(void)
{
    char *p[64][COUNT_OF(sizes)];

    learn();
    for (int node = 0; node < nr; node++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            REQUIRE((p[node][i] = quire_node_alloc(sizes[i], node)) != NULL);
            CHECK((uintptr_t)p[node][i] % 16 == 0 && malloc_usable_size(p[node][i]) >= sizes[i]);
            bool mapping = sizes[i] > 1024 * (size_t)sysconf(_SC_PAGESIZE);
            CHECK(home(p[node][i]) == (mapping ? -1 : node), "%zu bytes", sizes[i]);
            conform_fill(p[node][i], sizes[i], (unsigned)(node * 100 + (int)i));
        }
    }
    for (int node = 0; node < nr; node++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            CHECK(conform_intact(p[node][i], sizes[i], (unsigned)(node * 100 + (int)i)));
            p[node][i] = realloc(p[node][i], 2 * sizes[i]);
            CHECK(conform_intact(p[node][i], sizes[i], (unsigned)(node * 100 + (int)i)));
            free(p[node][i]);
        }
    }
    void *local = quire_node_alloc(100, QUIRE_NODE_LOCAL);
    CHECK(home(local) >= 0);
    free(local);
}

static void wrong_arguments(void)
{
    unsigned long mask[2] = {0, 0}, none = 0, bad[2] = {0, 1ul << (8 * sizeof(long) - 1)};
    struct quire_node_stat st;
    enum quire_mempolicy mode;

    learn();
    errno = 0;
    CHECK(quire_node_alloc(10, 1000) == NULL && errno == ENXIO);
    CHECK(quire_node_alloc(10, -2) == NULL && errno == ENXIO);
    errno = 0;
    CHECK(quire_node_alloc(0, 0) == NULL && errno == EINVAL);
    CHECK(quire_node_alloc(SIZE_MAX, 0) == NULL && errno == ENOMEM);
    CHECK(quire_mempolicy_set((enum quire_mempolicy)77, NULL, 0) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(quire_mempolicy_set(QUIRE_MPOL_PREFERRED, NULL, 0) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(quire_mempolicy_set(QUIRE_MPOL_BIND, &none, MAXNODE) == -1 && errno == EINVAL);
    CHECK(quire_mempolicy_set(QUIRE_MPOL_INTERLEAVE, bad, 128) == -1 && errno == ENXIO);
    CHECK(quire_mempolicy_get(&mode, NULL, 0) == 0 && mode == QUIRE_MPOL_DEFAULT);
    CHECK(quire_mempolicy_set(QUIRE_MPOL_BIND, &all, MAXNODE) == 0);
    CHECK(quire_mempolicy_get(&mode, mask, 128) == 0 && mode == QUIRE_MPOL_BIND && mask[0] == all &&
          mask[1] == 0);
    errno = 0;
    CHECK(quire_mempolicy_get(&mode, mask, 0) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(quire_migrate(mask, 0, 0) == -1 && errno == EINVAL);
    CHECK(quire_migrate(mask, 10, 1000) == -1 && errno == ENXIO);
    errno = 0;
    CHECK(quire_node_stat(1000, &st, sizeof(st)) == -1 && errno == ENXIO);
    CHECK(quire_node_stat(0, &st, sizeof(st) - 1) == -1 && errno == EINVAL);
    errno = 0;
    CHECK(quire_node_of((void *)16) == -1 && errno != 0);
}

static void turns(void)
{
    size_t on[64] = {0};

    learn();
    int blocks = 50 * nr;
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_INTERLEAVE, NULL, 0) == 0);
    for (int i = 0; i < blocks; i++)
        on[home(malloc(40000))]++;
    for (int node = 0; node < nr; node++)
        CHECK(on[node] == 50, "%zu on node %d", on[node], node);
    memset(on, 0, sizeof(on));
    for (int i = 0; i < 40000; i++)
        on[home(malloc(100))]++;
    for (int node = 0; node < nr; node++)
        CHECK(on[node] > 40000 / (size_t)nr / 2, "%zu objects on node %d", on[node], node);
}

static void a_change_of_policy_counts_at_once(void)
{
    learn();
    for (int node = 0; node < nr; node++) {
        unsigned long mask = 1ul << node;

        REQUIRE(quire_mempolicy_set(QUIRE_MPOL_PREFERRED, &mask, MAXNODE) == 0);
        for (int i = 0; i < 1000; i++) {
            void *p = malloc(16 + (size_t)i);
            CHECK(home(p) == node);
            if (i % 3 != 0)
                free(p);
        }
        struct quire_page *page = quire_alloc_page(0);
        CHECK(quire_page_to_nid(page) == node);
        quire_put_page(page);
    }
}

static void *default_policy(void *arg)
{
    enum quire_mempolicy mode = QUIRE_MPOL_BIND;

    CHECK(quire_mempolicy_get(&mode, NULL, 0) == 0 && mode == QUIRE_MPOL_DEFAULT);
    return NULL;
}

static void a_policy_is_its_threads_own(void)
{
    pthread_t thread;

    learn();
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_BIND, &all, MAXNODE) == 0);
    REQUIRE(pthread_create(&thread, NULL, default_policy, NULL) == 0);
    pthread_join(thread, NULL);
}

/* Many threads take objects of all nodes and free each other's. */
#define THREADS 4
#define SHARED 4096
static void *_Atomic shared[SHARED];

static void *exchange(void *arg)
{
    uint64_t state = (uint64_t)(uintptr_t)arg;

    for (int i = 0; i < 30000; i++) {
        size_t n = 1 + conform_random(&state) % 2000;
        char *p = quire_node_alloc(n, (int)(conform_random(&state) % (unsigned)nr));

        REQUIRE(p != NULL);
        memset(p, 1, n);
        free(__atomic_exchange_n((void **)&shared[conform_random(&state) % SHARED], p,
                                 __ATOMIC_ACQ_REL));
    }
    return NULL;
}

static void threads_share_nodes(void)
{
    pthread_t thread[THREADS];

    learn();
    for (size_t i = 0; i < THREADS; i++)
        REQUIRE(pthread_create(&thread[i], NULL, exchange, (void *)(i + 1)) == 0);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (size_t i = 0; i < SHARED; i++)
        free(shared[i]);
}

static void counters(void)
{
    struct quire_node_stat before, after;

    learn();
    int node = nr - 1;
    REQUIRE(quire_node_stat(node, &before, sizeof(before)) == 0);
    for (int i = 0; i < 10; i++)
        quire_node_alloc(50000, node);
    REQUIRE(quire_node_stat(node, &after, sizeof(after)) == 0);
    CHECK(after.numa_hit - before.numa_hit == 10);
    CHECK(after.local_node + after.other_node - before.local_node - before.other_node == 10);
    CHECK(after.used_bytes - before.used_bytes >= 10 * 50000);
    CHECK(after.numa_miss == 0 && after.numa_foreign == 0);
}

static void migrating_keeps_the_content(void)
{
    size_t n = 600000;

    learn();
    char *p = quire_node_alloc(n, 0);
    conform_fill(p, n, 5);
    for (int node = nr - 1; node >= 0; node--)
        CHECK(quire_migrate(p, n, node) >= 0, "errno %d", errno);
    CHECK(conform_intact(p, n, 5));
    free(p);
}

static void a_heap_moves(void)
{
    learn();
    struct quire_heap *h = quire_heap_create(NULL);
    char *p = quire_heap_alloc(h, 100000), *q;

    REQUIRE(p != NULL);
    conform_fill(p, 100000, 3);
    for (int node = 0; node < nr; node++) {
        CHECK(quire_heap_migrate(h, node) >= 0, "errno %d", errno);
        CHECK((q = quire_heap_alloc(h, 200000)) != NULL && home(q) == node);
    }
    CHECK(conform_intact(p, 100000, 3));
    errno = 0;
    CHECK(quire_heap_migrate(h, 1000) == -1 && errno == ENXIO);
    quire_heap_destroy(h);
}

static const struct conform_case cases[] = {
    {"on_each_node", on_each_node, 0},
    {"wrong_arguments", wrong_arguments, 0},
    {"turns", turns, 0},
    {"a_change_of_policy_counts_at_once", a_change_of_policy_counts_at_once, 0},
    {"a_policy_is_its_threads_own", a_policy_is_its_threads_own, 0},
    {"threads_share_nodes", threads_share_nodes, 120},
    {"counters", counters, 0},
    {"migrating_keeps_the_content", migrating_keeps_the_content, 0},
    {"a_heap_moves", a_heap_moves, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
