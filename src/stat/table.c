/* table.c - the statistics as a table of at most 20 lines. */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>

#include "base/msg.h"
#include "base/opt.h"
#include "numa/topology.h"
#include "quire/stat.h"
#include "stat/stat.h"
#include "zone/page_alloc.h"
#include "zone/special.h"

#define FAULT_SAMPLE 64

/* Size classes are shown in these groups: up to this many bytes each. */
static const struct {
    const char *name;
    uint32_t to;
} groups[] = {
    {"1..64", 64}, {"65..256", 256}, {"257..1K", 1024}, {"1K..8K", 8192}, {"8K..32K", 32768}};

static void read_name(char out[32])
{
    long n = q_read_file("/proc/self/comm", out, 32);

    if (n > 0 && out[n - 1] == '\n')
        out[n - 1] = '\0';
    if (n <= 0)
        memcpy(out, "?", 2);
}

/* A number of bytes as people read it, at most 7 characters. */
static const char *human(char out[16], size_t n)
{
    struct q_buf b = {.at = out, .size = 16};
    static const char units[] = "BKMGT";
    unsigned u = 0;
    size_t tenths = n * 10;

    while (tenths >= 10240 && u < 4) {
        tenths /= 1024;
        u++;
    }
    if (u == 0 || tenths >= 1000)
        q_buf_printf(&b, "%zu%c", tenths / 10, units[u]);
    else
        q_buf_printf(&b, "%zu.%zu%c", tenths / 10, tenths % 10, units[u]);
    return out;
}

static size_t resident_bytes(void)
{
    char text[128];
    size_t v = 0;
    const char *p = text;

    if (q_read_file("/proc/self/statm", text, sizeof(text)) <= 0)
        return 0;
    while (*p != '\0' && *p != ' ')
        p++;
    for (p += *p == ' '; *p >= '0' && *p <= '9'; p++)
        v = v * 10 + (size_t)(*p - '0');
    return v << q_page_shift;
}

/* What one fault costs here and now, in ns: touch fresh pages and look at the clock. */
static uint64_t fault_cost(void)
{
    size_t len = FAULT_SAMPLE * q_page_size();
    volatile char *p = q_mmap(NULL, len, PROT_READ | PROT_WRITE, 0);

    if (p == NULL)
        return 0;
    q_madvise((void *)p, len, MADV_NOHUGEPAGE);
    uint64_t begin = q_clock_fine();
    for (size_t i = 0; i < len; i += q_page_size())
        p[i] = 1;
    uint64_t end = q_clock_fine();
    q_munmap((void *)p, len);
    return (end - begin) / FAULT_SAMPLE;
}

static void print_classes(struct q_buf *b, const struct q_stat *st)
{
    char live[16], spare[16];
    unsigned c = 0;

    q_buf_printf(b, "  %-10s %12s %10s %8s %8s %6s\n", "objects", "allocated", "live", "bytes",
                 "free", "slabs");
    for (unsigned g = 0; g < sizeof(groups) / sizeof(groups[0]); g++) {
        size_t nr = 0, bytes = 0, unused = 0, slabs = 0;
        uint64_t allocated = 0;

        for (; c < Q_NR_CLASSES && q_classes[c].size <= groups[g].to; c++) {
            nr += st->cls[c].live;
            bytes += st->cls[c].live * q_classes[c].size;
            unused += st->cls[c].free * q_classes[c].size;
            slabs += st->cls[c].slabs;
            allocated += st->cls[c].allocated;
        }
        q_buf_printf(b, "  %-10s %12" PRIu64 " %10zu %8s %8s %6zu\n", groups[g].name, allocated, nr,
                     human(live, bytes), human(spare, unused), slabs);
    }
    q_buf_printf(b, "  %-10s %12s %10zu %8s\n", "runs", "", st->runs, human(live, st->run_bytes));
    q_buf_printf(b, "  %-10s %12s %10zu %8s %8s\n", "mappings", "", st->large.blocks,
                 human(live, st->large.bytes), human(spare, st->large.cached_bytes));
}

static void print_zones(struct q_buf *b)
{
    char present[16], unused[16], dirty[16], back[16], huge[16];
    unsigned lines = 0, left_out = 0;

    q_buf_printf(b, "  %-16s %9s %8s %9s %10s %8s\n", "node, zone", "used", "free", "resident",
                 "given back", "huge");
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            struct q_zone *z = &q_nodes[nid]->zones[type];
            size_t seen = q_mem.sparse ? z->present_pages : z->frontier - z->start_pfn;
            size_t nr_free = z->buddy.nr_free_pages;

            if (seen == 0)
                continue;
            if (++lines > 4) {
                left_out++;
                continue;
            }
            q_buf_printf(
                b, "  %-6u %-9s %9s %8s %9s %10s %8s\n", q_topology.kernel_id[nid],
                q_zone_names[type], human(present, (seen - q_min(seen, nr_free)) << q_page_shift),
                human(unused, nr_free << q_page_shift), human(dirty, z->nr_dirty << q_page_shift),
                human(back, z->nr_given_back << q_page_shift),
                human(huge, z->nr_huge_blocks * Q_PAGEBLOCK_SIZE));
        }
    }
    for (unsigned kind = 0; kind < Q_NR_SPECIAL; kind++) {
        const struct q_special_zone *z = &q_special_zones[kind];
        size_t nr_free = z->buddy.nr_free_pages;

        if (z->present_pages > 0)
            q_buf_printf(b, "  %-6s %-9s %9s %8s %9s %10s %8s\n", "-", q_special_ops[kind]->name,
                         human(present, (z->present_pages - q_min(z->present_pages, nr_free))
                                            << q_page_shift),
                         human(unused, nr_free << q_page_shift),
                         human(dirty, z->nr_written << q_page_shift),
                         human(back, z->nr_given_back << q_page_shift), "-");
    }
    if (left_out > 0)
        q_buf_printf(b, "  (%u more zones)\n", left_out);
}

static void print_totals(struct q_buf *b, const struct q_stat *st)
{
    char rss[16], peak[16], live[16], back[16], meta[16];
    struct rusage ru;
    uint64_t cost = fault_cost();

    getrusage(RUSAGE_SELF, &ru);
    q_buf_printf(b, "  resident %s (peak %s), live %s, given back %s, metadata mapped %s\n",
                 human(rss, resident_bytes()), human(peak, (size_t)ru.ru_maxrss * 1024),
                 human(live, st->slab_live_bytes + st->run_bytes + st->large.bytes),
                 human(back, st->given_back_bytes), human(meta, st->meta_bytes));
    q_buf_printf(
        b, "  page faults %ld, about %" PRIu64 " us in them (%" PRIu64 " ns each, measured now)\n",
        ru.ru_minflt, (uint64_t)ru.ru_minflt * cost / 1000, cost);
}

static struct q_lock lock; /* of the buffers below */

void q_stat_fork_child(void)
{
    q_lock_reset(&lock);
}

void q_stat_print(int fd)
{
    static struct q_stat st; /* too large for a signal stack */
    static char text[4096];
    char name[32];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    if (!q_trylock(&lock))
        return;
    read_name(name);
    q_stat_read(&st);
    q_buf_printf(&b, "quire %s active in %s\n", quire_stat_page.version, name);
    print_classes(&b, &st);
    print_zones(&b);
    print_totals(&b, &st);
    q_buf_printf(&b, "  options ");
    q_opt_print(&b);
    q_buf_printf(&b, "\n");
    q_write_all(fd, text, b.len);
    q_unlock(&lock);
}

static long kept_stderr = 2;

void q_stat_at_start(void)
{
    long fd = q_arch_syscall6(SYS_fcntl, 2, F_DUPFD_CLOEXEC, 900, 0, 0, 0);

    if (fd >= 0)
        kept_stderr = fd;
}

/* The program may have closed standard error by now: what it was is kept. */
static long open_stats_file(void)
{
    char text[sizeof(q_opt.stats_file) + 80];
    struct q_buf line = {.at = text, .size = sizeof(text)};
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)q_opt.stats_file,
                              O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644, 0, 0);

    if (fd >= 0)
        return fd;
    q_buf_printf(&line, "quire: stats_file: cannot open %s (error %ld); the table goes here:\n",
                 q_opt.stats_file, -fd);
    q_write_all((int)kept_stderr, line.at, line.len);
    return kept_stderr;
}

void q_stat_at_exit(void)
{
    long fd = q_opt.stats_file[0] != '\0' ? open_stats_file() : kept_stderr;

    q_stat_print((int)fd);
    if (fd != kept_stderr)
        q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
}
