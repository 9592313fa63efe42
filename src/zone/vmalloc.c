/* vmalloc.c - see vmalloc.h. */
#include "zone/vmalloc.h"

#include <string.h>

#include "base/msg.h"
#include "base/opt.h"
#include "zone/hold.h"
#include "zone/movable.h"
#include "zone/page_alloc.h"
#include "zone/pageblock.h"
#include "zone/place.h"

#define TABLE_SIZE (1u << 17) /* twice as many as the kernel allows mappings by default */
#define CACHE_SLOTS 16
#define CACHE_BYTES ((size_t)256 << 20)
#define CACHE_SHARE 8                   /* and at most this part of what is in use, */
#define CACHE_LATELY ((size_t)32 << 20) /* or so much of what was mapped lately */

struct q_lock q_vm_lock;

static struct entry {
    uintptr_t addr; /* 0: free */
    size_t bytes;
} table[TABLE_SIZE];

static struct {
    void *addr;
    size_t bytes;
    uint32_t stamp_ms;
    int nid; /* of its memory */
} cache[CACHE_SLOTS];

/* Entries in use by group, so that a walk need not look at all of the table. */
#define GROUP 512u
static uint16_t group_used[TABLE_SIZE / GROUP];

/* Entries that came or went, ever. */
static size_t changes;

/* Blocks that q_vrealloc() is moving. */
static unsigned moving;

/* NULL unless snapshots need what blocks held when they were freed. */
const struct q_holder *_Atomic q_holder;

static struct q_vstat stat;
static uint32_t trim_ms;
static size_t peak; /* most bytes in use by blocks, lately */

static size_t home_slot(uintptr_t addr)
{
    return ((addr >> 12) * 0x9e3779b97f4a7c15u) >> 47;
}

/* The slot of addr, or the free slot where it would go; TABLE_SIZE where the table is full. */
static size_t find_slot(uintptr_t addr)
{
    size_t at = home_slot(addr);

    for (size_t n = 0; n < TABLE_SIZE; n++, at = (at + 1) % TABLE_SIZE)
        if (table[at].addr == addr || table[at].addr == 0)
            return at;
    return TABLE_SIZE;
}

static bool insert(void *p, size_t bytes)
{
    size_t at = find_slot((uintptr_t)p);

    /* What is being moved finds its place again. */
    if (at == TABLE_SIZE || stat.blocks + moving >= TABLE_SIZE - 1)
        return false;
    table[at].bytes = bytes;
    atomic_signal_fence(memory_order_seq_cst);
    table[at].addr = (uintptr_t)p;
    group_used[at / GROUP]++;
    changes++;
    stat.blocks++;
    stat.bytes += bytes;
    peak = q_max(peak, stat.bytes);
    return true;
}

/* Close the gap that a removed entry would leave in the probe sequence (Knuth, vol. 3, 6.4 R). */
static void remove_slot(size_t at)
{
    changes++;
    stat.blocks--;
    stat.bytes -= table[at].bytes;
    for (size_t next = (at + 1) % TABLE_SIZE; table[next].addr != 0;
         next = (next + 1) % TABLE_SIZE) {
        size_t home = home_slot(table[next].addr);

        if ((next - home) % TABLE_SIZE >= (next - at) % TABLE_SIZE) {
            /* In this order, lest a child of fork find the next block's address with another length. */
            table[at].bytes = table[next].bytes;
            atomic_signal_fence(memory_order_seq_cst);
            table[at].addr = table[next].addr;
            at = next;
        }
    }
    table[at].addr = 0;
    table[at].bytes = 0;
    group_used[at / GROUP]--;
}

/* Take the cached block that serves best: the smallest that fits, else the largest, of about the size. */
static bool take_cached(size_t bytes, size_t align, int nid, void **addr, size_t *have)
{
    int best = -1;

    for (int i = 0; i < CACHE_SLOTS; i++) {
        if (cache[i].addr == NULL || cache[i].nid != nid ||
            ((uintptr_t)cache[i].addr & (align - 1)) != 0 || cache[i].bytes < bytes / 2 ||
            cache[i].bytes / 2 > bytes)
            continue;
        if (best < 0) {
            best = i;
            continue;
        }
        bool fits = cache[i].bytes >= bytes, best_fits = cache[best].bytes >= bytes;
        if (fits != best_fits
                ? fits
                : (fits ? cache[i].bytes < cache[best].bytes : cache[i].bytes > cache[best].bytes))
            best = i;
    }
    if (best < 0)
        return false;
    *addr = cache[best].addr;
    *have = cache[best].bytes;
    stat.cached_blocks--;
    stat.cached_bytes -= cache[best].bytes;
    cache[best].addr = NULL;
    return true;
}

static void *reuse_cached(size_t bytes, size_t align, unsigned nid, size_t *dirty)
{
    void *addr;
    size_t have;

    q_lock(&q_vm_lock);
    bool got = take_cached(bytes, align, (int)nid, &addr, &have);
    q_unlock(&q_vm_lock);
    if (!got)
        return NULL;
    *dirty = q_min(have, bytes);
    if (have > bytes) {
        q_munmap((char *)addr + bytes, have - bytes);
        return addr;
    }
    if (have == bytes)
        return addr;
    void *moved = q_mremap(addr, have, bytes, align > q_page_size() ? 0 : MREMAP_MAYMOVE);
    if (moved == NULL)
        q_munmap(addr, have);
    return moved;
}

/* Under the limit, or once what may be dropped has been. */
static bool charge(size_t nr)
{
    return q_charge(nr) || (q_movable_shrink(nr) > 0 && q_charge(nr));
}

void *q_vmalloc(size_t bytes, size_t align, size_t *dirty)
{
    size_t len = q_align_up(q_max(bytes, 1), q_page_size());

    if (len < bytes || !charge(len >> q_page_shift))
        return NULL;
    align = q_max(align, q_page_size());
    q_vtrim(false);
    struct q_place place = q_place_by_policy();
    void *p = q_policy_mode() == Q_MPOL_LOCAL ? reuse_cached(len, align, place.nid, dirty) : NULL;
    if (p == NULL) {
        *dirty = 0;
        p = q_place_map(&place, len, align);
    }
    if (p == NULL && q_vtrim(true) > 0)
        p = q_place_map(&place, len, align);
    if (p != NULL) {
        q_place_count(&place, place.nid);
        q_lock(&q_vm_lock);
        bool ok = insert(p, len);
        q_unlock(&q_vm_lock);
        if (ok) {
            q_keep_to_limit();
            return p;
        }
        q_munmap(p, len);
    }
    q_uncharge(len >> q_page_shift);
    return NULL;
}

size_t q_vsize(const void *p)
{
    size_t bytes = 0;

    if (((uintptr_t)p & (q_page_size() - 1)) != 0)
        return 0;
    q_lock(&q_vm_lock);
    size_t at = find_slot((uintptr_t)p);
    if (at != TABLE_SIZE && p != NULL)
        bytes = table[at].bytes;
    q_unlock(&q_vm_lock);
    return bytes;
}

size_t q_vcached(void)
{
    return __atomic_load_n(&stat.cached_bytes, __ATOMIC_RELAXED);
}

/* Bytes that the cache may hold now. */
static size_t cache_room(void)
{
    size_t in_use = atomic_load_explicit(&q_pages_in_use, memory_order_relaxed) << q_page_shift;
    size_t lately = q_min(peak - q_min(stat.bytes, peak), CACHE_LATELY);

    return q_opt.decay_ms > 0 ? q_min(q_max(in_use / CACHE_SHARE, lately), CACHE_BYTES) : 0;
}

/* Put a block into the cache; what it pushes out is returned for unmapping. */
static void cache_put(void *p, size_t bytes, int nid, void **out, size_t *out_bytes)
{
    int slot = 0;

    for (int i = 0; i < CACHE_SLOTS; i++) {
        if (cache[i].addr == NULL) {
            slot = i;
            break;
        }
        if (cache[i].stamp_ms < cache[slot].stamp_ms)
            slot = i;
    }
    *out = cache[slot].addr;
    *out_bytes = cache[slot].bytes;
    if (*out != NULL) {
        stat.cached_blocks--;
        stat.cached_bytes -= *out_bytes;
    }
    cache[slot].addr = p;
    cache[slot].bytes = bytes;
    cache[slot].nid = nid;
    cache[slot].stamp_ms = q_now_ms();
    stat.cached_blocks++;
    stat.cached_bytes += bytes;
}

/* A freed block that a snapshot shows changes hands instead of being unmapped. */
static bool keep_held(void *p, size_t bytes)
{
    if (!q_held(p, bytes))
        return false;
    atomic_load_explicit(&q_holder, memory_order_relaxed)->keep(p, bytes);
    return true;
}

bool q_vfree(void *p)
{
    void *out = NULL;
    size_t out_bytes = 0, bytes = 0;
    int nid = q_place_home(p);

    q_lock(&q_vm_lock);
    size_t at = find_slot((uintptr_t)p);
    if (at == TABLE_SIZE || table[at].addr == 0) {
        q_unlock(&q_vm_lock);
        return false;
    }
    bytes = table[at].bytes;
    remove_slot(at);
    if (keep_held(p, bytes)) {
        /* unmapped once no snapshot shows it any more */
    } else if (nid >= 0 && stat.cached_bytes + bytes <= cache_room()) {
        cache_put(p, bytes, nid, &out, &out_bytes);
    } else {
        out = p;
        out_bytes = bytes;
    }
    q_unlock(&q_vm_lock);
    if (out != NULL)
        q_munmap(out, out_bytes);
    q_uncharge(bytes >> q_page_shift);
    q_vtrim(false);
    return true;
}

void *q_vrealloc(void *p, size_t bytes)
{
    size_t old = q_vsize(p), len = q_align_up(q_max(bytes, 1), q_page_size());

    if (old == len)
        return p;
    if (len < bytes || (len > old && !charge((len - old) >> q_page_shift)))
        return NULL;
    /*
     * The entry leaves the table first: once the block has moved, another
     * thread may be given the old address.
     */
    q_lock(&q_vm_lock);
    size_t at = find_slot((uintptr_t)p);
    bool held = q_held(p, old);
    if (at != TABLE_SIZE && table[at].addr != 0 && !held)
        remove_slot(at);
    moving += !held;
    q_unlock(&q_vm_lock);
    /* A snapshot needs it where it is: the caller copies. */
    void *now = held ? NULL : q_mremap(p, old, len, MREMAP_MAYMOVE);
    if (len > old && now == NULL)
        q_uncharge((len - old) >> q_page_shift);
    if (len < old && now != NULL)
        q_uncharge((old - len) >> q_page_shift);
    if (held)
        return NULL;
    q_lock(&q_vm_lock);
    moving--;
    insert(now != NULL ? now : p, now != NULL ? len : old); /* fits: see there */
    q_unlock(&q_vm_lock);
    if (len > old)
        q_keep_to_limit();
    return now;
}

/* The table as it should be: an entry that was being moved is there twice, the first of them whole. */
static void rebuild_table(void)
{
    size_t bytes = q_align_up(sizeof(table), q_page_size());
    struct entry *old = q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);

    if (old == NULL)
        return; /* blocks that are not found are reported as not quire's, and nothing worse */
    memcpy(old, table, sizeof(table));
    memset(table, 0, sizeof(table));
    memset(group_used, 0, sizeof(group_used));
    stat = (struct q_vstat){0};
    size_t start = 0; /* of a probe sequence; some slot is free, see insert() */
    while (old[start].addr != 0)
        start++;
    for (size_t n = 0; n < TABLE_SIZE; n++) {
        struct entry *e = &old[(start + n) % TABLE_SIZE];
        if (e->addr != 0 && table[find_slot(e->addr)].addr == 0)
            insert((void *)e->addr, e->bytes);
    }
    q_munmap(old, bytes);
}

void q_vmalloc_fork_child(bool torn)
{
    moving = 0;
    if (!torn)
        return;
    memset(cache, 0, sizeof(cache)); /* what rests there is lost */
    rebuild_table();
}

bool q_vfind(const void *p, void **start, size_t *size)
{
    bool found = false;

    q_lock(&q_vm_lock);
    for (size_t i = 0; i < TABLE_SIZE && !found; i++) {
        if (table[i].addr != 0 && (uintptr_t)p - table[i].addr < table[i].bytes) {
            *start = (void *)table[i].addr;
            *size = table[i].bytes;
            found = true;
        }
    }
    q_unlock(&q_vm_lock);
    return found;
}

bool q_vresting(const void *p)
{
    bool found = false;

    q_lock(&q_vm_lock);
    for (int i = 0; i < CACHE_SLOTS; i++)
        found |= cache[i].addr != NULL && (uintptr_t)p - (uintptr_t)cache[i].addr < cache[i].bytes;
    q_unlock(&q_vm_lock);
    return found;
}

size_t q_vtrim(bool force)
{
    uint32_t now = q_now_ms();
    size_t given = 0;

    /* Relaxed peek: a block that is just coming is not due yet. */
    if (__atomic_load_n(&stat.cached_blocks, __ATOMIC_RELAXED) == 0 ||
        (!force && now - __atomic_load_n(&trim_ms, __ATOMIC_RELAXED) < 50))
        return 0;
    for (int i = 0; i < CACHE_SLOTS; i++) {
        void *out = NULL;
        size_t bytes = 0;

        q_lock(&q_vm_lock);
        trim_ms = now;
        if (i == 0)
            peak -= (peak - q_min(stat.bytes, peak)) / 32; /* forgotten in a second or two */
        if (cache[i].addr != NULL && (force || now - cache[i].stamp_ms > q_opt.decay_ms)) {
            out = cache[i].addr;
            bytes = cache[i].bytes;
            cache[i].addr = NULL;
            stat.cached_blocks--;
            stat.cached_bytes -= bytes;
        }
        q_unlock(&q_vm_lock);
        if (out != NULL)
            q_munmap(out, bytes);
        given += bytes;
    }
    return given;
}

void q_vstat(struct q_vstat *st)
{
    q_lock(&q_vm_lock);
    *st = stat;
    q_unlock(&q_vm_lock);
}

struct q_vstat q_vstat_locked(void)
{
    return stat;
}

void q_veach(void (*fn)(void *arg, void *addr, size_t bytes), void *arg)
{
    for (size_t g = 0; g < TABLE_SIZE / GROUP; g++)
        for (size_t i = 0; group_used[g] > 0 && i < GROUP; i++)
            if (table[g * GROUP + i].addr != 0)
                fn(arg, (void *)table[g * GROUP + i].addr, table[g * GROUP + i].bytes);
}

size_t q_vnext(size_t slot, void **addr, size_t *bytes)
{
    q_lock(&q_vm_lock);
    while (slot < TABLE_SIZE && table[slot].addr == 0)
        slot = group_used[slot / GROUP] == 0 ? (slot / GROUP + 1) * GROUP : slot + 1;
    if (slot < TABLE_SIZE) {
        *addr = (void *)table[slot].addr;
        *bytes = table[slot].bytes;
    }
    q_unlock(&q_vm_lock);
    return slot < TABLE_SIZE ? slot : Q_VEND;
}

bool q_vsettled(void)
{
    return moving == 0;
}

size_t q_vchanges(void)
{
    return changes;
}

void q_vforget(bool (*spare)(void *arg, const void *addr), void *arg)
{
    for (size_t at = 0; at < TABLE_SIZE; at++) {
        if (group_used[at / GROUP] == 0) {
            at += GROUP - 1;
            continue;
        }
        if (table[at].addr != 0 && !spare(arg, (void *)table[at].addr))
            q_munmap((void *)table[at].addr, table[at].bytes);
        table[at].addr = table[at].bytes = 0;
        if (at % GROUP == GROUP - 1)
            group_used[at / GROUP] = 0;
    }
    for (int i = 0; i < CACHE_SLOTS; i++) {
        if (cache[i].addr != NULL)
            q_munmap(cache[i].addr, cache[i].bytes);
        cache[i].addr = NULL;
    }
    stat = (struct q_vstat){0};
    changes++;
}

void q_vadopt(void *addr, size_t bytes)
{
    insert(addr, bytes);
}
