/*
 * numa_user.c - what the user says stands above: a policy that numactl sets, and a cpuset, checked
 * by asking the kernel page by page. As numa.c for machines with several nodes.
 */
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nodes.h"

#define MPOL_PREFERRED 1
#define MPOL_BIND 2
#define MPOL_INTERLEAVE 3

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
    } how[] = {{MPOL_BIND, 1ul << b},
               {MPOL_PREFERRED, 1ul << b},
               {MPOL_INTERLEAVE, both},
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
    {"numactl_is_respected", numactl_is_respected, 120},
    {"a_cpuset_is_respected", a_cpuset_is_respected, 120},
};

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--under") == 0)
        return under_policy(argv[2]);
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
