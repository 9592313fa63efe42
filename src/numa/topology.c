/* topology.c - see topology.h. */
#include "numa/topology.h"

#include <string.h>

#include "base/msg.h"
#include "base/opt.h"
#include "base/sys.h"

#define MPOL_DEFAULT 0
#define MPOL_PREFERRED 1
#define MPOL_F_MEMS_ALLOWED 4
/* A bit each, in words of 64 whatever the process: its two halves are in the right order here. */
#define MAX_KERNEL_NODES 1024
#define LOCAL_DISTANCE 10
#define REMOTE_DISTANCE 20

struct q_topology q_topology = {.nr_cpus = 1, .nr_nodes = 1};

/* glibc >= 2.35 registers a restartable-sequence area for each thread and says where. */
extern const ptrdiff_t __rseq_offset __attribute__((weak));
extern const unsigned __rseq_size __attribute__((weak));

typedef void (*range_fn)(unsigned first, unsigned last, void *arg);

/* Walk a list as sysfs writes them: "0-3,8,10-11\n". */
static void each_range(const char *s, range_fn fn, void *arg)
{
    while (*s >= '0' && *s <= '9') {
        unsigned first = 0, last;

        for (; *s >= '0' && *s <= '9'; s++)
            first = first * 10 + (unsigned)(*s - '0');
        last = first;
        if (*s == '-')
            for (last = 0, s++; *s >= '0' && *s <= '9'; s++)
                last = last * 10 + (unsigned)(*s - '0');
        fn(first, last, arg);
        if (*s == ',')
            s++;
    }
}

static void keep_last(unsigned first, unsigned last, void *arg)
{
    *(unsigned *)arg = last;
}

static unsigned highest(const char *path, unsigned otherwise)
{
    char text[1024];
    unsigned v = otherwise;

    if (q_read_file(path, text, sizeof(text)) > 0)
        each_range(text, keep_last, &v);
    return v;
}

/* Which nodes the cpuset lets us use; all of them where the kernel can't say. */
static void allowed_nodes(uint64_t mask[MAX_KERNEL_NODES / 64])
{
    long ret = q_arch_syscall6(SYS_get_mempolicy, 0, (long)mask, MAX_KERNEL_NODES, 0,
                               MPOL_F_MEMS_ALLOWED, 0);
    if (ret < 0)
        memset(mask, 0xff, MAX_KERNEL_NODES / 8);
}

static void add_node(unsigned first, unsigned last, void *arg)
{
    const uint64_t *mask = arg;
    struct q_topology *t = &q_topology;

    for (unsigned id = first; id <= last && id < MAX_KERNEL_NODES; id++) {
        if ((mask[id / 64] >> (id % 64) & 1) != 0 && t->nr_nodes < Q_MAX_NODES)
            t->kernel_id[t->nr_nodes++] = (uint16_t)id;
    }
}

/*
 * Distances from a node by the kernel's number to those we use, into
 * row[nid]. "distance" has one number for each online node, in ascending
 * order of their numbers. What cannot be read stays as it is.
 */
struct row {
    uint8_t *to; /* [Q_MAX_NODES] */
    const char *at;
};

static void take_distances(unsigned first, unsigned last, void *arg)
{
    struct row *row = arg;

    for (unsigned id = first; id <= last && *row->at >= '0' && *row->at <= '9'; id++) {
        unsigned distance = 0;

        for (; *row->at >= '0' && *row->at <= '9'; row->at++)
            distance = distance * 10 + (unsigned)(*row->at - '0');
        row->at += *row->at == ' ';
        for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
            if (q_topology.kernel_id[nid] == id)
                row->to[nid] = (uint8_t)q_min(distance, 255);
    }
}

static void read_distances(unsigned kernel_id, uint8_t to[Q_MAX_NODES])
{
    char path[96], online[1024], text[4096];
    struct q_buf b = {.at = path, .size = sizeof(path)};
    struct row row = {.to = to, .at = text};

    q_buf_printf(&b, "/sys/devices/system/node/node%u/distance", kernel_id);
    if (q_read_file(path, text, sizeof(text)) > 0 &&
        q_read_file("/sys/devices/system/node/online", online, sizeof(online)) > 0)
        each_range(online, take_distances, &row);
}

static void claim_cpus(unsigned first, unsigned last, void *arg)
{
    unsigned nid = *(unsigned *)arg;

    for (unsigned cpu = first; cpu <= last && cpu < q_topology.nr_cpus; cpu++)
        q_topology.cpu_nid[cpu] = (uint8_t)nid;
}

static void map_cpus_of(unsigned kernel_id, unsigned nid)
{
    char path[96], text[4096];
    struct q_buf b = {.at = path, .size = sizeof(path)};

    q_buf_printf(&b, "/sys/devices/system/node/node%u/cpulist", kernel_id);
    if (q_read_file(path, text, sizeof(text)) > 0)
        each_range(text, claim_cpus, &nid);
}

/* CPUs of a node without usable memory go to the nearest node that has some. */
static void map_memoryless(unsigned first, unsigned last, void *arg)
{
    for (unsigned id = first; id <= last && id < MAX_KERNEL_NODES; id++) {
        uint8_t to[Q_MAX_NODES] = {0};
        unsigned nearest = 0;
        bool has_memory = false;

        read_distances(id, to);
        for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
            has_memory |= q_topology.kernel_id[nid] == id;
            if (to[nid] < to[nearest])
                nearest = nid;
        }
        if (!has_memory)
            map_cpus_of(id, nearest);
    }
}

static void fake_nodes(unsigned nr)
{
    struct q_topology *t = &q_topology;

    t->nr_nodes = nr;
    t->bind = false;
    for (unsigned nid = 0; nid < nr; nid++)
        t->kernel_id[nid] = (uint16_t)nid;
    for (unsigned cpu = 0; cpu < t->nr_cpus && t->cpu_nid != NULL; cpu++)
        t->cpu_nid[cpu] = (uint8_t)(cpu % nr);
}

static void default_distances(void)
{
    for (unsigned a = 0; a < q_topology.nr_nodes; a++)
        for (unsigned b = 0; b < q_topology.nr_nodes; b++)
            q_topology.distance[a][b] = a == b ? LOCAL_DISTANCE : REMOTE_DISTANCE;
}

/*
 * A policy the user chose (numactl) stands above ours. Where it names nodes,
 * and mask has some of them, only those stay in mask.
 */
static bool user_has_policy(uint64_t mask[MAX_KERNEL_NODES / 64])
{
    uint64_t nodes[MAX_KERNEL_NODES / 64] = {0};
    int mode = MPOL_DEFAULT;
    long ret =
        q_arch_syscall6(SYS_get_mempolicy, (long)&mode, (long)nodes, MAX_KERNEL_NODES, 0, 0, 0);
    bool any = false;

    if (ret != 0 || mode == MPOL_DEFAULT)
        return false;
    for (unsigned i = 0; i < MAX_KERNEL_NODES / 64; i++)
        any |= (mask[i] & nodes[i]) != 0;
    for (unsigned i = 0; any && i < MAX_KERNEL_NODES / 64; i++)
        mask[i] &= nodes[i];
    return true;
}

static void find_nodes(void)
{
    struct q_topology *t = &q_topology;
    uint64_t mask[MAX_KERNEL_NODES / 64] = {0};
    char text[1024];

    t->nr_nodes = 0;
    allowed_nodes(mask);
    bool theirs = user_has_policy(mask);
    if (q_read_file("/sys/devices/system/node/has_memory", text, sizeof(text)) > 0)
        each_range(text, add_node, mask);
    /* One node then, known by the first of theirs; the kernel does as it was told. */
    if (t->nr_nodes == 0 || theirs)
        t->nr_nodes = 1;
}

void q_topology_init(void *(*scratch)(size_t bytes))
{
    struct q_topology *t = &q_topology;
    char text[1024];

    t->nr_cpus = highest("/sys/devices/system/cpu/possible", 63) + 1;
    if (q_opt.numa != Q_NUMA_OFF && q_opt.numa_fake == 0 &&
        highest("/sys/devices/system/node/online", 0) > 0)
        find_nodes();
    default_distances();
    if (t->nr_nodes == 1 && q_opt.numa_fake <= 1)
        return;
    t->cpu_nid = scratch(t->nr_cpus);
    if (t->cpu_nid == NULL) {
        t->nr_nodes = 1;
        return;
    }
    if (q_opt.numa_fake > 1) {
        fake_nodes((unsigned)q_opt.numa_fake);
        default_distances();
        return;
    }
    t->bind = true;
    for (unsigned nid = 0; nid < t->nr_nodes; nid++) {
        read_distances(t->kernel_id[nid], t->distance[nid]);
        map_cpus_of(t->kernel_id[nid], nid);
    }
    if (q_read_file("/sys/devices/system/node/online", text, sizeof(text)) > 0)
        each_range(text, map_memoryless, NULL);
}

unsigned q_this_cpu(void)
{
    unsigned cpu = 0;

    if (&__rseq_offset != NULL && __rseq_size > 0) {
        /* struct rseq: cpu_id is its second word; negative while not registered. */
        const volatile int *area = (const volatile int *)(q_thread_pointer() + __rseq_offset);
        int id = area[1];
        if (q_likely(id >= 0 && (unsigned)id < q_topology.nr_cpus))
            return (unsigned)id;
    }
    q_arch_syscall6(SYS_getcpu, (long)&cpu, 0, 0, 0, 0, 0);
    return cpu < q_topology.nr_cpus ? cpu : 0;
}

unsigned q_this_nid(void)
{
    if (q_likely(q_topology.cpu_nid == NULL))
        return 0;
    return q_topology.cpu_nid[q_this_cpu()];
}

unsigned q_find_node(int kernel_id)
{
    unsigned nid = 0;

    if (kernel_id == -1)
        return q_this_nid();
    while (nid < q_topology.nr_nodes && q_topology.kernel_id[nid] != kernel_id)
        nid++;
    return nid;
}

long q_nodes_bind(void *addr, size_t len, unsigned mode, uint64_t nids)
{
    uint64_t mask[MAX_KERNEL_NODES / 64] = {0};

    if (!q_topology.bind)
        return 0;
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        unsigned id = q_topology.kernel_id[nid];

        if ((nids >> nid & 1) != 0)
            mask[id / 64] |= 1ull << (id % 64);
    }
    return q_arch_syscall6(SYS_mbind, (long)addr, (long)len, mode, (long)mask, MAX_KERNEL_NODES, 0);
}

long q_node_bind(void *addr, size_t len, unsigned nid)
{
    return q_nodes_bind(addr, len, MPOL_PREFERRED, 1ull << nid);
}
