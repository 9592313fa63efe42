/*
 * nodespeed - how fast each node's CPUs reach each node's memory, measured.
 *
 *   nodespeed [-m MIB]
 *
 * The firmware's distances ("numactl -H") are what somebody once typed in; this
 * is what it costs: from one CPU of each node, reading memory of each node in
 * a row (GB/s), and word by word in random order, each address read from the
 * word before (ns). A line that stands out is a link that is not what it
 * should be, or memory that did not land where it was asked for: that is
 * checked, page by page, and said.
 *
 * On a laptop there is one node; QUIRE_CONF=numa_fake:2 shows the form of it.
 */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <quire/numa.h>

#define MAX_NODES 1024
#define WORD_BITS (8 * sizeof(unsigned long))
#define LINE 64
#define STEPS 1000000ul

static unsigned long nodes[MAX_NODES / WORD_BITS];

static int uses(int node)
{
    return (int)(nodes[(unsigned)node / WORD_BITS] >> (unsigned)node % WORD_BITS & 1);
}

/* Run on the CPUs of a node; 0 where it has none. With pretended nodes the kernel knows of one. */
static int run_on(int node)
{
    char path[96], list[4096], *at = list;
    cpu_set_t set;

    snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return 1;
    at = fgets(list, sizeof(list), f);
    fclose(f);
    CPU_ZERO(&set);
    while (at != NULL && *at >= '0' && *at <= '9') {
        unsigned long first = strtoul(at, &at, 10), last = first;

        if (*at == '-')
            last = strtoul(at + 1, &at, 10);
        for (; first <= last && first < CPU_SETSIZE; first++)
            CPU_SET(first, &set);
        at += *at == ',';
    }
    /* EINVAL: none of them is ours, as in a cpuset. */
    return CPU_COUNT(&set) > 0 && sched_setaffinity(0, sizeof(set), &set) == 0;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* GB/s, the best of three. */
static double read_in_a_row(const uint64_t *p, size_t words)
{
    volatile uint64_t sink;
    double best = 0;

    for (int round = 0; round < 3; round++) {
        uint64_t sum = 0;
        double began = now();

        for (size_t i = 0; i < words; i++)
            sum += p[i];
        sink = sum;
        double speed = (double)words * sizeof(*p) / (now() - began) / 1e9;
        best = speed > best ? speed : best;
    }
    (void)sink;
    return best;
}

/* One cycle through all lines, in random order (Sattolo's shuffle). */
static void tie(uint64_t *p, size_t lines)
{
    size_t step = LINE / sizeof(*p);
    uint64_t state = 88172645463325252u;

    for (size_t i = 0; i < lines; i++)
        p[i * step] = i;
    for (size_t i = lines - 1; i > 0; i--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        size_t j = state % i;
        uint64_t other = p[j * step];

        p[j * step] = p[i * step];
        p[i * step] = other;
    }
}

/* ns for a read that waits for the one before. */
static double read_at_random(const uint64_t *p)
{
    volatile uint64_t sink;
    uint64_t at = 0;
    double began = now();

    for (unsigned long i = 0; i < STEPS; i++)
        at = p[at * (LINE / sizeof(*p))];
    sink = at;
    (void)sink;
    return (now() - began) * 1e9 / STEPS;
}

/* Pages that are not where they were asked for. */
static size_t astray(const char *p, size_t bytes, int node)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = 0;

    for (size_t at = 0; at < bytes; at += page)
        n += quire_node_of(p + at) != node;
    return n;
}

static void measure(int from, int to, size_t bytes)
{
    uint64_t *p = quire_node_alloc(bytes, to);
    const char *fake = getenv("QUIRE_CONF");

    if (p == NULL) {
        printf("  %4d %6d  no memory\n", from, to);
        return;
    }
    tie(p, bytes / LINE);
    printf("  %4d %6d %8.1f %8.1f", from, to, read_in_a_row(p, bytes / sizeof(*p)),
           read_at_random(p));
    size_t lost =
        fake == NULL || strstr(fake, "numa_fake") == NULL ? astray((char *)p, bytes, to) : 0;
    if (lost > 0)
        printf("   %zu pages elsewhere", lost);
    printf("\n");
    free(p);
}

int main(int argc, char **argv)
{
    size_t mib = 256;
    int opt;

    while ((opt = getopt(argc, argv, "m:")) != -1) {
        if (opt == 'm')
            mib = strtoul(optarg, NULL, 10);
        if (opt != 'm' || mib < 1 || mib > 1 << 20) {
            fprintf(stderr, "usage: nodespeed [-m MIB]\n");
            return 2;
        }
    }
    if (quire_nodes(nodes, MAX_NODES) < 0) {
        perror("nodespeed: quire_nodes");
        return 1;
    }
    printf("  CPUs memory     GB/s       ns   (%zu MiB)\n", mib);
    for (int from = 0; from < MAX_NODES; from++) {
        if (!uses(from) || !run_on(from))
            continue;
        for (int to = 0; to < MAX_NODES; to++)
            if (uses(to))
                measure(from, to, mib << 20);
    }
    return 0;
}
