/* nodes.c - see nodes.h. */
#include "nodes.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int nr_nodes, first_cpu[MAX_NODES], has_memory[MAX_NODES];
size_t page_size;

const size_t sizes[NR_SIZES] = {16, 100, 1000, 8000, 30000, 100000, 1000000, 3000000, 10000000};

int read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return (int)n;
}

bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return ok;
}

void learn_machine(void)
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

void need_two(int *a, int *b)
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

void run_on(int node)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(first_cpu[node], &set);
    REQUIRE(sched_setaffinity(0, sizeof(set), &set) == 0);
}

void count_pages(const void *p, size_t n, size_t on[MAX_NODES])
{
    for (uintptr_t at = (uintptr_t)p & ~(page_size - 1); at < (uintptr_t)p + n; at += page_size) {
        void *page = (void *)at;
        int node = -1;

        REQUIRE(syscall(SYS_move_pages, 0, 1ul, &page, NULL, &node, 0) == 0);
        if (node >= 0 && node < MAX_NODES)
            on[node]++;
    }
}

size_t pages_elsewhere(const void *p, size_t n, int node)
{
    size_t on[MAX_NODES] = {0}, others = 0;

    count_pages(p, n, on);
    for (int i = 0; i < MAX_NODES; i++)
        others += i != node ? on[i] : 0;
    return others;
}

void *block_on(size_t n, int node)
{
    char *p = malloc(n);

    REQUIRE(p != NULL);
    memset(p, 1, n);
    size_t others = pages_elsewhere(p, n, node);
    CHECK(others == 0, "%zu bytes for node %d: %zu pages elsewhere", n, node, others);
    return p;
}
