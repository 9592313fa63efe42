/*
 * numa.c - what quire promises of nodes, checked by asking the kernel page by page.
 *
 * For machines with several nodes, so for test/vm; elsewhere the cases are skipped. Every case
 * runs in a process of its own.
 */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/heap.h"
#include "quire/numa.h"
#include "quire/page.h"
#include "quire/quire.h"

#define MAX_NODES 16
#define MIB ((size_t)1 << 20)
#define MPOL_PREFERRED 1
#define MPOL_BIND 2
#define MPOL_INTERLEAVE 3

/* The machine, by sysfs: nodes with memory, and the first CPU of each; -1: none. */
static int nr_nodes, first_cpu[MAX_NODES], has_memory[MAX_NODES];
static size_t page_size;

static int read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return (int)n;
}

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return ok;
}

static void learn_machine(void)
{
    char path[96], text[256];

    page_size = (size_t)sysconf(_SC_PAGESIZE);
    for (int node = 0; node < MAX_NODES; node++) {
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
        if (read_text(path, text, sizeof(text)) < 0)
            break;
        nr_nodes = node + 1;
        first_cpu[node] = text[0] >= '0' && text[0] <= '9' ? atoi(text) : -1;
        snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
        read_text(path, text, sizeof(text));
        const char *total = strstr(text, "MemTotal:");
        has_memory[node] = total != NULL && atol(total + 9) > 0;
    }
}

/* Skip the case unless there are two nodes with memory and CPUs: the first two, in a and b. */
static void need_two(int *a, int *b)
{
    *a = *b = -1;
    learn_machine();
    for (int node = 0; node < nr_nodes; node++) {
        if (!has_memory[node] || first_cpu[node] < 0)
            continue;
        if (*a < 0)
            *a = node;
        else if (*b < 0)
            *b = node;
    }
    if (*b < 0)
        conform_skip("there are no two nodes");
}

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

static void run_on(int node)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(first_cpu[node], &set);
    REQUIRE(sched_setaffinity(0, sizeof(set), &set) == 0);
}

/* Pages of [p, p + n) by node; what has no memory is not counted. */
static void count_pages(const void *p, size_t n, size_t on[MAX_NODES])
{
    for (uintptr_t at = (uintptr_t)p & ~(page_size - 1); at < (uintptr_t)p + n; at += page_size) {
        void *page = (void *)at;
        int node = -1;

        REQUIRE(syscall(SYS_move_pages, 0, 1ul, &page, NULL, &node, 0) == 0);
        if (node >= 0 && node < MAX_NODES)
            on[node]++;
    }
}

static size_t pages_elsewhere(const void *p, size_t n, int node)
{
    size_t on[MAX_NODES] = {0}, others = 0;

    count_pages(p, n, on);
    for (int i = 0; i < MAX_NODES; i++)
        others += i != node ? on[i] : 0;
    return others;
}

/* A block of n bytes, written, whose pages all lie on the node. */
static void *block_on(size_t n, int node)
{
    char *p = malloc(n);

    REQUIRE(p != NULL);
    memset(p, 1, n);
    size_t others = pages_elsewhere(p, n, node);
    CHECK(others == 0, "%zu bytes for node %d: %zu pages elsewhere", n, node, others);
    return p;
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

static const size_t sizes[] = {16, 100, 1000, 8000, 30000, 100000, 1000000, 3000000, 10000000};

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
        CHECK(others == 0, "%zu bytes asked of node %d: %zu pages elsewhere", sizes[i], far, others);
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
        CHECK(!has_memory[node] || first_cpu[node] < 0 || areas[node] >= 5,
              "node %d has %u areas", node, areas[node]);
}

/* --- the interface ---------------------------------------------------------------------------- */

static void asked_by_number(void)
{
    unsigned long mask = 0;
    int a, b;

    need_two(&a, &b);
    run_on(a);
    CHECK(quire_nodes(&mask, 64) >= 2 && (mask >> a & 1) != 0 && (mask >> b & 1) != 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *p = quire_node_alloc(sizes[i], b);
        REQUIRE(p != NULL);
        memset(p, 1, sizes[i]);
        CHECK(pages_elsewhere(p, sizes[i], b) == 0, "%zu bytes", sizes[i]);
        CHECK(quire_node_of(p) == b);
        free(p);
        free(block_on(sizes[i], a));
    }
    errno = 0;
    CHECK(quire_node_alloc(100, 999) == NULL && errno == ENXIO);
}

/* By how many pages interleaving may miss: where the kernel interleaves huge pages, by one of them. */
static size_t huge_slack(void)
{
    char text[256];

    read_text("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text));
    return strstr(text, "[always]") != NULL ? 2 * MIB / page_size : 0;
}

static void policies(void)
{
    size_t on[MAX_NODES] = {0};
    int a, b;

    need_two(&a, &b);
    size_t n = 2048 * page_size; /* a mapping of its own, which the kernel interleaves */
    run_on(a);
    unsigned long only_b = 1ul << b, both = 1ul << a | 1ul << b;
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_PREFERRED, &only_b, 64) == 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(block_on(sizes[i], b));
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_BIND, &only_b, 64) == 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(block_on(sizes[i], b));
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_INTERLEAVE, &both, 64) == 0);
    char *p = malloc(n);
    memset(p, 1, n);
    count_pages(p, n, on);
    size_t slack = huge_slack(), half = n / page_size / 2;
    CHECK(on[a] + slack >= half && on[b] + slack >= half, "%zu and %zu pages", on[a], on[b]);
    free(p);
    memset(on, 0, sizeof(on));
    for (int i = 0; i < 64; i++) {
        memset(p = malloc(50000), 1, 50000);
        count_pages(p, 1, on);
    }
    CHECK(on[a] == 32 && on[b] == 32, "runs: %zu and %zu", on[a], on[b]);
    memset(on, 0, sizeof(on));
    for (int i = 0; i < 6000; i++) {
        memset(p = malloc(200), 1, 200);
        count_pages(p, 1, on);
    }
    CHECK(on[a] > 2000 && on[b] > 2000, "objects: %zu and %zu", on[a], on[b]);
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_DEFAULT, NULL, 0) == 0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        free(block_on(sizes[i], a));
}

static void weighted_interleave(void)
{
    static const char root[] = "/sys/kernel/mm/mempolicy/weighted_interleave/node";
    size_t on[MAX_NODES] = {0};
    char path[96];
    int a, b;

    need_two(&a, &b);
    size_t n = 2048 * page_size;
    unsigned long both = 1ul << a | 1ul << b;
    if (quire_mempolicy_set(QUIRE_MPOL_WEIGHTED_INTERLEAVE, &both, 64) != 0) {
        CHECK(errno == ENOTSUP);
        conform_skip("this kernel has no weighted interleave");
    }
    snprintf(path, sizeof(path), "%s%d", root, a);
    REQUIRE(write_text(path, "3"));
    snprintf(path, sizeof(path), "%s%d", root, b);
    REQUIRE(write_text(path, "1"));
    REQUIRE(quire_mempolicy_set(QUIRE_MPOL_WEIGHTED_INTERLEAVE, &both, 64) == 0);
    char *p = malloc(n);
    memset(p, 1, n);
    count_pages(p, n, on);
    size_t slack = 4 * huge_slack(), quarter = n / page_size / 4;
    CHECK(on[a] + slack >= 3 * quarter && on[b] + slack >= quarter, "%zu and %zu pages", on[a],
          on[b]);
    memset(on, 0, sizeof(on));
    for (int i = 0; i < 64; i++) {
        memset(p = malloc(50000), 1, 50000);
        count_pages(p, 1, on);
    }
    CHECK(on[a] == 48 && on[b] == 16, "runs: %zu and %zu", on[a], on[b]);
}

static void migrate(void)
{
    static const size_t of[] = {100, 20000, 300000, 6 * MIB};
    int a, b;

    need_two(&a, &b);
    run_on(a);
    for (size_t i = 0; i < COUNT_OF(of); i++) {
        char *p = block_on(of[i], a);
        conform_fill(p, of[i], (unsigned)i);
        ssize_t moved = quire_migrate(p, of[i], b);
        CHECK(moved >= (ssize_t)(of[i] / page_size), "%zd pages moved, errno %d", moved, errno);
        CHECK(pages_elsewhere(p, of[i], b) == 0, "%zu bytes", of[i]);
        CHECK(conform_intact(p, of[i], (unsigned)i));
        free(p);
        malloc_trim(0);
        free(block_on(of[i], a)); /* what moved away came back, or was not used again */
    }
    char *p = malloc(100);
    errno = 0;
    CHECK(quire_migrate(p, 100, 999) == -1 && errno == ENXIO);
    CHECK(quire_migrate(p, 0, b) == -1 && errno == EINVAL);
}

/* Blocks that grew where they are begin anywhere: the last page alone is moved, and comes home. */
static void migrate_tails(void)
{
    char *p[16];
    size_t nr = 0;
    int a, b;

    need_two(&a, &b);
    run_on(a);
    /* Runs are longer than 32 KiB; from 256 KiB on, what cannot grow where it is gets a mapping. */
    size_t least = 32768 / page_size + 1, grown = least + 5;
    for (; nr < COUNT_OF(p) && (grown + nr) * page_size < MIB / 4; nr++) {
        p[nr] = malloc((least + nr) * page_size);
        p[nr] = realloc(p[nr], (grown + nr) * page_size);
        memset(p[nr], 1, (grown + nr) * page_size);
    }
    for (size_t i = 0; i < nr; i++) {
        char *last = p[i] + (grown + i - 1) * page_size;

        CHECK(quire_migrate(last, 1, b) == 1 && pages_elsewhere(last, 1, b) == 0);
        free(p[i]);
        CHECK(pages_elsewhere(last, 1, a) == 0, "%zu pages", grown + i);
    }
}

static void heaps_of_a_node(void)
{
    static const size_t of[] = {100, 20000, 300000, 20 * MIB};
    char *p[COUNT_OF(of)];
    int a, b;

    need_two(&a, &b);
    run_on(a);
    struct quire_heap_attr on_b = {.flags = QUIRE_HEAP_NODE, .node = b};
    struct quire_heap *h = quire_heap_create(&on_b);
    REQUIRE(h != NULL);
    CHECK(quire_heap_migrate(h, b) == 0, "it holds nothing yet");
    for (size_t i = 0; i < COUNT_OF(of); i++) {
        REQUIRE((p[i] = quire_heap_alloc(h, of[i])) != NULL);
        conform_fill(p[i], of[i], (unsigned)i);
        CHECK(pages_elsewhere(p[i], of[i], b) == 0, "%zu bytes", of[i]);
    }
    CHECK(quire_heap_migrate(h, a) > (ssize_t)(20 * MIB / page_size));
    for (size_t i = 0; i < COUNT_OF(of); i++) {
        CHECK(conform_intact(p[i], of[i], (unsigned)i));
        CHECK(pages_elsewhere(p[i], of[i], a) == 0, "%zu bytes", of[i]);
    }
    char *more = quire_heap_alloc(h, 200000);
    memset(more, 1, 200000);
    CHECK(pages_elsewhere(more, 200000, a) == 0);
    CHECK(quire_heap_migrate(h, 999) == -1 && errno == ENXIO);
    quire_heap_destroy(h);
    free(block_on(300000, a));
}

static void numastat(void)
{
    struct quire_node_stat s, t;
    int a, b;
    void *p[64];

    need_two(&a, &b);
    run_on(a);
    free(malloc(1));
    REQUIRE(quire_node_stat(a, &s, sizeof(s)) == 0);
    for (size_t i = 0; i < 64; i++)
        p[i] = malloc(100000);
    REQUIRE(quire_node_stat(a, &t, sizeof(t)) == 0);
    CHECK(t.numa_hit - s.numa_hit == 64 && t.local_node - s.local_node == 64);
    CHECK(t.numa_miss == 0 && t.numa_foreign == 0 && t.other_node == 0);
    CHECK(t.used_bytes - s.used_bytes >= 64 * 100000);
    REQUIRE(quire_node_stat(b, &s, sizeof(s)) == 0);
    for (size_t i = 0; i < 64; i++) {
        free(p[i]);
        p[i] = quire_node_alloc(100000, b);
    }
    REQUIRE(quire_node_stat(b, &t, sizeof(t)) == 0);
    CHECK(t.numa_hit - s.numa_hit == 64 && t.other_node - s.other_node == 64);
    CHECK(t.local_node == s.local_node);
}

/* --- what the user says stands above ---------------------------------------------------------- */

/* What `self` does under a policy: its memory must lie on the nodes of a mask, on each of them. */
static int under_policy(const char *words)
{
    unsigned long mask = strtoul(words, NULL, 0);
    size_t on[MAX_NODES] = {0}, others = 0;

    learn_machine();
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        char *p = malloc(sizes[i]);
        memset(p, 1, sizes[i]);
        count_pages(p, sizes[i], on);
    }
    for (int i = 0; i < MAX_NODES; i++)
        others += (mask >> i & 1) == 0 ? on[i] : 0;
    for (int i = 0; i < nr_nodes; i++)
        if ((mask >> i & 1) != 0 && on[i] == 0)
            return 2;
    return others == 0 ? 0 : 1;
}

static int again(unsigned long mask)
{
    char words[32], self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        self[n > 0 ? n : 0] = '\0';
        snprintf(words, sizeof(words), "%#lx", mask);
        execl(self, self, "--under", words, NULL);
        _exit(9);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + status;
}

static void numactl_is_respected(void)
{
    int a, b;

    need_two(&a, &b);
    unsigned long both = 1ul << a | 1ul << b;
    const struct {
        int mode;
        unsigned long mask;
    } how[] = {{MPOL_BIND, 1ul << b}, {MPOL_PREFERRED, 1ul << b}, {MPOL_INTERLEAVE, both},
               {MPOL_BIND, 1ul << a}};
    for (size_t i = 0; i < COUNT_OF(how); i++) {
        run_on(i == 3 ? b : a);
        REQUIRE(syscall(SYS_set_mempolicy, how[i].mode, &how[i].mask, 64ul) == 0);
        int status = again(how[i].mask);
        CHECK(status == 0, "mode %d, mask %#lx: %d", how[i].mode, how[i].mask, status);
    }
}

static void a_cpuset_is_respected(void)
{
    static const char group[] = "/sys/fs/cgroup/quire-test";
    char path[96], text[32];
    int a, b;

    need_two(&a, &b);
    write_text("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset");
    mkdir(group, 0755);
    snprintf(path, sizeof(path), "%s/cpuset.mems", group);
    snprintf(text, sizeof(text), "%d", b);
    if (!write_text(path, text))
        conform_skip("no cpuset in /sys/fs/cgroup");
    snprintf(path, sizeof(path), "%s/cgroup.procs", group);
    run_on(a);
    REQUIRE(write_text(path, "0"));
    int status = again(1ul << b);
    CHECK(status == 0, "%d", status);
    write_text("/sys/fs/cgroup/cgroup.procs", "0");
    rmdir(group);
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
    {"asked_by_number", asked_by_number, 120},
    {"policies", policies, 120},
    {"weighted_interleave", weighted_interleave, 120},
    {"migrate", migrate, 120},
    {"migrate_tails", migrate_tails, 120},
    {"heaps_of_a_node", heaps_of_a_node, 120},
    {"numastat", numastat, 120},
    {"numactl_is_respected", numactl_is_respected, 120},
    {"a_cpuset_is_respected", a_cpuset_is_respected, 120},
};

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--under") == 0)
        return under_policy(argv[2]);
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
