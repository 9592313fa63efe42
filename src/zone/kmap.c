/*
 * kmap.c - windows of one page: kmap, kmap_local, fixmap. See highmem.h.
 *
 *   area   | guard | w0 | guard | w1 | guard | ... | guard |
 *
 * For kmap a page remembers its window (q_page.private is its number + 1), a
 * window its page and how many use it. Invariant, under q_kmap_lock:
 * slot[i].page == p exactly if p->private == i + 1; count is 0 for a window
 * that only rests.
 */
#include "zone/highmem.h"

#include <errno.h>

#define HEAPS_SHIFT 8u /* stacks of threads, by heap number: a table of tables */

struct q_lock q_kmap_lock;

static struct {
    char *base; /* the first window; NULL: none yet */
    unsigned hand;
    struct {
        struct q_page *page;
        uint32_t count;
    } slot[Q_NR_KMAP];
} kmap;

static struct {
    char *base;
    struct q_page *page[Q_NR_FIXMAP];
} fixmap;

static struct q_local *_Atomic *_Atomic locals[1u << HEAPS_SHIFT];

/* Address space for so many windows of a page with guards around each; the first window. */
static char *make_windows(unsigned nr)
{
    char *area = q_reserve(((size_t)2 * nr + 1) << q_page_shift, q_page_size());

    return area != NULL ? area + q_page_size() : NULL;
}

static char *window(char *base, unsigned i)
{
    return base + ((size_t)2 * i << q_page_shift);
}

/*
 * What q_kmap_address() and q_kmap_page() read without the lock, since they
 * may be called in a handler that interrupted its holder. Whoever maps the
 * page meanwhile, and so gets an answer that stays true, has seen all of it.
 */
static void set_page(unsigned i, struct q_page *page)
{
    __atomic_store_n(&kmap.slot[i].page, page, __ATOMIC_RELAXED);
}

static void set_count(unsigned i, uint32_t count)
{
    __atomic_store_n(&kmap.slot[i].count, count, __ATOMIC_RELAXED);
}

static void set_window(struct q_page *page, unsigned number)
{
    __atomic_store_n(&page->private, number, __ATOMIC_RELAXED);
}

static bool in_use(unsigned i)
{
    return __atomic_load_n(&kmap.slot[i].count, __ATOMIC_RELAXED) > 0;
}

/* A window that nobody uses, emptied of what rests there; Q_NR_KMAP where all are in use. */
static unsigned free_slot(void)
{
    for (unsigned n = 0; n < Q_NR_KMAP; n++) {
        unsigned i = kmap.hand;

        kmap.hand = (kmap.hand + 1) % Q_NR_KMAP;
        if (kmap.slot[i].count > 0)
            continue;
        if (kmap.slot[i].page != NULL)
            set_window(kmap.slot[i].page, 0);
        set_page(i, NULL);
        return i;
    }
    return Q_NR_KMAP;
}

/* Map the page at a window; q_kmap_lock held. */
static int map_slot(struct q_page *page)
{
    if (kmap.base == NULL)
        __atomic_store_n(&kmap.base, make_windows(Q_NR_KMAP), __ATOMIC_RELAXED);
    if (kmap.base == NULL)
        return ENOMEM;
    unsigned i = free_slot();
    if (i == Q_NR_KMAP)
        return EBUSY;
    int error = q_window_map(window(kmap.base, i), page, 1);
    if (error != 0) {
        q_window_unmap(window(kmap.base, i), 1);
        return -error;
    }
    set_page(i, page);
    set_window(page, i + 1);
    return 0;
}

void *q_kmap(struct q_page *page, int *error)
{
    void *at = NULL;

    q_lock(&q_kmap_lock);
    *error = page->private == 0 ? map_slot(page) : 0;
    if (*error == 0) {
        set_count(page->private - 1, kmap.slot[page->private - 1].count + 1);
        at = window(kmap.base, page->private - 1);
    }
    q_unlock(&q_kmap_lock);
    return at;
}

bool q_kunmap(struct q_page *page)
{
    bool ok = false;

    q_lock(&q_kmap_lock);
    if (page->private != 0 && kmap.slot[page->private - 1].count > 0) {
        set_count(page->private - 1, kmap.slot[page->private - 1].count - 1);
        ok = true;
    }
    q_unlock(&q_kmap_lock);
    return ok;
}

void *q_kmap_address(const struct q_page *page)
{
    uint32_t number = __atomic_load_n(&page->private, __ATOMIC_RELAXED);

    if (number == 0 || !in_use(number - 1))
        return NULL;
    return window(__atomic_load_n(&kmap.base, __ATOMIC_RELAXED), number - 1);
}

struct q_page *q_kmap_page(const void *p)
{
    char *base = __atomic_load_n(&kmap.base, __ATOMIC_RELAXED);
    size_t i = ((uintptr_t)p - (uintptr_t)base) >> q_page_shift;

    if (base == NULL || i >= 2 * Q_NR_KMAP || i % 2 != 0 || !in_use((unsigned)i / 2))
        return NULL;
    return __atomic_load_n(&kmap.slot[i / 2].page, __ATOMIC_RELAXED);
}

void q_kmap_forget(struct q_page *page, size_t nr)
{
    q_lock(&q_kmap_lock);
    for (size_t k = 0; k < nr; k++) {
        unsigned i = page[k].private;

        if (i == 0)
            continue;
        q_window_unmap(window(kmap.base, i - 1), 1);
        set_page(i - 1, NULL);
        set_count(i - 1, 0);
        set_window(&page[k], 0);
    }
    q_unlock(&q_kmap_lock);
}

/* Windows of this stack, and where the next thread that asks finds it; q_kmap_lock held. */
static struct q_local *make_local(unsigned id)
{
    unsigned row = id >> HEAPS_SHIFT, column = id & ((1u << HEAPS_SHIFT) - 1);
    struct q_local *_Atomic *table = atomic_load_explicit(&locals[row], memory_order_relaxed);

    if (table == NULL) {
        table = q_meta_alloc(sizeof(*table) << HEAPS_SHIFT);
        /* Release: the table, all zero, before its place is known. */
        atomic_store_explicit(&locals[row], table, memory_order_release);
    }
    static struct q_local *spare; /* from a try that found no addresses */
    if (table != NULL && spare == NULL)
        spare = q_meta_alloc(sizeof(*spare));
    struct q_local *l = spare;
    if (table == NULL || l == NULL || (l->base = make_windows(Q_NR_LOCAL)) == NULL)
        return NULL;
    spare = NULL;
    /* Release: the stack before its place is known. */
    atomic_store_explicit(&table[column], l, memory_order_release);
    return l;
}

static struct q_local *find_local(unsigned id)
{
    /* Acquire: pairs with the releases in make_local(). */
    struct q_local *_Atomic *table =
        atomic_load_explicit(&locals[id >> HEAPS_SHIFT], memory_order_acquire);

    if (table == NULL)
        return NULL;
    return atomic_load_explicit(&table[id & ((1u << HEAPS_SHIFT) - 1)], memory_order_acquire);
}

struct q_local *q_local_get(unsigned id)
{
    struct q_local *l = find_local(id);

    if (l == NULL) {
        q_lock(&q_kmap_lock);
        l = make_local(id);
        q_unlock(&q_kmap_lock);
    }
    return l;
}

bool q_local_holds(const struct q_local *l, const void *p, bool *mine)
{
    size_t bytes = (size_t)2 * Q_NR_LOCAL << q_page_shift;

    *mine = l != NULL && (uintptr_t)p - (uintptr_t)l->base < bytes;
    /* Slow: for complaints. */
    for (unsigned id = 0; !*mine && id < 1u << 2 * HEAPS_SHIFT; id++) {
        const struct q_local *other = find_local(id);

        if (other != NULL && (uintptr_t)p - (uintptr_t)other->base < bytes)
            return true;
    }
    return *mine;
}

char *q_fixmap_address(unsigned slot)
{
    q_lock(&q_kmap_lock);
    if (fixmap.base == NULL)
        fixmap.base = make_windows(Q_NR_FIXMAP);
    char *at = fixmap.base != NULL ? window(fixmap.base, slot) : NULL;
    q_unlock(&q_kmap_lock);
    return at;
}

int q_fixmap_set(unsigned slot, struct q_page *page, struct q_page **before)
{
    char *at = q_fixmap_address(slot);
    int error = at == NULL ? -ENOMEM : 0;

    *before = NULL;
    if (error != 0)
        return error;
    q_lock(&q_kmap_lock);
    if (page != NULL)
        error = q_window_map(at, page, 1);
    /* What was there is gone where it failed, too. */
    bool empty = (page == NULL || error != 0) && q_window_unmap(at, 1);
    if (page == NULL && !empty)
        error = -ENOMEM;
    if (error == 0 || empty) {
        *before = fixmap.page[slot];
        fixmap.page[slot] = error == 0 ? page : NULL;
    }
    q_unlock(&q_kmap_lock);
    return error;
}

/* A window whose page does not know of it was being changed by a thread that is gone. */
void q_kmap_fork_child(void)
{
    if (!q_lock_after_fork(&q_kmap_lock))
        return;
    for (unsigned i = 0; i < Q_NR_KMAP; i++) {
        if (kmap.slot[i].page != NULL && kmap.slot[i].page->private == i + 1)
            continue;
        kmap.slot[i].page = NULL;
        kmap.slot[i].count = 0;
    }
}
