/* special.c - see special.h: sections, and giving pages out and taking them back. */
#include "zone/special.h"

#include <errno.h>
#include <string.h>

#include "base/msg.h"
#include "zone/page_alloc.h"
#include "zone/page_ref.h"

#define SECTION_PAGES ((size_t)1 << Q_MAX_ORDER)
#define FIRST_CHUNK 16u /* sections */
#define NR_CHUNKS 12u
#define NR_SECTIONS (FIRST_CHUNK * ((1u << NR_CHUNKS) - 1))
#define HASH_SIZE 8192u
#define HASH_MAX (HASH_SIZE / 2)

struct q_special_zone q_special_zones[Q_NR_SPECIAL];

const struct q_special_ops *const q_special_ops[Q_NR_SPECIAL] = {
    [Q_SPECIAL_DMA32] = &q_dma32_ops,
    [Q_SPECIAL_DMA] = &q_dma_ops,
    [Q_SPECIAL_HIGHMEM] = &q_highmem_ops,
    [Q_SPECIAL_SECRET] = &q_secret_ops,
};

static struct q_lock section_lock;
static _Atomic uint32_t nr_sections;

static struct {
    struct q_page *pages;
    struct q_section *sections;
} chunk[NR_CHUNKS];

/* Sections with an address, by it: section + 1. Linear probing; entries are only added. */
static _Atomic uint32_t hash[HASH_SIZE];
static uint32_t hashed; /* under section_lock */

static unsigned chunk_of(uint32_t section)
{
    return q_fls(section / FIRST_CHUNK + 1);
}

/* The number of a chunk's first section; that of the next chunk is its end. */
static uint32_t chunk_first(unsigned k)
{
    return FIRST_CHUNK * ((1u << k) - 1);
}

static struct q_section *section_at(uint32_t section)
{
    unsigned k = chunk_of(section);

    return chunk[k].sections + (section - chunk_first(k));
}

static uint32_t sections_seen(void)
{
    /* Acquire: pairs with the release in add_section(), after all that a section needs. */
    return atomic_load_explicit(&nr_sections, memory_order_acquire);
}

/* The number of the section that p points into the struct pages of; NR_SECTIONS where it does not. */
static uint32_t number_of(const void *p)
{
    uint32_t seen = sections_seen();

    for (unsigned k = 0; k < NR_CHUNKS && chunk_first(k) < seen; k++) {
        size_t off = (uintptr_t)p - (uintptr_t)chunk[k].pages;
        size_t at = chunk_first(k) + off / (SECTION_PAGES * sizeof(struct q_page));

        if (off < (size_t)(FIRST_CHUNK << k) * SECTION_PAGES * sizeof(struct q_page))
            return at < seen && off % sizeof(struct q_page) == 0 ? (uint32_t)at : NR_SECTIONS;
    }
    return NR_SECTIONS;
}

struct q_section *q_special_section(const void *p)
{
    uint32_t section = number_of(p);

    return section < NR_SECTIONS ? section_at(section) : NULL;
}

static uint32_t hash_slot(uintptr_t addr)
{
    return (uint32_t)(addr / q_max_block_size() * 0x9e3779b97f4a7c15u >> 51);
}

struct q_page *q_special_virt_to_page(const void *p)
{
    uintptr_t start = q_align_down((uintptr_t)p, q_max_block_size());

    if (sections_seen() == 0)
        return NULL;
    for (uint32_t slot = hash_slot(start);; slot = (slot + 1) % HASH_SIZE) {
        /* Acquire: pairs with the release that published the section. */
        uint32_t entry = atomic_load_explicit(&hash[slot], memory_order_acquire);

        if (entry == 0)
            return NULL;
        const struct q_section *s = section_at(entry - 1);
        if (s->addr == start)
            return s->pages + (((uintptr_t)p - start) >> q_page_shift);
    }
}

void *q_special_address(const struct q_page *page)
{
    const struct q_section *s = q_special_section(page);

    if (s == NULL || s->addr == 0)
        return NULL;
    return (void *)(s->addr + ((size_t)(page - s->pages) << q_page_shift));
}

size_t q_special_pfn(const struct q_page *page)
{
    uint32_t section = number_of(page);

    return q_mem.max_pages + section * SECTION_PAGES + (size_t)(page - section_at(section)->pages);
}

struct q_page *q_special_pfn_to_page(size_t pfn)
{
    size_t at = pfn - q_mem.max_pages;

    if (pfn < q_mem.max_pages || at >> Q_MAX_ORDER >= sections_seen())
        return NULL;
    return section_at((uint32_t)(at >> Q_MAX_ORDER))->pages + (at & (SECTION_PAGES - 1));
}

/* Room for the struct pages of chunk k, at a multiple of what one section's take. */
static bool make_chunk(unsigned k)
{
    size_t sections = FIRST_CHUNK << k, each = SECTION_PAGES * sizeof(struct q_page);

    if (chunk[k].sections == NULL)
        chunk[k].sections = q_meta_alloc(sections * sizeof(struct q_section));
    if (chunk[k].pages == NULL)
        chunk[k].pages = (struct q_page *)q_reserve(sections * each, each);
    return chunk[k].sections != NULL && chunk[k].pages != NULL;
}

/* Enter a section with its memory; section_lock held. */
static void publish(uint32_t section, const struct q_section *s)
{
    *section_at(section) = *s;
    if (s->addr != 0) {
        uint32_t slot = hash_slot(s->addr);

        while (atomic_load_explicit(&hash[slot], memory_order_relaxed) != 0)
            slot = (slot + 1) % HASH_SIZE;
        hashed++;
        /* Release: whoever finds the entry sees the section. */
        atomic_store_explicit(&hash[slot], section + 1, memory_order_release);
    }
    /* Release: as above, for those who come by a struct page. */
    atomic_store_explicit(&nr_sections, section + 1, memory_order_release);
}

/* Whether the hash has room for a section of the kind; files' have no address, and need none. */
static bool fits_hash(enum q_special kind)
{
    return kind == Q_SPECIAL_HIGHMEM || kind == Q_SPECIAL_SECRET || hashed < HASH_MAX;
}

/* One more section for the zone, whose lock is held. */
static int add_section(enum q_special kind)
{
    struct q_special_zone *zone = &q_special_zones[kind];
    size_t each = SECTION_PAGES * sizeof(struct q_page);
    struct q_section s = {.zone = zone};
    int error = -ENOMEM;

    q_lock(&section_lock);
    uint32_t section = atomic_load_explicit(&nr_sections, memory_order_relaxed);
    if (section < NR_SECTIONS && fits_hash(kind) && make_chunk(chunk_of(section))) {
        unsigned k = chunk_of(section);

        s.pages = chunk[k].pages + (section - chunk_first(k)) * SECTION_PAGES;
        if (q_mprotect(s.pages, each, PROT_READ | PROT_WRITE) == 0)
            error = q_special_ops[kind]->grow(zone, &s);
        if (error == 0)
            publish(section, &s);
    }
    q_unlock(&section_lock);
    if (error != 0)
        return error;
    struct q_free_how how = {.mobility = Q_UNMOVABLE, .fresh = true};
    q_buddy_free(&zone->buddy, s.pages, 0, Q_MAX_ORDER, how);
    zone->present_pages += SECTION_PAGES;
    return 0;
}

/* Pages among nr from page on that may hold something; their marks go. */
static size_t unmark(struct q_page *page, size_t nr)
{
    size_t n = 0;

    for (size_t i = 0; i < nr; i++) {
        n += page[i].flags & Q_PAGE_WRITTEN;
        page[i].flags = 0;
    }
    return n;
}

static struct q_page *take(enum q_special kind, unsigned order, size_t nr, size_t *written,
                           int *error)
{
    struct q_special_zone *zone = &q_special_zones[kind];
    struct q_page *page;

    *error = 0;
    q_lock(&zone->lock);
    while ((page = q_buddy_alloc(&zone->buddy, order, Q_UNMOVABLE, NULL)) == NULL && *error == 0)
        *error = -add_section(kind);
    if (page != NULL) {
        const struct q_section *s = q_special_section(page);
        struct q_free_how how = {.mobility = Q_UNMOVABLE, .fresh = (page->list & 1) != 0};

        q_buddy_free_range(&zone->buddy, page + nr, (size_t)(page - s->pages) + nr,
                           ((size_t)1 << order) - nr, how);
        *written = unmark(page, nr);
        zone->nr_written -= *written;
        zone->nr_alloc++;
        page->nr = (uint32_t)nr;
        page->refcount = 1;
        q_page_set_type(page, Q_PAGE_RUN);
    }
    q_unlock(&zone->lock);
    return page;
}

/* The run at page goes back to the lists; `written`: it may hold something. */
static void give(const struct q_section *s, struct q_page *page, size_t nr, bool written)
{
    struct q_special_zone *zone = s->zone;
    struct q_free_how how = {.mobility = Q_UNMOVABLE, .fresh = !written};

    q_page_set_type(page, Q_PAGE_NONE);
    for (size_t i = 0; i < nr; i++)
        page[i].flags = written ? Q_PAGE_WRITTEN : 0;
    zone->nr_written += written ? nr : 0;
    q_buddy_free_range(&zone->buddy, page, (size_t)(page - s->pages), nr, how);
}

static void free_run(struct q_page *head)
{
    const struct q_section *s = q_special_section(head);
    const struct q_special_ops *ops = q_special_ops[q_special_kind(s)];
    size_t nr = head->nr;

    /* A hint, read without the lock. The memory goes first: it is still the caller's. */
    size_t rests = __atomic_load_n(&s->zone->nr_written, __ATOMIC_RELAXED);
    bool written = true;
    if ((rests + nr) << q_page_shift > ops->keep_bytes)
        written = !ops->clean(s, (size_t)(head - s->pages), nr);
    q_lock(&s->zone->lock);
    s->zone->nr_free_calls++;
    s->zone->nr_given_back += written ? 0 : nr;
    if (!s->inherited)
        give(s, head, nr, written);
    else
        q_page_set_type(head, Q_PAGE_NONE); /* its parent may still use it */
    q_unlock(&s->zone->lock);
    q_uncharge_outside(nr);
}

/* Runs to be freed, linked by lru.next. */
static struct q_list *_Atomic postponed;

void q_special_free_later(struct q_page *head)
{
    struct q_list *old = atomic_load_explicit(&postponed, memory_order_relaxed);

    do {
        head->lru.next = old;
        /* Release: the link before the run can be seen. */
    } while (!atomic_compare_exchange_weak_explicit(&postponed, &old, &head->lru,
                                                    memory_order_release, memory_order_relaxed));
}

static void free_postponed(void)
{
    /* Relaxed peek; acquire: the links. Taken whole, so no ABA. */
    if (q_likely(atomic_load_explicit(&postponed, memory_order_relaxed) == NULL))
        return;
    struct q_list *l = atomic_exchange_explicit(&postponed, NULL, memory_order_acquire), *next;

    for (; l != NULL; l = next) {
        next = l->next;
        free_run(q_container_of(l, struct q_page, lru));
    }
}

void q_special_free(struct q_page *head)
{
    free_postponed();
    free_run(head);
}

/* Under the limit, or after whatever rests elsewhere has gone. */
static bool charge(size_t nr)
{
    return q_charge_outside(nr) || (q_last_resort(nr) && q_charge_outside(nr));
}

/* What could not be cleaned when it was freed is never shown to the next owner of a file's page. */
static bool make_zero(const struct q_section *s, struct q_page *page, bool asked)
{
    if (s->addr == 0)
        return q_special_ops[q_special_kind(s)]->clean(s, (size_t)(page - s->pages), page->nr);
    if (asked)
        memset(q_special_address(page), 0, (size_t)page->nr << q_page_shift);
    return true;
}

struct q_page *q_special_alloc(enum q_special kind, unsigned order, size_t nr, bool zero,
                               int *error)
{
    const struct q_special_ops *ops = q_special_ops[kind];
    size_t written = 0;

    free_postponed();
    *error = ENOMEM;
    if (!charge(nr))
        return NULL;
    struct q_page *page = take(kind, order, nr, &written, error);
    if (page == NULL) {
        q_uncharge_outside(nr);
        return NULL;
    }
    q_keep_to_limit();
    const struct q_section *s = q_special_section(page);
    /* In this order: of a file, zeroes are a hole, whose memory is asked for then. */
    bool zeroed = written == 0 || make_zero(s, page, zero);
    *error = ops->ready != NULL ? -ops->ready(s, (size_t)(page - s->pages), nr) : 0;
    if (*error == 0 && !zeroed)
        *error = ENOMEM;
    if (*error == 0)
        return page;
    free_run(page);
    return NULL;
}

void q_special_split(struct q_page *head)
{
    struct q_special_zone *zone = q_special_section(head)->zone;

    q_lock(&zone->lock);
    q_split_pages(head);
    q_unlock(&zone->lock);
}

/* Clean the free blocks of one order. Those that cannot be cleaned stay where they are. */
static size_t clean_blocks(struct q_special_zone *zone, unsigned order)
{
    struct q_list *head = &zone->buddy.area[order].free_list[q_list_index(Q_UNMOVABLE, false)];
    size_t nr = (size_t)1 << order, given = 0;

    for (struct q_list *l = head->next, *next; l != NULL && l != head; l = next) {
        struct q_page *page = q_container_of(l, struct q_page, lru);
        const struct q_section *s = q_special_section(page);

        next = l->next;
        if (!q_special_ops[q_special_kind(s)]->clean(s, (size_t)(page - s->pages), nr))
            continue;
        size_t written = unmark(page, nr);
        zone->nr_written -= written;
        given += written;
        q_buddy_freshen(&zone->buddy, page);
    }
    zone->nr_given_back += given;
    return given;
}

size_t q_special_trim(void)
{
    size_t given = 0;

    free_postponed();
    for (unsigned kind = 0; kind < Q_NR_SPECIAL; kind++) {
        struct q_special_zone *zone = &q_special_zones[kind];

        /* Relaxed: nothing rests in most processes. */
        if (__atomic_load_n(&zone->nr_written, __ATOMIC_RELAXED) == 0)
            continue;
        q_lock(&zone->lock);
        for (unsigned order = 0; order < Q_NR_ORDERS; order++)
            given += clean_blocks(zone, order);
        q_unlock(&zone->lock);
    }
    return given;
}

void q_special_each_lock(void (*fn)(struct q_lock *l))
{
    for (unsigned kind = 0; kind < Q_NR_SPECIAL; kind++)
        fn(&q_special_zones[kind].lock);
    fn(&section_lock);
}

/* Lists that were copied in the middle of a change, from the struct pages: see salvage.c. */
static void salvage(struct q_special_zone *zone)
{
    zone->buddy = (struct q_buddy){0};
    zone->nr_written = 0;
    for (uint32_t i = 0; i < sections_seen(); i++) {
        const struct q_section *s = section_at(i);

        for (size_t at = 0; s->zone == zone && at < SECTION_PAGES;) {
            struct q_page *page = s->pages + at;
            size_t nr = q_page_is_free(page) ? (size_t)1 << page->order : 1;

            for (size_t k = 0; q_page_is_free(page) && k < nr; k++) {
                page[k].flags = Q_PAGE_WRITTEN;
                zone->nr_written++;
            }
            if (q_page_is_free(page))
                q_buddy_relist(&zone->buddy, page, Q_UNMOVABLE);
            at += nr;
        }
    }
}

/*
 * A file is not copied by fork. What the child inherited stays readable and
 * is its parent's as well; what it allocates comes from a file of its own.
 */
static void leave_file(struct q_special_zone *zone)
{
    for (uint32_t i = 0; i < sections_seen(); i++)
        section_at(i)->inherited |= section_at(i)->zone == zone;
    zone->present_pages -= q_min(zone->present_pages, zone->buddy.nr_free_pages);
    zone->buddy = (struct q_buddy){0};
    zone->nr_written = 0;
    zone->file = (struct q_section){.inode = 0};
}

void q_special_fork_child(void)
{
    for (unsigned kind = 0; kind < Q_NR_SPECIAL; kind++)
        if (q_lock_after_fork(&q_special_zones[kind].lock))
            salvage(&q_special_zones[kind]);
    leave_file(&q_special_zones[Q_SPECIAL_HIGHMEM]);
    leave_file(&q_special_zones[Q_SPECIAL_SECRET]);
    q_lock_after_fork(&section_lock); /* a section is published when it is whole */
}
