/* undo.c - see undo.h: the allocator's own state, copied and put back. */
#include "cow/undo.h"

#include <errno.h>
#include <string.h>

#include "base/helper.h"
#include "numa/topology.h"
#include "slab/arena.h"
#include "slab/cache.h"
#include "slab/heap.h"
#include "zone/movable.h"
#include "zone/page_alloc.h"
#include "zone/vmalloc.h"

struct q_undo *q_undo_new(void)
{
    size_t bytes = q_align_up(sizeof(struct q_undo), q_page_size());

    return q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);
}

static void unmap(void *p, size_t bytes)
{
    if (p != NULL)
        q_munmap(p, q_align_up(bytes, q_page_size()));
}

void q_undo_free(struct q_undo *u)
{
    if (u == NULL)
        return;
    q_ranges_free(&u->guarded);
    q_ranges_free(&u->blocks);
    unmap(u->page, u->room * sizeof(*u->page));
    unmap(u->copy, u->copy_bytes);
    unmap(u, sizeof(*u));
}

bool q_undo_make_log(struct q_undo *u)
{
    u->room = q_max(2 * (u->guarded.bytes >> q_page_shift), 1);
    u->page = q_mmap(NULL, q_align_up(u->room * sizeof(*u->page), q_page_size()),
                     PROT_READ | PROT_WRITE, MAP_NORESERVE);
    return u->page != NULL;
}

/* --- the copy -------------------------------------------------------------------------------- */

/* Called for every piece of the copy, always in the same order; `at` is its place in the copy. */
typedef void (*piece_fn)(char *live, char *at, size_t bytes);

static size_t piece(piece_fn fn, char *copy, size_t at, void *live, size_t bytes)
{
    if (fn != NULL)
        fn(live, copy + at, bytes);
    return at + bytes;
}

/* All of a structure that begins with its lock, but for that. */
static size_t locked_piece(piece_fn fn, char *copy, size_t at, struct q_lock *lock, size_t bytes)
{
    return piece(fn, copy, at, lock + 1, bytes - sizeof(*lock));
}

_Static_assert(offsetof(struct q_zone, lock) == 0 && offsetof(struct q_pcp, lock) == 0 &&
                   offsetof(struct q_shared_list, lock) == 0 &&
                   offsetof(struct q_caches, lock) == 0 && offsetof(struct q_arenas, lock) == 0,
               "locks come first");

static size_t zone_pieces(piece_fn fn, char *copy, size_t at, struct q_zone *zone)
{
    at = locked_piece(fn, copy, at, &zone->lock, sizeof(*zone));
    for (unsigned cpu = 0; cpu < q_topology.nr_cpus; cpu++)
        at = locked_piece(fn, copy, at, &zone->pcp[cpu].lock, sizeof(zone->pcp[cpu]));
    return at;
}

/* Bytes of all pieces. Heaps come first: q_undo_check() looks at theirs. */
static size_t each_piece(const struct q_undo *u, piece_fn fn)
{
    size_t at = 0, nr_shared;
    struct q_shared_list *shared = q_shared_lists(&nr_shared);

    for (uint32_t id = 1; id <= u->nr_heaps; id++)
        at = piece(fn, u->copy, at, q_heaps[id], sizeof(*q_heaps[id]));
    at = locked_piece(fn, u->copy, at, &q_caches.lock, sizeof(q_caches));
    at = locked_piece(fn, u->copy, at, &q_arenas.lock, sizeof(q_arenas));
    for (size_t i = 0; i < nr_shared; i++)
        at = locked_piece(fn, u->copy, at, &shared[i].lock, sizeof(shared[i]));
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            at = zone_pieces(fn, u->copy, at, &q_nodes[nid]->zones[type]);
    return at;
}

static void copy_piece(char *live, char *at, size_t bytes)
{
    memcpy(at, live, bytes);
}

static void put_piece(char *live, char *at, size_t bytes)
{
    memcpy(live, at, bytes);
}

/* --- at the cut ------------------------------------------------------------------------------ */

static bool any_busy(void)
{
    for (uint32_t id = 1; id <= q_nr_heaps; id++)
        if (q_heaps[id]->live && q_heaps[id]->busy)
            return true;
    return false;
}

static void collect_block(void *arg, void *addr, size_t bytes)
{
    struct q_ranges *r = arg;

    if (q_ranges_reserve(r, r->nr + 1))
        r->at[r->nr++] = (struct q_range){(uintptr_t)addr, (uintptr_t)addr + bytes};
}

static bool collect_blocks(struct q_undo *u)
{
    q_veach(collect_block, &u->blocks);
    q_ranges_sort(&u->blocks);
    u->vm_changes = q_vchanges();
    return !u->blocks.failed;
}

int q_undo_collect(struct q_undo *u)
{
    if (any_busy())
        return EBUSY;
    if (!q_ranges_collect_all(&u->guarded) || !collect_blocks(u))
        return ENOMEM;
    u->nr_heaps = q_nr_heaps;
    u->movable_changes = q_movable_changes();
    u->nr_threads = q_count_threads();
    u->pages_in_use = atomic_load_explicit(&q_pages_in_use, memory_order_relaxed) -
                      atomic_load_explicit(&q_pages_outside, memory_order_relaxed);
    u->pages_carved = atomic_load_explicit(&q_pages_carved, memory_order_relaxed);
    u->copy_bytes = each_piece(u, NULL);
    u->copy = q_mmap(NULL, q_align_up(u->copy_bytes, q_page_size()), PROT_READ | PROT_WRITE, 0);
    if (u->copy == NULL || !q_undo_make_log(u))
        return ENOMEM;
    each_piece(u, copy_piece);
    return 0;
}

/* --- going back ------------------------------------------------------------------------------ */

int q_undo_check(const struct q_undo *u)
{
    const struct q_heap *then = (const struct q_heap *)u->copy;

    if (q_nr_heaps != u->nr_heaps || q_count_threads() > u->nr_threads || any_busy())
        return EBUSY;
    if (q_movable_changes() != u->movable_changes)
        return EBUSY; /* handles are not put back, so their runs must be where they were */
    for (uint32_t id = 1; id <= u->nr_heaps; id++, then++)
        if (q_heaps[id]->live != then->live || q_heaps[id]->exited != then->exited ||
            q_heaps[id]->tp != then->tp)
            return EBUSY;
    return 0;
}

static bool known(void *arg, const void *addr)
{
    const struct q_range *r = q_ranges_find(arg, (uintptr_t)addr);

    return r != NULL && r->start == (uintptr_t)addr;
}

static void put_blocks_back(struct q_undo *u)
{
    if (q_vchanges() == u->vm_changes)
        return;
    q_vforget(known, &u->blocks);
    for (size_t i = 0; i < u->blocks.nr; i++)
        q_vadopt((void *)u->blocks.at[i].start, u->blocks.at[i].end - u->blocks.at[i].start);
    u->vm_changes = q_vchanges();
}

/* Frames [from, to) were beyond the frontier: never used, so zero, and so is what describes them. */
static void forget_pages(size_t from, size_t to)
{
    struct q_part part[Q_NR_ARRAYS];
    void *at = q_pfn_to_virt(from);
    size_t bytes = (to - from) << q_page_shift;

    if (q_madvise(at, bytes, MADV_DONTNEED) != 0) /* locked memory */
        memset(at, 0, bytes);
    q_mem_parts(from, to - from, part);
    for (unsigned i = 0; i < Q_NR_ARRAYS; i++)
        memset((void *)part[i].from, 0, part[i].to - part[i].from);
}

/* What is online stays so. */
struct online {
    size_t frontier, frontier_end, present;
};

static struct online *each_zone(struct online *o, bool back)
{
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++) {
        for (unsigned type = 0; type < Q_NR_ZONES; type++, o++) {
            struct q_zone *zone = &q_nodes[nid]->zones[type];

            if (!back) {
                *o = (struct online){zone->frontier, zone->frontier_end, zone->present_pages};
                continue;
            }
            zone->frontier_end = o->frontier_end;
            zone->present_pages = o->present;
            if (o->frontier > zone->frontier)
                forget_pages(zone->frontier, o->frontier);
        }
    }
    return o;
}

void q_undo_put_back(struct q_undo *u)
{
    struct online online[Q_MAX_NODES * Q_NR_ZONES];

    each_zone(online, false);
    each_piece(u, put_piece);
    each_zone(online, true);
    put_blocks_back(u);
    /* Relaxed: no other thread allocates. */
    size_t outside = atomic_load_explicit(&q_pages_outside, memory_order_relaxed);
    atomic_store_explicit(&q_pages_in_use, u->pages_in_use + outside, memory_order_relaxed);
    atomic_store_explicit(&q_pages_carved, u->pages_carved, memory_order_relaxed);
    u->restores++;
}
