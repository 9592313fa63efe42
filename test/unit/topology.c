/* topology.c - what the machine says of itself, and pretended nodes. */
#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "core.h"

static uint8_t scratch_memory[65536];

static void *scratch(size_t bytes)
{
    return bytes <= sizeof(scratch_memory) ? scratch_memory : NULL;
}

static void *no_scratch(size_t bytes)
{
    return NULL;
}

static void check_sane(void)
{
    const struct q_topology *t = &q_topology;

    must(t->nr_nodes >= 1 && t->nr_nodes <= Q_MAX_NODES);
    must((long)t->nr_cpus >= sysconf(_SC_NPROCESSORS_CONF));
    for (unsigned a = 0; a < t->nr_nodes; a++) {
        must_eq(t->distance[a][a], 10);
        for (unsigned b = 0; b < t->nr_nodes; b++)
            must(a == b || t->distance[a][b] >= 10);
        must(a == 0 || t->kernel_id[a] > t->kernel_id[a - 1] || q_opt.numa_fake != 0);
    }
    for (unsigned cpu = 0; t->cpu_nid != NULL && cpu < t->nr_cpus; cpu++)
        must(t->cpu_nid[cpu] < t->nr_nodes);
    must(q_this_cpu() < t->nr_cpus);
    must(q_this_nid() < t->nr_nodes);
}

Test(topology, of_this_machine)
{
    q_base_init();
    q_topology_init(scratch);
    check_sane();
    must_eq(q_topology.cpu_nid != NULL, q_topology.nr_nodes > 1);
}

Test(topology, numa_off_is_one_node)
{
    q_opt.numa = Q_NUMA_OFF;
    q_base_init();
    q_topology_init(scratch);
    check_sane();
    must_eq(q_topology.nr_nodes, 1);
    must(!q_topology.bind);
    must_eq(q_node_bind(scratch_memory, 4096, 0), 0);
}

Test(topology, fake_nodes)
{
    for (unsigned nr = 2; nr <= Q_MAX_NODES; nr++) {
        q_opt.numa_fake = nr;
        q_topology_init(scratch);
        check_sane();
        must_eq(q_topology.nr_nodes, nr);
        must(!q_topology.bind);
        for (unsigned cpu = 0; cpu < q_topology.nr_cpus; cpu++)
            must_eq(q_topology.cpu_nid[cpu], cpu % nr);
    }
}

/* No memory for the map of CPUs: one node, and everything works. */
Test(topology, no_memory)
{
    q_opt.numa_fake = 4;
    q_topology_init(no_scratch);
    check_sane();
    must_eq(q_topology.nr_nodes, 1);
}

Test(topology, cpu_is_the_one_we_run_on)
{
    cpu_set_t old, set;

    q_opt.numa_fake = 2;
    q_topology_init(scratch);
    must(sched_getaffinity(0, sizeof(old), &old) == 0);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &old))
            continue;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        must(sched_setaffinity(0, sizeof(set), &set) == 0);
        must_eq(q_this_cpu(), cpu);
        must_eq(q_this_nid(), cpu % 2);
    }
}
