/* memmap.c - see memmap.h: reserving address space and bringing it online. */
#include "zone/memmap.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include "base/msg.h"
#include "base/opt.h"
#include "numa/topology.h"
#include "zone/linear.h"

#define GUARD ((size_t)1 << 16) /* one page of any size */
#define WINDOW_MIN ((size_t)1 << 30)
/* Of a 32-bit process's addresses a window takes a quarter at most, if one is asked for. */
#define WINDOW_MAX (Q_WIDE_LONG ? (uint64_t)1 << 43 : (uint64_t)1 << 30)
#define ALL_ADDRESSES ((uint64_t)1 << 32) /* of a 32-bit process */
#define GROW_MAX ((size_t)1 << 30)

struct q_mem q_mem;
struct q_lock q_mem_lock;
const struct q_linear_ops *q_linear;
_Atomic bool q_linear_pinned;
struct q_node *q_nodes[Q_MAX_NODES];
const char *const q_zone_names[Q_NR_ZONES] = {"Normal", "Movable"};

/* Looked up while there is no window: a descriptor that fits no address. */
static struct {
    uint64_t words[8];
} no_slab __attribute__((aligned(Q_CACHELINE)));

struct q_lookup q_lookup = {.slabs = (char *)&no_slab, .mask = 0};

char *q_reserve(size_t size, size_t align)
{
    char *p = q_mmap(NULL, size + align, PROT_NONE, MAP_NORESERVE);

    if (p == NULL)
        return NULL;
    char *start = (char *)q_align_up((uintptr_t)p, align);
    if (start > p)
        q_munmap(p, (size_t)(start - p));
    if (start + size < p + size + align)
        q_munmap(start + size, (size_t)(p + align - start));
    return start;
}

/* The arrays that describe max_pages frames. */
static bool reserve_arrays(size_t max_pages)
{
    size_t slabs = q_align_up((max_pages >> q_slab_order()) << Q_SLAB_DESC_SHIFT, GUARD);
    size_t map = q_align_up(max_pages * sizeof(struct q_page), GUARD);
    size_t blocks =
        q_align_up((max_pages >> q_pageblock_order()) * sizeof(struct q_pageblock), GUARD);
    char *p = q_reserve(slabs + map + blocks + 4 * GUARD, GUARD);

    if (p == NULL)
        return false;
    if (q_mprotect(p + GUARD, slabs, PROT_READ) != 0) {
        q_munmap(p, slabs + map + blocks + 4 * GUARD);
        return false;
    }
    if (q_mem.thp_always) /* a few pages of each array are used at first, and more by and by */
        q_madvise(p, slabs + map + blocks + 4 * GUARD, MADV_NOHUGEPAGE);
    q_lookup.slabs = p + GUARD;
    q_mem.mem_map = (struct q_page *)(p + GUARD + slabs + GUARD);
    q_mem.pageblocks = (struct q_pageblock *)((char *)q_mem.mem_map + map + GUARD);
    q_mem.max_pages = max_pages;
    return true;
}

static uintptr_t lookup_mask(size_t pages)
{
    return ((pages >> q_slab_order()) - 1) << Q_SLAB_DESC_SHIFT;
}

static size_t wanted_window(void)
{
    struct sysinfo si;
    uint64_t ram = (uint64_t)1 << 33;

    if (q_opt.window != 0) {
        uint64_t asked = (uint64_t)1 << q_ceil_log2(q_max(q_opt.window, 4 * q_max_block_size()));
        return (size_t)(Q_WIDE_LONG ? asked : q_min(asked, WINDOW_MAX));
    }
    if (sysinfo(&si) == 0)
        ram = (uint64_t)si.totalram * si.mem_unit;
    /* Twice the memory for each of the two zones, and for each node's share; 64 GiB at least. */
    unsigned bits = 2 + q_ceil_log2(ram) + q_ceil_log2(q_topology.nr_nodes);
    uint64_t want = (uint64_t)1 << q_max(bits, 36);
    return (size_t)(want < WINDOW_MAX ? want : WINDOW_MAX);
}

/*
 * The window gets a place of its own, another in each process: the kernel
 * would put it next to all else that it maps, at one of few places, and images
 * (src/cow) of one process could not be mapped in the next. Not too far away
 * either, since a view of a snapshot spans the window and all mappings.
 * ThreadSanitizer wants it where the kernel does.
 */
#ifdef __SANITIZE_THREAD__
#define APART_BYTES ((uint64_t)0)
#else
#define APART_BYTES (Q_WIDE_LONG ? (uint64_t)1 << 42 : 0)
#endif
#define LOWEST_WINDOW ((uint64_t)1 << 36)

static char *reserve_apart(size_t size)
{
    char *near = q_reserve(size, size);
    uint64_t places = APART_BYTES / size;
    uint64_t random = 0;

    if (near == NULL || places < 2 ||
        q_arch_syscall6(SYS_getrandom, (long)&random, sizeof(random), 1 /* GRND_NONBLOCK */, 0, 0,
                        0) != sizeof(random))
        return near;
    size_t down = (size_t)(random % places * size);
    if (down == 0 || (uintptr_t)near < down + LOWEST_WINDOW)
        return near;
    char *apart = q_mmap(near - down, size, PROT_NONE, MAP_NORESERVE);
    if (apart == near - down) {
        q_munmap(near, size);
        return apart;
    }
    if (apart != NULL)
        q_munmap(apart, size);
    return near;
}

static bool init_window(void)
{
    size_t least =
        q_opt.window != 0 || q_opt.model == Q_MODEL_FLAT ? 4 * q_max_block_size() : WINDOW_MIN;

    least <<= q_ceil_log2(q_topology.nr_nodes);
    for (size_t size = wanted_window(); size >= least; size /= 2) {
        char *base = reserve_apart(size);

        if (base == NULL)
            continue;
        if (!reserve_arrays(size >> q_page_shift)) {
            q_munmap(base, size);
            continue;
        }
        q_mem.base = (uintptr_t)base;
        q_mem.size = size;
        q_mem.node_shift = q_fls(size >> q_page_shift) - q_ceil_log2(q_topology.nr_nodes);
        q_lookup.mask = lookup_mask(size >> q_page_shift);
        return true;
    }
    return false;
}

/* Room for as many sections as the limit, or memory, allows. */
static bool init_sparse(void)
{
    struct rlimit as = {RLIM_INFINITY, RLIM_INFINITY};
    size_t pages = (size_t)((Q_WIDE_LONG ? wanted_window() : ALL_ADDRESSES) >> q_page_shift);

    if (getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur >> q_page_shift < pages)
        pages = (size_t)1 << q_ceil_log2(q_max((size_t)(as.rlim_cur >> q_page_shift), 1));
    for (; pages >= (size_t)1 << Q_SECTION_ORDER; pages /= 2) {
        size_t sections = pages >> Q_SECTION_ORDER;

        if (!reserve_arrays(pages))
            continue;
        q_mem.section_addr = q_meta_alloc(sections * sizeof(*q_mem.section_addr));
        q_mem.section_zone = q_meta_alloc(sections * sizeof(*q_mem.section_zone));
        if (q_mem.section_zone == NULL || q_mem.section_addr == NULL)
            return false;
        q_lookup.mask = lookup_mask(pages);
        q_mem.first_section = sections;
        q_mem.sparse = true;
        return true;
    }
    return false;
}

static void init_zone(struct q_zone *zone, unsigned nid, unsigned type)
{
    size_t half = q_mem.sparse ? 0 : ((size_t)1 << q_mem.node_shift) / 2;

    zone->nid = (uint8_t)nid;
    zone->type = (uint8_t)type;
    zone->start_pfn = q_mem.sparse ? 0 : ((size_t)nid << q_mem.node_shift) + type * half;
    zone->spanned_pages = half;
    zone->frontier = zone->frontier_end = zone->start_pfn;
}

/* Own node first, then the others by distance; on each, the zone asked for, then the other. */
static void build_zonelists(struct q_node *node)
{
    bool taken[Q_MAX_NODES] = {false};
    unsigned at = 0;

    for (unsigned i = 0; i < q_topology.nr_nodes; i++) {
        unsigned best = Q_MAX_NODES;

        for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
            if (!taken[nid] && (best == Q_MAX_NODES || q_topology.distance[node->nid][nid] <
                                                           q_topology.distance[node->nid][best]))
                best = nid;
        if (best == Q_MAX_NODES)
            break;
        taken[best] = true;
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            node->zonelist[type][at] = &q_nodes[best]->zones[type];
            node->zonelist[type][at + 1] = &q_nodes[best]->zones[!type];
        }
        at += 2;
    }
}

static bool init_nodes(void)
{
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        struct q_node *node = q_meta_alloc_node(sizeof(*node), nid);

        if (node == NULL)
            return false;
        node->nid = nid;
        node->node_start_pfn = q_mem.sparse ? 0 : (size_t)nid << q_mem.node_shift;
        node->node_spanned_pages = q_mem.sparse ? q_mem.max_pages : (size_t)1 << q_mem.node_shift;
        node->node_mem_map = q_mem.mem_map + node->node_start_pfn;
        for (unsigned type = 0; type < Q_NR_ZONES; type++) {
            init_zone(&node->zones[type], nid, type);
            node->zones[type].pcp =
                q_meta_alloc_node(q_topology.nr_cpus * sizeof(struct q_pcp), nid);
            if (node->zones[type].pcp == NULL)
                return false;
        }
        q_nodes[nid] = node;
    }
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        build_zonelists(q_nodes[nid]);
    return true;
}

static void read_thp_mode(void)
{
    char text[64];

    if (q_read_file("/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof(text)) <= 0) {
        q_mem.thp_never = true;
        return;
    }
    q_mem.thp_always = strstr(text, "[always]") != NULL;
    q_mem.thp_never = strstr(text, "[never]") != NULL;
}

/* Under a limit on address space a large reservation would take what the program needs. */
static bool address_space_limited(void)
{
    struct rlimit as;

    if (!Q_WIDE_LONG)
        return true;
    return getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur != RLIM_INFINITY;
}

bool q_mem_init(void)
{
    bool flat_first =
        q_opt.model == Q_MODEL_FLAT || (q_opt.model == Q_MODEL_AUTO && !address_space_limited());

    q_mem = (struct q_mem){0}; /* an earlier try may have failed half-way */
    q_topology_init(q_meta_alloc);
    read_thp_mode();
    if (!(flat_first && init_window()) && !init_sparse())
        return false;
    if (q_opt.verbose)
        q_msg("%s memory model, %zu MiB, %u node(s), %u CPU(s), page size %zu",
              q_mem.sparse ? "sparse" : (q_topology.nr_nodes > 1 ? "discontiguous" : "flat"),
              q_mem.max_pages >> (20 - q_page_shift), q_topology.nr_nodes, q_topology.nr_cpus,
              q_page_size());
    return init_nodes();
}

void q_mem_parts(size_t pfn, size_t nr, struct q_part part[Q_NR_ARRAYS])
{
    uintptr_t slabs = (uintptr_t)q_lookup.slabs;

    part[0] = (struct q_part){slabs + (pfn >> q_slab_order() << Q_SLAB_DESC_SHIFT),
                              slabs + ((pfn + nr) >> q_slab_order() << Q_SLAB_DESC_SHIFT)};
    part[1] =
        (struct q_part){(uintptr_t)(q_mem.mem_map + pfn), (uintptr_t)(q_mem.mem_map + pfn + nr)};
    part[2] = (struct q_part){(uintptr_t)q_pageblock_of(pfn), (uintptr_t)q_pageblock_of(pfn + nr)};
}

/* Make the parts of the arrays that describe [pfn, pfn + nr) writable. */
static bool online_arrays(size_t pfn, size_t nr, unsigned nid)
{
    struct q_part part[Q_NR_ARRAYS];

    q_mem_parts(pfn, nr, part);
    for (unsigned i = 0; i < Q_NR_ARRAYS; i++) {
        char *from = (char *)q_align_down(part[i].from, q_page_size());
        size_t len = q_align_up(part[i].to, q_page_size()) - (uintptr_t)from;

        if (q_mprotect(from, len, PROT_READ | PROT_WRITE) != 0)
            return false;
        q_node_bind(from, len, nid);
    }
    return true;
}

/* Grow by an eighth of what is there, so that the number of calls stays logarithmic. */
static size_t growth(const struct q_zone *zone)
{
    size_t step = q_align_up((zone->present_pages << q_page_shift) / 8, q_max_block_size());

    return q_min(q_max(step, 4 * q_max_block_size()), GROW_MAX) >> q_page_shift;
}

static bool grow_window(struct q_zone *zone)
{
    size_t left = zone->start_pfn + zone->spanned_pages - zone->frontier_end;
    size_t block = (size_t)1 << Q_MAX_ORDER;

    for (size_t nr = q_min(growth(zone), left); nr >= block; nr = q_align_down(nr / 2, block)) {
        void *at = q_pfn_to_virt(zone->frontier_end);

        bool online = q_linear_online(at, nr << q_page_shift) == 0;
        if (online && !online_arrays(zone->frontier_end, nr, zone->nid)) {
            q_mprotect(at, nr << q_page_shift, PROT_NONE);
            online = false;
        }
        if (online) {
            q_node_bind(at, nr << q_page_shift, zone->nid);
            if (q_mem.thp_always && q_linear == NULL)
                q_madvise(at, nr << q_page_shift, MADV_NOHUGEPAGE);
        }
        q_mem_reshape();
        if (!online)
            continue;
        zone->frontier_end += nr;
        /* Relaxed: for q_heap_is_small(), which reads without the lock. */
        __atomic_store_n(&zone->present_pages, zone->present_pages + nr, __ATOMIC_RELAXED);
        return true;
    }
    return false;
}

static size_t section_of(uintptr_t addr)
{
    return addr / q_max_block_size() & ((q_mem.max_pages >> Q_SECTION_ORDER) - 1);
}

size_t q_section_pfn(uintptr_t addr)
{
    uintptr_t start = q_align_down(addr, q_max_block_size());

    if (q_mem.section_addr == NULL || start == 0 || q_section_addr(section_of(addr)) != start)
        return Q_BAD_PFN;
    return (section_of(addr) << Q_SECTION_ORDER) + ((addr - start) >> q_page_shift);
}

/*
 * One more at this very place, if its number is not taken. NULL: the kernel has
 * it not, and *full says whether it has any other.
 */
static char *place_at(uintptr_t hint, bool *full)
{
    if (q_section_addr(section_of(hint)) != 0)
        return NULL;
    char *at = q_mmap((void *)hint, q_max_block_size(), PROT_NONE, MAP_NORESERVE);
    *full = at == NULL;
    if (at != NULL && (uintptr_t)at != hint) {
        q_munmap(at, q_max_block_size());
        return NULL;
    }
    return at;
}

/* The nearest place on either side of this one. */
static char *place_nearby(uintptr_t near)
{
    size_t len = q_max_block_size(), nr = q_mem.max_pages >> Q_SECTION_ORDER;
    bool full = false;
    char *at = NULL;

    for (size_t i = 1; i < nr && at == NULL && !full; i++) {
        if (near / len > i + 1)
            at = place_at(near - i * len, &full);
        if (at == NULL && !full && UINTPTR_MAX / len > near / len + i + 1)
            at = place_at(near + i * len, &full);
    }
    return at;
}

/*
 * Addresses for one more section; NULL where there are none. Below the last
 * one, where the kernel would look next: to align a place of the kernel's own
 * choice leaves holes. Where its number is taken it goes elsewhere.
 */
static char *place_section(void)
{
    size_t len = q_max_block_size();
    bool full = q_mem.nr_sections == q_mem.max_pages >> Q_SECTION_ORDER;
    char *at = NULL;

    if (!full && q_mem.last_section > 2 * len)
        at = place_at(q_mem.last_section - len, &full);
    if (at != NULL || full)
        return at;
    at = q_reserve(len, len);
    if (at == NULL)
        return q_mem.last_section != 0 ? place_nearby(q_mem.last_section) : NULL;
    if (q_section_addr(section_of((uintptr_t)at)) == 0)
        return at;
    q_munmap(at, len);
    return place_nearby((uintptr_t)at);
}

static bool online_section(char *at, unsigned nid)
{
    size_t pfn = section_of((uintptr_t)at) << Q_SECTION_ORDER;

    if (!online_arrays(pfn, (size_t)1 << Q_SECTION_ORDER, nid) ||
        q_mprotect(at, q_max_block_size(), PROT_READ | PROT_WRITE) != 0)
        return false;
    q_node_bind(at, q_max_block_size(), nid);
    if (q_mem.thp_always)
        q_madvise(at, q_max_block_size(), MADV_NOHUGEPAGE);
    return true;
}

/* One more section, wherever the kernel puts it. */
static bool grow_sparse(struct q_zone *zone)
{
    size_t nr = (size_t)1 << Q_SECTION_ORDER;

    q_lock(&q_mem_lock);
    char *at = place_section();
    bool done = at != NULL && online_section(at, zone->nid);
    if (done) {
        size_t section = section_of((uintptr_t)at);

        q_mem.section_zone[section] = zone;
        q_mem.nr_sections++;
        q_mem.end_section = q_max(q_mem.end_section, section + 1);
        q_mem.first_section = q_min(q_mem.first_section, section);
        q_mem.last_section = (uintptr_t)at;
        /* Release: see q_section_addr(). */
        __atomic_store_n(&q_mem.section_addr[section], (uintptr_t)at, __ATOMIC_RELEASE);
        zone->frontier = section << Q_SECTION_ORDER;
        zone->frontier_end = zone->frontier + nr;
        /* Relaxed: for q_heap_is_small(), which reads without the lock. */
        __atomic_store_n(&zone->present_pages, zone->present_pages + nr, __ATOMIC_RELAXED);
    } else if (at != NULL) {
        q_munmap(at, q_max_block_size());
    }
    q_unlock(&q_mem_lock);
    return done;
}

bool q_zone_grow(struct q_zone *zone)
{
    q_assert(zone->frontier == zone->frontier_end);
    return q_mem.sparse ? grow_sparse(zone) : grow_window(zone);
}

static Q_NOINLINE bool section_online(size_t pfn)
{
    return pfn < q_mem.max_pages && q_section_addr(pfn >> Q_SECTION_ORDER) != 0;
}

bool q_pfn_online(size_t pfn)
{
    if (q_unlikely(q_mem.sparse))
        return section_online(pfn);
    if (q_nodes[pfn >> q_mem.node_shift] == NULL)
        return false;
    struct q_zone *zone = q_pfn_zone(pfn);
    return pfn - zone->start_pfn < zone->present_pages;
}
