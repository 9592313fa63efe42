/*
 * numa.c - on which node memory lies, checked by asking the kernel page by page: what is allocated,
 * freed by others, or used by threads that move, and quire's own.
 *
 * For machines with several nodes, so for test/vm; elsewhere the cases are skipped. Every case
 * runs in a process of its own. The calls of quire/numa.h are in numa_calls.c, what the user says
 * in numa_user.c.
 */
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nodes.h"

#define MPOL_PREFERRED 1

static int memory_only_node(void)
{
    for (int node = 0; node < nr_nodes; node++)
        if (has_memory[node] && first_cpu[node] < 0)
            return node;
    return -1;
}

static int cpus_only_node(void)
{
    for (int node = 0; node < nr_nodes; node++)
        if (!has_memory[node] && first_cpu[node] >= 0)
            return node;
    return -1;
}

static int distance(int from, int to)
{
    char path[96], text[256], *at = text;

    snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/distance", from);
    read_text(path, text, sizeof(text));
    for (int i = 0; i < to; i++)
        strtol(at, &at, 10);
    return (int)strtol(at, &at, 10);
}

static size_t free_on(int node)
{
    char path[96], text[512];

    snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
    read_text(path, text, sizeof(text));
    const char *at = strstr(text, "MemFree:");
    return at != NULL ? strtoul(at + 8, NULL, 10) << 10 : 0;
}

struct work {
    void (*fn)(int node, void *arg);
    int node;
    void *arg;
};

static void *work(void *arg)
{
    struct work *w = arg;

    run_on(w->node);
    w->fn(w->node, w->arg);
    return NULL;
}

/* Run fn in a new thread on the node. */
static void on_node(int node, void (*fn)(int node, void *arg), void *arg)
{
    struct work w = {fn, node, arg};
    pthread_attr_t attr;
    cpu_set_t set;
    pthread_t thread;

    /* On its CPU from the first instruction. */
    CPU_ZERO(&set);
    CPU_SET(first_cpu[node], &set);
    pthread_attr_init(&attr);
    pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
    REQUIRE(pthread_create(&thread, &attr, work, &w) == 0);
    pthread_attr_destroy(&attr);
    pthread_join(thread, NULL);
}

static void all_sizes(int node, void *arg)
{
    void *p[COUNT_OF(sizes)], *many[500];

    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        p[i] = block_on(sizes[i], node);
    for (size_t i = 0; i < COUNT_OF(many); i++)
        many[i] = block_on(16 + i * 37 % 4000, node);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(p[i]);
    for (size_t i = 0; i < COUNT_OF(many); i++)
        free(many[i]);
}

static void local_from_the_first_malloc_on(void)
{
    int a, b;

    need_two(&a, &b);
    for (int round = 0; round < 2; round++)
        for (int node = 0; node < nr_nodes; node++)
            if (has_memory[node] && first_cpu[node] >= 0)
                on_node(node, all_sizes, NULL);
}

#define NR_MANY 4000

static void fill_many(int node, void *arg)
{
    void **p = arg;

    for (size_t i = 0; i < NR_MANY; i++)
        memset(p[i] = malloc(400), 1, 400);
    p[NR_MANY] = block_on(300000, node);
    p[NR_MANY + 1] = block_on(6 * MIB, node);
}

static void free_many(int node, void *arg)
{
    void **p = arg;

    for (size_t i = 0; i < NR_MANY + 2; i++)
        free(p[i]);
}

static void take_many(int node, void *arg)
{
    void **p = arg;
    size_t others = 0;

    for (size_t i = 0; i < NR_MANY; i++) {
        memset(p[i] = malloc(400), 1, 400);
        others += pages_elsewhere(p[i], 400, node);
    }
    CHECK(others == 0, "%zu objects lie on another node", others);
    p[NR_MANY] = block_on(300000, node);
    p[NR_MANY + 1] = block_on(6 * MIB, node);
}

static void free_and_take(int node, void *arg)
{
    void **mine = calloc(NR_MANY + 2, sizeof(*mine));

    free_many(node, arg);
    take_many(node, mine);
    free_many(node, mine);
    free(mine);
}

static void what_others_free_goes_home(void)
{
    void **p = mmap(NULL, (NR_MANY + 2) * sizeof(*p), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int a, b;

    need_two(&a, &b);
    for (int round = 0; round < 3; round++) {
        on_node(a, fill_many, p);
        on_node(b, free_and_take, p);
        on_node(a, take_many, p);
        on_node(a, free_many, p);
    }
}

/* Take all of a node's memory but a little; the kernel is asked for that node alone. */
static char *hog(int node, size_t leave, size_t *size)
{
    unsigned long mask = 1ul << node;
    size_t room = free_on(node), want = room > leave ? room - leave : 0;
    char *p = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    REQUIRE(p != MAP_FAILED);
    REQUIRE(syscall(SYS_mbind, p, want, MPOL_PREFERRED, &mask, 64ul, 0) == 0);
    for (size_t at = 0; at < want && free_on(node) > leave; at += MIB)
        memset(p + at, 1, want - at < MIB ? want - at : MIB);
    *size = want;
    return p;
}

/* The node that is nearest to this one, has CPUs and memory. */
static int next_by_distance(int node)
{
    int best = -1;

    for (int other = 0; other < nr_nodes; other++)
        if (other != node && has_memory[other] &&
            (best < 0 || distance(node, other) < distance(node, best)))
            best = other;
    return best;
}

static void a_full_node_falls_to_the_next_and_comes_back(void)
{
    size_t on[MAX_NODES] = {0}, taken, n = 40 * MIB;
    int a, b;

    need_two(&a, &b);
    int next = next_by_distance(b);
    for (int other = 0; other < nr_nodes; other++)
        if (other != b && other != next && has_memory[other] &&
            distance(b, other) == distance(b, next))
            next = -1; /* a tie: any of them will do */
    run_on(b);
    free(block_on(100000, b));
    char *fill = hog(b, 12 * MIB, &taken), *p[40];
    for (size_t i = 0; i < COUNT_OF(p); i++) {
        REQUIRE((p[i] = malloc(MIB)) != NULL);
        memset(p[i], 1, MIB);
        count_pages(p[i], MIB, on);
    }
    size_t far = 0;
    for (int i = 0; i < nr_nodes; i++)
        far += i != b && i != next ? on[i] : 0;
    CHECK(on[b] * page_size < n - 10 * MIB, "the node was not full: %zu pages", on[b]);
    CHECK(next < 0 || far <= on[next] / 50, "of %zu pages that fell, %zu went too far",
          far + on[next], far);
    munmap(fill, taken);
    for (size_t i = 0; i < COUNT_OF(p); i++)
        free(p[i]);
    malloc_trim(0);
    for (size_t i = 0; i < COUNT_OF(p); i++)
        p[i] = block_on(MIB, b);
    for (size_t i = 0; i < COUNT_OF(p); i++)
        free(p[i]);
}

static void a_thread_that_moves_is_followed(void)
{
    enum { OBJECTS = 3000 };
    static char *p[OBJECTS];
    int a, b;

    need_two(&a, &b);
    run_on(a);
    for (size_t i = 0; i < OBJECTS; i++)
        memset(p[i] = malloc(200), 1, 200);
    for (size_t i = 0; i < OBJECTS; i += 2)
        free(p[i]); /* slabs of the old node with much room */
    run_on(b);
    size_t others = 0, late = 0;
    for (size_t i = 0; i < OBJECTS; i++) {
        memset(p[i] = malloc(200), 1, 200);
        bool elsewhere = pages_elsewhere(p[i], 200, b) > 0;
        others += elsewhere;
        late += elsewhere && i > OBJECTS / 2;
    }
    /* Two slabs of 64 KiB may be used up before that. */
    CHECK(others <= 2 * 65536 / 200 && late == 0, "%zu objects on the old node, %zu late", others,
          late);
    block_on(200000, b);
    block_on(8 * MIB, b);
}

static void far_memory_only_when_asked_for(void)
{
    int a, b;

    need_two(&a, &b);
    int far = memory_only_node();
    if (far < 0)
        conform_skip("there is no node without CPUs");
    run_on(a);
    for (int i = 0; i < 30; i++)
        block_on(MIB, a);
    struct quire_node_stat st;
    REQUIRE(quire_node_stat(far, &st, sizeof(st)) == 0);
    CHECK(st.numa_hit == 0 && st.used_bytes == 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *p = quire_node_alloc(sizes[i], far);
        REQUIRE(p != NULL);
        memset(p, 1, sizes[i]);
        size_t others = pages_elsewhere(p, sizes[i], far);
        CHECK(others == 0, "%zu bytes asked of node %d: %zu pages elsewhere", sizes[i], far,
              others);
        free(p);
    }
}

static void take_nearest(int node, void *arg)
{
    int nearest = next_by_distance(node);

    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(block_on(sizes[i], nearest));
}

static void cpus_without_memory_have_the_nearest(void)
{
    int a, b;

    need_two(&a, &b);
    int bare = cpus_only_node();
    if (bare < 0)
        conform_skip("every node has memory");
    on_node(bare, take_nearest, NULL);
}

/* Everything that the kernel says is for a node, descriptors and heaps included, lies on it. */
static void metadata_lies_on_its_node(void)
{
    static char line[4096];
    unsigned areas[MAX_NODES] = {0};
    int a, b;

    need_two(&a, &b);
    for (int node = 0; node < nr_nodes; node++)
        if (has_memory[node] && first_cpu[node] >= 0)
            on_node(node, all_sizes, NULL);
    FILE *f = fopen("/proc/self/numa_maps", "r");
    REQUIRE(f != NULL);
    while (fgets(line, sizeof(line), f) != NULL) {
        const char *policy = strstr(line, " prefer:");
        if (policy == NULL)
            continue;
        int node = atoi(policy + 8);
        for (int other = 0; other < nr_nodes; other++) {
            char name[16];
            snprintf(name, sizeof(name), " N%d=", other);
            const char *at = strstr(line, name);
            areas[other] += at != NULL && other == node;
            CHECK(at == NULL || other == node, "pages on another node: %s", line);
        }
    }
    fclose(f);
    /* Zones, slab descriptors, struct pages, pageblocks; the node's own structures and heaps. */
    for (int node = 0; node < nr_nodes; node++)
        CHECK(!has_memory[node] || first_cpu[node] < 0 || areas[node] >= 5, "node %d has %u areas",
              node, areas[node]);
}

static const struct conform_case cases[] = {
    {"local_from_the_first_malloc_on", local_from_the_first_malloc_on, 120},
    {"what_others_free_goes_home", what_others_free_goes_home, 120},
    {"a_full_node_falls_to_the_next_and_comes_back", a_full_node_falls_to_the_next_and_comes_back,
     120},
    {"a_thread_that_moves_is_followed", a_thread_that_moves_is_followed, 120},
    {"far_memory_only_when_asked_for", far_memory_only_when_asked_for, 120},
    {"cpus_without_memory_have_the_nearest", cpus_without_memory_have_the_nearest, 120},
    {"metadata_lies_on_its_node", metadata_lies_on_its_node, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
