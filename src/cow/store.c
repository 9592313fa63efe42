/* store.c - see store.h. */
#include "cow/store.h"

#include <sys/sysinfo.h>

#include "cow/own.h"
#include "zone/memmap.h"

#define DIR_SIZE (1u << 17) /* leaves: 256 GiB of heap written while snapshots live */
#define LEAVES_PER_CHUNK 64u
#define POOL_MIN ((size_t)16 << 20)
#define CHUNK ((size_t)2 << 20) /* memory is asked for in these */

struct q_store q_store;

static struct q_leaf *_Atomic dir[DIR_SIZE]; /* open addressing by base */
static size_t nr_leaves;
static struct q_leaf *chunk; /* leaves to hand out */
static size_t chunk_left;

static size_t slots_per_chunk(void)
{
    return CHUNK >> q_page_shift;
}

static size_t wanted_pool(void)
{
    struct sysinfo si;
    size_t memory = sysinfo(&si) == 0 ? (size_t)si.totalram * si.mem_unit : (size_t)2 << 30;

    /* A budget beyond all memory is none, and addresses are wanted elsewhere, too. */
    if (q_store.budget != 0)
        return q_align_up(q_min(q_store.budget, 2 * memory), q_page_size()) + q_page_size();
    return q_align_down(memory / 2, CHUNK) + CHUNK;
}

bool q_store_init(void)
{
    if (q_store.pool != NULL)
        return true;
    for (size_t bytes = wanted_pool();; bytes = q_align_up(bytes / 2, q_page_size())) {
        size_t slots = q_min(bytes >> q_page_shift, UINT32_MAX);
        size_t versions = q_align_up(slots * sizeof(struct q_version), q_page_size());
        char *p = q_mmap(NULL, bytes + CHUNK, PROT_READ | PROT_WRITE, MAP_NORESERVE);
        char *v = p != NULL ? q_mmap(NULL, versions, PROT_READ | PROT_WRITE, MAP_NORESERVE) : NULL;

        if (v != NULL) {
            q_store.pool = (char *)q_align_up((uintptr_t)p, CHUNK);
            if (q_store.pool > p)
                q_munmap(p, (size_t)(q_store.pool - p));
            q_munmap(q_store.pool + bytes, (size_t)(p + CHUNK - q_store.pool));
            q_store.version = (struct q_version *)v;
            q_store.nr_slots = (uint32_t)slots;
            q_store.next_slot = 1;
            q_store.populated = 0;
            q_store.free_slot = 0;
            if (!q_mem.thp_never)
                q_madvise(q_store.pool, bytes, MADV_HUGEPAGE);
            /* A child of fork has no use for it. */
            q_madvise(q_store.pool, bytes, MADV_DONTFORK);
            return true;
        }
        if (p != NULL)
            q_munmap(p, bytes + CHUNK);
        if (bytes <= POOL_MIN)
            return false;
    }
}

void q_store_populate(void)
{
    static _Atomic bool busy;
    /* Relaxed throughout: wrong guesses cost time, or a little memory. */
    uint32_t have = atomic_load_explicit(&q_store.populated, memory_order_relaxed);
    uint32_t next = atomic_load_explicit(&q_store.next_slot, memory_order_relaxed);

    if (q_store.pool == NULL || have >= next + slots_per_chunk() / 2 || have >= q_store.nr_slots ||
        atomic_exchange_explicit(&busy, true, memory_order_relaxed))
        return;
    /* What the handler has run into meanwhile has its memory. */
    have = (uint32_t)q_max(have, q_align_down(next, slots_per_chunk()));
    size_t at = (size_t)have << q_page_shift;
    size_t end = q_min(at + CHUNK, (size_t)q_store.nr_slots << q_page_shift);
    /* Refused before Linux 5.14: then the pages come one by one. */
    q_madvise(q_store.pool + at, end - at, MADV_POPULATE_WRITE);
    atomic_store_explicit(&q_store.populated, (uint32_t)(end >> q_page_shift),
                          memory_order_relaxed);
    atomic_store_explicit(&busy, false, memory_order_relaxed);
}

static size_t home(uintptr_t base)
{
    return ((base >> Q_LEAF_SHIFT) * 0x9e3779b97f4a7c15u) >> 47;
}

_Static_assert(DIR_SIZE == 1u << (64 - 47), "home() gives as many bits");

static struct q_leaf *new_leaf(uintptr_t base)
{
    size_t bytes = q_align_up(LEAVES_PER_CHUNK * sizeof(struct q_leaf), q_page_size());

    if (chunk_left == 0) {
        chunk = q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);
        if (chunk == NULL)
            return NULL;
        chunk_left = LEAVES_PER_CHUNK;
    }
    struct q_leaf *leaf = chunk++;
    chunk_left--;
    leaf->base = base;
    return leaf;
}

/* A leaf of an earlier life is emptied before it says to be of this one. */
static void revive(struct q_leaf *leaf)
{
    uint32_t life = atomic_load_explicit(&q_store.life, memory_order_relaxed) + 1;

    if (atomic_load_explicit(&leaf->life, memory_order_relaxed) == life)
        return;
    for (unsigned i = 0; i < Q_LEAF_PAGES; i++)
        atomic_store_explicit(&leaf->head[i], 0, memory_order_relaxed);
    leaf->next = leaf->around = 0;
    /* Release: who sees the life sees the heads empty. */
    atomic_store_explicit(&leaf->life, life, memory_order_release);
}

struct q_leaf *q_store_leaf(uintptr_t addr, bool make)
{
    uintptr_t base = q_align_down(addr, (uintptr_t)1 << Q_LEAF_SHIFT);
    size_t at = home(base);

    for (size_t n = 0; n < DIR_SIZE; n++, at = (at + 1) % DIR_SIZE) {
        /* Acquire: pairs with the release below; the leaf's base is set. */
        struct q_leaf *leaf = atomic_load_explicit(&dir[at], memory_order_acquire);

        if (leaf == NULL) {
            if (!make || nr_leaves >= DIR_SIZE / 4 * 3 || (leaf = new_leaf(base)) == NULL)
                return NULL;
            revive(leaf);
            nr_leaves++;
            atomic_store_explicit(&dir[at], leaf, memory_order_release);
            return leaf;
        }
        if (leaf->base == base) {
            if (make)
                revive(leaf);
            return leaf;
        }
    }
    return NULL;
}

uint32_t q_store_newest(const struct q_leaf *leaf, unsigned index)
{
    uint32_t slot = atomic_load_explicit(&leaf->head[index], memory_order_relaxed);

    return slot != 0 ? q_store.version[slot].epoch : 0;
}

uint32_t q_store_take(void)
{
    uint32_t slot = q_store.free_slot;

    if (slot != 0) {
        q_store.free_slot =
            atomic_load_explicit(&q_store.version[slot].older, memory_order_relaxed);
    } else {
        if (q_store.next_slot >= q_store.nr_slots)
            return 0;
        slot = q_store.next_slot++;
    }
    /* Relaxed: for the statistics. */
    atomic_fetch_add_explicit(&q_store.held, 1, memory_order_relaxed);
    return slot;
}

void q_store_give(uint32_t slot)
{
    atomic_store_explicit(&q_store.version[slot].older, q_store.free_slot, memory_order_relaxed);
    q_store.free_slot = slot;
    atomic_fetch_sub_explicit(&q_store.held, 1, memory_order_relaxed);
}

void q_store_publish(struct q_leaf *leaf, unsigned index, uint32_t slot, uint32_t epoch)
{
    struct q_version *v = &q_store.version[slot];

    v->epoch = epoch;
    atomic_store_explicit(&v->older, atomic_load_explicit(&leaf->head[index], memory_order_relaxed),
                          memory_order_relaxed);
    /* Release: who finds the slot sees its content. */
    atomic_store_explicit(&leaf->head[index], slot, memory_order_release);
}

static uint32_t walk(const struct q_leaf *leaf, unsigned index, uint32_t epoch)
{
    /* Acquire: pairs with q_store_publish(). */
    uint32_t slot = atomic_load_explicit(&leaf->head[index], memory_order_acquire), best = 0;

    /* Bounded: while versions are dropped a walk may lead anywhere; it is repeated then. */
    for (int n = 0; n < 1 << 16 && slot != 0 && slot < q_store.nr_slots; n++) {
        const struct q_version *v = &q_store.version[slot];

        if (__atomic_load_n(&v->epoch, __ATOMIC_RELAXED) < epoch)
            break;
        best = slot;
        slot = atomic_load_explicit(&v->older, memory_order_acquire);
    }
    return best;
}

uint32_t q_store_find(uintptr_t addr, uint32_t epoch)
{
    for (;;) {
        /* Acquire: a sequence lock's first half; what is read below is read after it. */
        uint32_t before = atomic_load_explicit(&q_store.shuffle, memory_order_acquire);
        const struct q_leaf *leaf = q_store_leaf(addr, false);
        uint32_t slot = 0;

        if ((before & 1) != 0) {
            q_cpu_relax();
            continue;
        }
        if (leaf != NULL && q_store_alive(leaf))
            slot = walk(leaf, q_leaf_index(leaf, addr), epoch);
        atomic_thread_fence(memory_order_acquire); /* and its second half: all was read before */
        if (atomic_load_explicit(&q_store.shuffle, memory_order_relaxed) == before)
            return slot;
    }
}

/* Is a snapshot alive with older < s <= epoch? */
static bool needed(const uint32_t *live, size_t nr, uint32_t older, uint32_t epoch)
{
    for (size_t i = 0; i < nr; i++)
        if (live[i] > older && live[i] <= epoch)
            return true;
    return false;
}

static void prune_page(_Atomic uint32_t *link, const uint32_t *live, size_t nr)
{
    uint32_t slot;

    while ((slot = atomic_load_explicit(link, memory_order_relaxed)) != 0) {
        struct q_version *v = &q_store.version[slot];
        uint32_t older = atomic_load_explicit(&v->older, memory_order_relaxed);

        if (needed(live, nr, older != 0 ? q_store.version[older].epoch : 0, v->epoch)) {
            link = &v->older;
            continue;
        }
        atomic_store_explicit(link, older, memory_order_relaxed);
        q_store_give(slot);
    }
}

struct epochs {
    const uint32_t *at;
    size_t nr;
};

/* Pages [first, end) of a leaf. */
static void prune_leaf(struct q_leaf *leaf, unsigned first, unsigned end, const struct epochs *live)
{
    atomic_fetch_add_explicit(&q_store.shuffle, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release); /* the odd number before the changes */
    for (unsigned i = first; i < end; i++)
        prune_page(&leaf->head[i], live->at, live->nr);
    /* Release: the changes before the even number. */
    atomic_fetch_add_explicit(&q_store.shuffle, 1, memory_order_release);
}

void q_store_prune_pages(uintptr_t from, uintptr_t to, const uint32_t *live, size_t nr)
{
    struct q_leaf *leaf = q_store_leaf(from, false);
    struct epochs epochs = {live, nr};

    if (leaf != NULL && q_store_alive(leaf))
        prune_leaf(leaf, q_leaf_index(leaf, from), (unsigned)((to - leaf->base) >> q_page_shift),
                   &epochs);
}

static uintptr_t prune_all_of(uintptr_t of, uintptr_t epochs)
{
    struct q_leaf *leaf = (struct q_leaf *)of;

    /* Meanwhile all may have been lost, and the slots be somebody else's. */
    if (q_store_alive(leaf))
        prune_leaf(leaf, 0, Q_LEAF_PAGES, (const struct epochs *)epochs);
    return 0;
}

void q_store_prune(const uint32_t *live, size_t nr)
{
    struct epochs epochs = {live, nr};

    for (size_t at = 0; at < DIR_SIZE; at++) {
        struct q_leaf *leaf = atomic_load_explicit(&dir[at], memory_order_acquire);

        if (leaf != NULL && q_store_alive(leaf))
            q_own_run(prune_all_of, (uintptr_t)leaf, (uintptr_t)&epochs);
    }
}

void q_store_drop(uintptr_t addr, uint32_t epoch)
{
    struct q_leaf *leaf = q_store_leaf(addr, false);

    if (leaf == NULL || !q_store_alive(leaf))
        return;
    unsigned index = q_leaf_index(leaf, addr);
    uint32_t slot;
    /* The sequence lock as in q_store_prune(). */
    atomic_fetch_add_explicit(&q_store.shuffle, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    while ((slot = atomic_load_explicit(&leaf->head[index], memory_order_relaxed)) != 0 &&
           q_store.version[slot].epoch >= epoch) {
        uint32_t older = atomic_load_explicit(&q_store.version[slot].older, memory_order_relaxed);

        atomic_store_explicit(&leaf->head[index], older, memory_order_relaxed);
        q_store_give(slot);
    }
    atomic_fetch_add_explicit(&q_store.shuffle, 1, memory_order_release);
}

void q_store_reset(void)
{
    atomic_fetch_add_explicit(&q_store.life, 1, memory_order_relaxed);
    q_store.populated = (uint32_t)q_max(q_store.populated, q_store.next_slot);
    q_store.next_slot = 1;
    q_store.free_slot = 0;
    atomic_store_explicit(&q_store.held, 0, memory_order_relaxed);
    if (nr_leaves < DIR_SIZE / 2)
        return;
    /* Addresses come and go; start the directory anew before it fills. The leaves are lost: 2 KiB
     * for each 2 MiB of address space. */
    for (size_t at = 0; at < DIR_SIZE; at++)
        atomic_store_explicit(&dir[at], NULL, memory_order_relaxed);
    nr_leaves = 0;
}

void q_store_shrink(void)
{
    uint32_t keep = (uint32_t)q_min(2 * slots_per_chunk(), q_store.nr_slots);

    if (q_store.populated <= keep)
        return;
    q_madvise(q_store_page(keep), (size_t)(q_store.populated - keep) << q_page_shift,
              MADV_DONTNEED);
    q_store.populated = keep;
}

static uintptr_t give_pool_up(uintptr_t unused, uintptr_t either)
{
    if (q_store.pool != NULL) {
        q_munmap(q_store.pool, (size_t)q_store.nr_slots << q_page_shift);
        q_munmap(q_store.version,
                 q_align_up(q_store.nr_slots * sizeof(struct q_version), q_page_size()));
    }
    q_store.pool = NULL;
    return 0;
}

void q_store_resize(void)
{
    q_own_run(give_pool_up, 0, 0);
}

/* Caught in the middle of anything: what it may have left half done is emptied or left behind. */
void q_store_forget(void)
{
    q_store.pool = NULL;
    q_store.free_slot = 0;
    chunk_left = 0;
    atomic_store_explicit(&q_store.shuffle, 0, memory_order_relaxed);
    q_store_reset();
}
