/* sweep.c - see sweep.h. */
#include "cow/sweep.h"

#include "cow/cow.h"
#include "cow/sigbus.h"
#include "numa/topology.h"
#include "zone/memmap.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define PIECE Q_PAGEBLOCK_SIZE
#define WORTH ((size_t)16 << 20)       /* smaller zones are protected at once */
#define GROWTH ((size_t)64 << 20)      /* between reserving and the cut */
#define SHADOW_ALIGN ((size_t)1 << 30) /* as the zones, so that whole page tables are moved */
#define ZONES (Q_MAX_NODES * Q_NR_ZONES)
#define REGIONS 64u
#define WANTED 64u
#define TRIES 3u
#define INHERITED 1000u /* pieces at once */

enum state { HERE, AWAY, MOVING };

/* One mapping, or the part of it in a zone, that is moved aside. */
struct region {
    uintptr_t start, end; /* the same while nothing is */
    uintptr_t shadow;     /* where start is now */
};

/* What is to be moved at a cut, and reserved for it: of each zone, a shadow. Under api_lock. */
static struct region planned[REGIONS]; /* end: where the mapping ends */
static unsigned nr_planned;
static uint32_t shape_planned; /* q_mem.nr_reshaped then */
static struct q_range reserved[ZONES];
static unsigned nr_reserved;
static struct region region[REGIONS];
static _Atomic unsigned nr_regions;
static _Atomic uint8_t *state;          /* of each piece of the window */
static _Atomic size_t next;             /* pieces before this one have been claimed */
static _Atomic uint32_t away;           /* pieces not HERE; a futex */
static _Atomic uint32_t bell;           /* a futex */
static _Atomic bool others_wait;        /* for a piece, at other addresses: views */
static _Atomic uint32_t wanted[WANTED]; /* pieces that are waited for, + 1 */
static _Atomic size_t in_hand;          /* the sweeper's piece, + 1; 0: none */
static _Atomic bool put_off;            /* some that were claimed are away again */
static _Atomic bool unmended;           /* some are back and not registered as they should be */
static uint32_t nr_wanted;              /* under q_store.lock */

bool q_sweep_pending(void)
{
    /* Acquire: pairs with the release in bring_back(); memory is where it was. */
    return atomic_load_explicit(&away, memory_order_acquire) != 0;
}

void q_sweep_ring(void)
{
    /* Release: pairs with the acquire in q_sweep_loop(): what there is to do is seen. */
    atomic_fetch_add_explicit(&bell, 1, memory_order_release);
    q_futex(&bell, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
}

static const struct region *find(uintptr_t addr)
{
    /* Acquire: pairs with the release in q_sweep_cut(). */
    for (unsigned i = atomic_load_explicit(&nr_regions, memory_order_acquire); i-- > 0;)
        if (addr - region[i].start < region[i].end - region[i].start)
            return &region[i];
    return NULL;
}

static size_t piece_of(uintptr_t addr)
{
    return (addr - q_mem.base) / PIECE;
}

bool q_sweep_moved(uintptr_t addr, uintptr_t *end)
{
    const struct region *in = find(addr);

    if (in != NULL) {
        *end = q_min(*end, in->end);
        return true;
    }
    for (unsigned i = 0; i < nr_planned; i++)
        if (region[i].start > addr && region[i].end > region[i].start)
            *end = q_min(*end, region[i].start);
    return false;
}

bool q_sweep_away(uintptr_t addr, size_t len)
{
    if (!q_sweep_pending())
        return false;
    for (uintptr_t at = q_align_down(addr, PIECE); at < addr + len; at += PIECE)
        /* Acquire: pairs with bring_back(). */
        if (find(at) != NULL &&
            atomic_load_explicit(&state[piece_of(at)], memory_order_acquire) != HERE)
            return true;
    return false;
}

/* --- the cut --------------------------------------------------------------------------------- */

static size_t used_bytes(const struct q_zone *zone)
{
    return q_align_up((zone->frontier - zone->start_pfn) << q_page_shift, PIECE);
}

/* Plan a zone, mapping by mapping. Without its lock: it may have grown by the time of the cut. */
static void plan(const struct q_zone *zone)
{
    struct q_range mapping[REGIONS];
    uintptr_t start = (uintptr_t)q_pfn_to_virt(zone->start_pfn);
    size_t bytes = used_bytes(zone) + GROWTH;
    size_t nr = q_mappings(start, start + bytes, mapping, REGIONS - nr_planned);

    if (used_bytes(zone) < WORTH || nr == 0)
        return;
    for (size_t i = 0; i < nr; i++)
        if (mapping[i].start % PIECE != 0)
            return; /* somebody else's doing */
    size_t map_bytes = bytes + SHADOW_ALIGN;
    char *map = q_mmap(NULL, map_bytes, PROT_NONE, MAP_NORESERVE);
    if (map == NULL)
        return;
    uintptr_t shadow = q_align_up((uintptr_t)map, SHADOW_ALIGN) + start % SHADOW_ALIGN;
    if (shadow - (uintptr_t)map >= SHADOW_ALIGN)
        shadow -= SHADOW_ALIGN;
    reserved[nr_reserved++] = (struct q_range){(uintptr_t)map, (uintptr_t)map + map_bytes};
    for (size_t i = 0; i < nr; i++)
        planned[nr_planned++] =
            (struct region){mapping[i].start, mapping[i].end, shadow + (mapping[i].start - start)};
}

void q_sweep_prepare(void)
{
    nr_planned = nr_reserved = 0;
    shape_planned = atomic_load_explicit(&q_mem.nr_reshaped, memory_order_relaxed);
    if (q_mem.size == 0 || q_cow_orphaned() ||
        (q_cow.uffd.features & UFFD_FEATURE_EVENT_REMAP) == 0)
        return;
    if (state == NULL)
        state = q_mmap(NULL, q_align_up(q_mem.size / PIECE, q_page_size()), PROT_READ | PROT_WRITE,
                       MAP_NORESERVE);
    if (state == NULL || !q_sweep_hold_spare())
        return;
    for (unsigned nid = 0; nid < q_topology.nr_nodes; nid++)
        for (unsigned type = 0; type < Q_NR_ZONES; type++)
            plan(&q_nodes[nid]->zones[type]);
}

/*
 * Who touches a page after the move must not find a new one, so missing pages
 * are asked for before it. If it fails that has to be undone, which un-protects.
 */
static bool move_aside(const struct region *r, size_t len)
{
    if (q_uffd_register(&q_cow.uffd, r->start, len,
                        UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP) != 0)
        return false;
    long ret =
        q_arch_syscall6(SYS_mremap, (long)r->start, (long)len, (long)len,
                        MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, (long)r->shadow, 0);
    if (ret == (long)r->shadow)
        return true;
    q_uffd_unregister(&q_cow.uffd, r->start, len);
    q_uffd_register(&q_cow.uffd, r->start, len, UFFDIO_REGISTER_MODE_WP);
    q_cow_lose(EIO); /* the older ones */
    return false;
}

size_t q_sweep_cut(void)
{
    size_t bytes = 0;

    /* A region that is two mappings now cannot be moved: then all is protected at once, this time. */
    if (atomic_load_explicit(&q_mem.nr_reshaped, memory_order_relaxed) != shape_planned)
        nr_planned = 0;
    for (unsigned i = 0; i < nr_planned; i++) {
        const struct q_zone *zone = q_pfn_zone(q_virt_to_pfn((void *)planned[i].start));
        uintptr_t used = (uintptr_t)q_pfn_to_virt(zone->start_pfn) + used_bytes(zone);
        uintptr_t end = q_min(q_align_down(planned[i].end, PIECE), used);

        region[i] = planned[i];
        region[i].end = planned[i].start;
        if (end > planned[i].start && !q_cow_orphaned() &&
            move_aside(&planned[i], end - planned[i].start))
            region[i].end = end;
        bytes += region[i].end - region[i].start;
    }
    /* Release: the regions. */
    atomic_store_explicit(&nr_regions, nr_planned, memory_order_release);
    return bytes;
}

void q_sweep_publish(void)
{
    uint32_t nr = 0;

    for (unsigned i = 0; i < nr_planned; i++) {
        for (uintptr_t at = region[i].start; at < region[i].end; at += PIECE, nr++)
            /* Release: who claims it sees the snapshots that need it, and the regions. */
            atomic_store_explicit(&state[piece_of(at)], AWAY, memory_order_release);
    }
    for (size_t i = 0; i < WANTED; i++)
        atomic_store_explicit(&wanted[i], 0, memory_order_relaxed);
    /* Release, both, for the same. */
    atomic_store_explicit(&next, 0, memory_order_release);
    atomic_store_explicit(&away, nr, memory_order_release);
}

static void unmap(uintptr_t from, uintptr_t to)
{
    if (to > from)
        q_munmap((void *)from, to - from);
}

void q_sweep_start(bool moved)
{
    for (unsigned i = 0; i < nr_reserved; i++) {
        uintptr_t at = reserved[i].start;

        /* All but what was moved to it, which goes as its pieces are moved back. */
        for (unsigned k = 0; moved && k < nr_planned; k++) {
            if (region[k].shadow < reserved[i].start || region[k].shadow >= reserved[i].end)
                continue;
            unmap(at, region[k].shadow);
            at = region[k].shadow + (region[k].end - region[k].start);
        }
        unmap(at, reserved[i].end);
    }
    nr_planned = nr_reserved = 0;
    if (q_sweep_pending())
        q_sweep_ring();
    else
        q_sweep_release_spare();
}

/* --- the sweep ------------------------------------------------------------------------------- */

/* The registration is made anew for protection alone; that un-protects, so it is done for all. */
static bool protect_piece(const struct region *r, uintptr_t at)
{
    uintptr_t distance = r->shadow - r->start;

    if (q_uffd_unregister(&q_cow.uffd, at + distance, PIECE) != 0 ||
        q_uffd_register(&q_cow.uffd, at + distance, PIECE, UFFDIO_REGISTER_MODE_WP) != 0)
        return false;
    /* Nobody changes the list while a piece is away. */
    for (const struct quire_snapshot *s = q_cow.live; s != NULL; s = s->older)
        if (q_cow_error(s) == 0 && !q_sweep_protect_for(q_cow_guarded(s), at, at + PIECE, distance))
            return false;
    return true;
}

static void lose_all(void)
{
    /* The list does not change while a piece is away. The keeper, who must not wait, has lost all. */
    if (!q_cow_any_live())
        return;
    uint64_t mask = q_signals_block();
    q_lock(&q_store.lock);
    q_cow_lose(EIO);
    q_store_unlock();
    q_signals_restore(mask);
}

static bool move_back(uintptr_t from, uintptr_t at)
{
    for (unsigned i = 0; i < TRIES; i++) {
        if (q_arch_syscall6(SYS_mremap, (long)from, PIECE, PIECE, MREMAP_MAYMOVE | MREMAP_FIXED,
                            (long)at, 0) == (long)at)
            return true;
        q_sweep_release_spare();
        q_sweep_close_hole(at, PIECE); /* if that fails: later, when this is tried again */
    }
    return false;
}

/*
 * The kernel does not move it: no mapping is left (vm.max_map_count), and what
 * was held ready has been used up by others. Copying takes none. The place is
 * then registered for missing pages still, and such cannot be protected, so
 * snapshots are lost; q_sweep_mend() sees to the place.
 */
static bool copy_back(const struct region *r, uintptr_t at)
{
    lose_all();
    atomic_store_explicit(&unmended, true, memory_order_relaxed);
    /* The sweeper must not wait for a fault. All that is left of it at once, which splits no mapping. */
    return q_uffd_unregister(&q_cow.uffd, r->shadow, r->end - r->start) == 0 &&
           q_sweep_copy(r->shadow + (at - r->start), at, PIECE);
}

static void came_back(size_t piece, bool sweeper)
{
    uintptr_t at = q_mem.base + piece * PIECE;

    /* Release, both: who finds it here may use the memory. */
    atomic_store_explicit(&state[piece], HERE, memory_order_release);
    /* Before the look at others_wait: see q_sweep_want_elsewhere(). */
    atomic_thread_fence(memory_order_seq_cst);
    q_uffd_wake(&q_cow.uffd, at, PIECE);
    if (atomic_exchange_explicit(&others_wait, false, memory_order_acq_rel))
        q_uffd_wake_all(&q_cow.uffd);
    bool last = atomic_fetch_sub_explicit(&away, 1, memory_order_acq_rel) == 1;
    if (sweeper)
        atomic_store_explicit(&in_hand, 0, memory_order_relaxed);
    if (last)
        q_futex(&away, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX);
}

/* A piece that the caller has claimed. */
static void bring_back(size_t piece, bool sweeper)
{
    uintptr_t at = q_mem.base + piece * PIECE;
    const struct region *r = find(at);
    bool move = !q_cow_orphaned(); /* else the keeper copies all */

    if (sweeper)
        atomic_store_explicit(&in_hand, piece + 1, memory_order_relaxed);
    if (move && !protect_piece(r, at)) {
        lose_all();
        q_sweep_release_spare();
        atomic_store_explicit(&unmended, true, memory_order_relaxed);
    }
    if (!(move && move_back(r->shadow + (at - r->start), at)) && !(sweeper && copy_back(r, at))) {
        /* Later, when others are back: in order they need no mapping more. Or by the sweeper. */
        atomic_store_explicit(&state[piece], AWAY, memory_order_release);
        atomic_store_explicit(&put_off, true, memory_order_relaxed);
        if (sweeper)
            atomic_store_explicit(&in_hand, 0, memory_order_relaxed);
        else
            q_sweep_ring();
        q_cow_nap();
        return;
    }
    came_back(piece, sweeper);
}

bool q_sweep_mend(void)
{
    if (!atomic_load_explicit(&unmended, memory_order_relaxed))
        return true;
    for (unsigned i = 0; i < nr_regions; i++) {
        size_t len = region[i].end - region[i].start;

        /* The whole of it at once, which splits no mapping. */
        if (len > 0 &&
            (q_uffd_unregister(&q_cow.uffd, region[i].start, len) != 0 ||
             q_uffd_register(&q_cow.uffd, region[i].start, len, UFFDIO_REGISTER_MODE_WP) != 0))
            return false;
    }
    atomic_store_explicit(&unmended, false, memory_order_relaxed);
    return true;
}

static bool claim(size_t piece)
{
    uint8_t is = AWAY;

    /* Acquire: pairs with q_sweep_publish(). */
    return atomic_compare_exchange_strong_explicit(&state[piece], &is, MOVING, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* The nth piece of all regions, or one of none. */
static uintptr_t nth(size_t n)
{
    unsigned nr = atomic_load_explicit(&nr_regions, memory_order_acquire);

    for (unsigned i = 0; i < nr; i++) {
        size_t pieces = (region[i].end - region[i].start) / PIECE;

        if (n < pieces)
            return region[i].start + n * PIECE;
        n -= pieces;
    }
    return 0;
}

static bool bring_wanted(bool sweeper)
{
    for (size_t i = 0; i < WANTED; i++) {
        /* Relaxed: a hint; claim() decides. */
        uint32_t w = atomic_load_explicit(&wanted[i], memory_order_relaxed);

        if (w == 0)
            continue;
        atomic_store_explicit(&wanted[i], 0, memory_order_relaxed);
        if (claim(w - 1)) {
            bring_back(w - 1, sweeper);
            return true;
        }
    }
    return false;
}

/* Bring one back: what is waited for first. False: all are claimed. */
static bool bring_next(bool sweeper)
{
    if (!q_sweep_pending())
        return false;
    if (bring_wanted(sweeper))
        return true;
    for (;;) {
        uintptr_t at = nth(atomic_fetch_add_explicit(&next, 1, memory_order_acquire));

        if (at == 0) {
            if (!atomic_exchange_explicit(&put_off, false, memory_order_relaxed))
                return false;
            atomic_store_explicit(&next, 0, memory_order_release); /* once more, in order */
            continue;
        }
        if (claim(piece_of(at))) {
            bring_back(piece_of(at), sweeper);
            return true;
        }
    }
}

void q_sweep_want(uintptr_t addr)
{
    atomic_store_explicit(&wanted[nr_wanted++ % WANTED], (uint32_t)piece_of(addr) + 1,
                          memory_order_relaxed);
    q_sweep_ring();
}

bool q_sweep_want_elsewhere(uintptr_t addr)
{
    atomic_store_explicit(&others_wait, true, memory_order_relaxed);
    /* Sequentially consistent, as in bring_back(): one of the two sees what the other wrote. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!q_sweep_away(addr, 1))
        return false;
    q_sweep_want(addr);
    return true;
}

void q_sweep_finish(void)
{
    if (!q_sweep_pending())
        return;
    q_cow_meet_child(); /* what is away is its parent's */
    /* A signal handler that forks would wait for the piece that it interrupted. */
    uint64_t mask = q_signals_block();
    if (q_uffd_ours(&q_cow.uffd))
        while (bring_next(false))
            ;
    q_signals_restore(mask);
    uint32_t left;
    while ((left = atomic_load_explicit(&away, memory_order_acquire)) != 0)
        q_futex(&away, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, left);
    q_sweep_release_spare();
}

void q_sweep_loop(void)
{
    struct q_uffd own = {.fd = q_cow.uffd.fd};

    while (q_cow.uffd.fd == own.fd) {
        /* Acquire: pairs with q_sweep_ring(). */
        uint32_t heard = atomic_load_explicit(&bell, memory_order_acquire);

        q_cow_wake_left();
        q_bus_hold();
        if (!bring_next(true) && q_cow.uffd.fd == own.fd)
            q_futex(&bell, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, heard);
    }
    q_uffd_close(&own); /* as the keeper did: the last one opens everything */
}

/* A thread is killed alone where it makes a system call, which is not made then. */
void q_sweep_inherit(void)
{
    size_t piece = atomic_load_explicit(&in_hand, memory_order_relaxed);

    if (piece != 0 && atomic_load_explicit(&state[piece - 1], memory_order_relaxed) == MOVING)
        bring_back(piece - 1, true); /* so it had not been moved */
    else if (piece != 0)
        came_back(piece - 1, true);
    for (unsigned i = 0; i < INHERITED && bring_next(true); i++)
        ;
    q_futex(&away, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT32_MAX);
}

void q_sweep_forget(void)
{
    atomic_store_explicit(&in_hand, 0, memory_order_relaxed);
    atomic_store_explicit(&nr_regions, 0, memory_order_relaxed);
    atomic_store_explicit(&away, 0, memory_order_relaxed);
    atomic_store_explicit(&unmended, false, memory_order_relaxed);
}
