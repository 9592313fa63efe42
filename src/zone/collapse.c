/*
 * collapse.c - huge pages for what got small ones: quire's own khugepaged.
 *
 * A heap begins in small pages and asks for huge ones once it is large. What
 * lies before that point, blocks with mappings of their own, and huge pages
 * that a write after fork(2) has split, stay small; and each small page is an
 * entry that the next fork, or cut of a snapshot, has to copy or change. So
 * a large heap is walked through, a few pieces of 2 MiB at a time:
 *
 *   zone    | small | small | huge | split | huge | ...    mapping | small | small |
 *   piece       ^ nearly all pages there, none shared: the kernel copies them into a huge one
 *
 * Whether a piece is worth it, /proc/self/pagemap says. Where fewer than
 * 15 of 16 pages are there the heap would grow by it. Pages shared with a
 * child or a snapshot's holder would be in memory twice; they wait until it
 * is gone. While a snapshot lives nothing is done.
 *
 * The time for this is bounded to one part in SHARE, in calls of AT_ONCE_NS,
 * with a long pause after a walk that found nothing to do.
 *
 * What is read here without a lock (frontiers, nr_free) is a hint, and so is
 * the cursor: the kernel moves the content of whatever lies there, unchanged,
 * or refuses. Before Linux 6.1 it is only asked to do so when it likes.
 */
#include "zone/collapse.h"

#include <errno.h>
#include <fcntl.h>

#include "base/opt.h"
#include "numa/topology.h"
#include "zone/hold.h"
#include "zone/linear.h"
#include "zone/page_alloc.h"
#include "zone/pageblock.h"
#include "zone/reclaim.h"
#include "zone/vmalloc.h"

#define LOOKS 16u               /* pieces to look at before looking at the clock */
#define PAUSE_MS 5u             /* between calls, at least */
#define SHARE 20u               /* one part in so many of all time, */
#define AT_ONCE_NS 2000000u     /* but not much more than this in one call */
#define ROUND_PAUSE_MS 1000u    /* after a walk through everything in vain */
#define REFUSED_PAUSE_MS 60000u /* the longest of all */
#define MAX_STRETCHES 512u /* of pieces that were marked by themselves: each is a map of its own */
#define PM_THERE (1ull << 63) /* bits of /proc/self/pagemap */
#define PM_EXCLUSIVE (1ull << 56)

static struct {
    _Atomic bool busy;      /* guards the rest; only tried */
    _Atomic uint32_t after; /* ms: nothing to do before */
    unsigned zone;          /* where the walk is: a zone, or, past the last, the mappings */
    size_t at;              /* frame number; slot of a mapping */
    size_t offset;          /* in the mapping */
    unsigned done;          /* pieces collapsed in this walk */
    unsigned stretches;
    _Atomic bool unable; /* no pagemap; read by all */
    bool asks;           /* the kernel does not collapse when told: leave it to its own time */
} walk;

/* Full, all of it in memory, and nobody else's. */
static bool worth_it(int fd, uintptr_t at)
{
    static uint64_t map[Q_PAGEBLOCK_WORDS * 64];
    size_t nr = (size_t)1 << q_pageblock_order(), good = 0;
    long bytes = (long)(nr * sizeof(*map));

    if (q_pread(fd, map, bytes, (at >> q_page_shift) * sizeof(*map)) != bytes)
        return false;
    for (size_t i = 0; i < nr; i++)
        good += (map[i] & (PM_THERE | PM_EXCLUSIVE)) == (PM_THERE | PM_EXCLUSIVE);
    return good >= nr - nr / 16;
}

/*
 * False: the kernel will not, now. EINVAL is its answer to advice that it
 * does not know, and for a piece that cannot be huge; of nothing at all only
 * the first of the two.
 */
static bool collapse(uintptr_t at)
{
    if (walk.asks)
        return true;
    long ret = q_madvise((void *)at, Q_PAGEBLOCK_SIZE, MADV_COLLAPSE);
    walk.asks = ret == -EINVAL && q_madvise((void *)at, 0, MADV_COLLAPSE) != 0;
    walk.done += ret == 0;
    return ret == 0 || ret == -EINVAL || ret == -EAGAIN || ret == -EBUSY;
}

/* A pageblock of a zone joins those that are huge; the kernel hears of it once. */
static bool mark_block(struct q_zone *zone, size_t pfn)
{
    struct q_pageblock *block = q_pageblock_of(pfn);
    bool apart =
        pfn == zone->start_pfn || (q_mem.sparse && !q_pfn_online(pfn - 1)) || !block[-1].huge;

    if (block->huge)
        return true;
    if (apart && walk.stretches >= MAX_STRETCHES)
        return false;
    q_lock(&zone->lock);
    bool done = q_madvise(q_pfn_to_virt(pfn), Q_PAGEBLOCK_SIZE, MADV_HUGEPAGE) == 0;
    q_mem_reshape();
    if (done) {
        zone->nr_apart -= block->apart;
        block->apart = 0;
        block->huge = 1;
        zone->nr_huge_blocks++;
    }
    q_unlock(&zone->lock);
    walk.stretches += done && apart;
    walk.done += done;
    return done;
}

/*
 * Nearly full, as far as one sees without the lock. And under a limit full of
 * memory: what free pages do not hold yet would have to be counted.
 */
static bool looks_full(const struct q_pageblock *block)
{
    unsigned nr_free = __atomic_load_n(&block->nr_free, __ATOMIC_RELAXED);
    unsigned nr_dirty = __atomic_load_n(&block->nr_dirty, __ATOMIC_RELAXED);

    return nr_free <= (1u << q_pageblock_order()) / 16 &&
           (q_opt.limit == 0 || nr_free == nr_dirty);
}

static bool look_at_block(int fd, struct q_zone *zone, size_t pfn)
{
    uintptr_t at = (uintptr_t)q_pfn_to_virt(pfn);

    /* Advice for a part would cut the mapping of a file into pieces. */
    if (q_linear != NULL || !looks_full(q_pageblock_of(pfn)) || !worth_it(fd, at) ||
        !mark_block(zone, pfn))
        return true;
    return collapse(at);
}

/* The frames of the zone that the walk is in; an empty stretch where it has none. */
static struct q_zone *this_zone(size_t *from, size_t *to)
{
    struct q_zone *zone = &q_nodes[walk.zone / Q_NR_ZONES]->zones[walk.zone % Q_NR_ZONES];

    *from = zone->start_pfn;
    *to = __atomic_load_n(&zone->frontier, __ATOMIC_RELAXED);
    if (q_mem.sparse) { /* all zones are in one stretch of frames: it is walked once */
        *from = q_mem.first_section << Q_SECTION_ORDER;
        *to = walk.zone == 0 ? q_mem.end_section << Q_SECTION_ORDER : 0;
    }
    return zone;
}

/* On to the next zone. */
static void leave_zone(void)
{
    size_t from = 0, to;

    walk.zone++;
    if (walk.zone < q_topology.nr_nodes * Q_NR_ZONES)
        this_zone(&from, &to);
    walk.at = from;
    walk.offset = 0;
}

static bool look_at_zone(int fd)
{
    size_t from, to;
    struct q_zone *zone = this_zone(&from, &to);
    size_t pfn = q_max(walk.at, from);

    while (q_mem.sparse && pfn < to && !q_pfn_online(pfn))
        pfn = q_next_section(pfn);
    if (pfn + ((size_t)1 << q_pageblock_order()) > to) {
        leave_zone();
        return true;
    }
    walk.at = pfn + ((size_t)1 << q_pageblock_order());
    return look_at_block(fd, q_mem.sparse ? q_pfn_zone(pfn) : zone, pfn);
}

/* Mappings are not marked, for mremap() refuses to move one that is marked in part. */
static bool look_at_mapping(int fd, bool *end)
{
    void *addr;
    size_t bytes, slot = q_vnext(walk.at, &addr, &bytes);

    if (slot == Q_VEND) {
        *end = true;
        return true;
    }
    if (slot != walk.at)
        walk.offset = 0;
    uintptr_t start = q_align_up((uintptr_t)addr, Q_PAGEBLOCK_SIZE) + walk.offset;
    walk.at = slot;
    if (start + Q_PAGEBLOCK_SIZE > (uintptr_t)addr + bytes) {
        walk.at = slot + 1;
        walk.offset = 0;
        return true;
    }
    walk.offset += Q_PAGEBLOCK_SIZE;
    return !worth_it(fd, start) || collapse(start);
}

/* A few steps, or one collapse. The pause to make afterwards, in ms; 0: go on. */
static uint32_t look_around(int fd)
{
    bool end = false;

    for (unsigned n = 0, before = walk.done; n < LOOKS && walk.done == before; n++) {
        bool mapping = walk.zone >= q_topology.nr_nodes * Q_NR_ZONES;

        if (!(mapping ? look_at_mapping(fd, &end) : look_at_zone(fd)))
            return REFUSED_PAUSE_MS;
        if (!end)
            continue;
        uint32_t pause = walk.done == 0 ? ROUND_PAUSE_MS : PAUSE_MS;
        walk.zone = 0;
        walk.at = walk.offset = walk.done = 0;
        return pause;
    }
    return 0;
}

/* For as long as it was left alone, in proportion. The pause to make, in ms. */
static uint32_t spend(int fd, uint32_t idle_ms)
{
    uint64_t start = q_clock_fine(), took;
    uint64_t budget = q_min((uint64_t)idle_ms * (1000000u / SHARE), AT_ONCE_NS);
    uint32_t pause;

    do {
        pause = look_around(fd);
        took = q_clock_fine() - start;
    } while (pause == 0 && took < budget);
    return (uint32_t)q_min(q_max(q_max(pause, PAUSE_MS), took * SHARE / 1000000u),
                           REFUSED_PAUSE_MS);
}

static bool wanted(void)
{
    size_t carved = atomic_load_explicit(&q_pages_carved, memory_order_relaxed);

    return q_opt.huge != Q_HUGE_OFF && !q_mem.thp_never && !q_any_held() &&
           !atomic_load_explicit(&walk.unable, memory_order_relaxed) &&
           carved << q_page_shift >= Q_HUGE_FROM_BYTES;
}

/* Apart, since small programs never come here. */
static Q_NOINLINE void walk_on(uint32_t now, uint32_t after)
{
    /* Acquire and release: what the last one did with `walk` is seen. */
    if (atomic_exchange_explicit(&walk.busy, true, memory_order_acquire))
        return;
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)"/proc/self/pagemap",
                              O_RDONLY | O_CLOEXEC, 0, 0, 0);
    uint32_t pause = ROUND_PAUSE_MS;
    /* Relaxed: who does not see it yet tries once more. */
    atomic_store_explicit(&walk.unable, fd < 0 && fd != -EMFILE && fd != -ENFILE,
                          memory_order_relaxed);
    if (fd >= 0) {
        pause = spend((int)fd, now - after);
        q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    }
    atomic_store_explicit(&walk.after, now + pause, memory_order_relaxed);
    atomic_store_explicit(&walk.busy, false, memory_order_release);
}

void q_collapse_tick(void)
{
    /* Relaxed: a hint. */
    uint32_t now = q_now_ms(), after = atomic_load_explicit(&walk.after, memory_order_relaxed);

    if (q_unlikely(!q_is_ahead(after, now, REFUSED_PAUSE_MS)) && wanted())
        walk_on(now, after);
}

void q_collapse_fork_child(void)
{
    atomic_store_explicit(&walk.busy, false, memory_order_relaxed);
}
