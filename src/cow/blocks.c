/* blocks.c - see blocks.h. */
#include "cow/blocks.h"

#include "cow/image.h"
#include "cow/map.h"
#include "slab/slab.h"
#include "zone/vmalloc.h"

struct collector {
    struct q_blocks *b;
    bool failed;
};

static void add(struct collector *c, uintptr_t start, size_t bytes, size_t object)
{
    struct q_blocks *b = c->b;
    struct q_block *last = b->nr > 0 ? &b->at[b->nr - 1] : NULL;

    if (object != 0 && last != NULL && last->object == object &&
        last->start + last->bytes == start) {
        last->bytes += bytes;
        return;
    }
    if (!q_grow_array((void **)&b->at, &b->room, b->nr + 1, sizeof(*b->at))) {
        c->failed = true;
        return;
    }
    b->at[b->nr++] = (struct q_block){start, bytes, object};
}

/* The block that the page is the head of. Returns how many pages to go on. */
static size_t add_page(struct collector *c, const struct q_page *page)
{
    uintptr_t at = (uintptr_t)q_page_address(page);

    switch (q_page_type_of(page)) {
    case Q_PAGE_BUDDY:
    case Q_PAGE_PCP:
        return (size_t)1 << page->order;
    case Q_PAGE_RUN:
        add(c, at, (size_t)page->nr << q_page_shift, 0);
        return q_max(page->nr, 1);
    case Q_PAGE_SLAB:
        /* One that is just being made may name another class: nobody has an object of it yet. */
        add(c, at, Q_SLAB_SIZE,
            q_slab_class(q_slab_at((uint32_t)(q_page_to_pfn(page) >> q_slab_order()) + 1))->size);
        return (size_t)1 << q_slab_order();
    default: /* a tail */
        return 1;
    }
}

/* The part of a stretch that lies in zones; mappings are in the table of src/zone. */
static void add_range(struct collector *c, const struct q_range *r)
{
    for (uintptr_t at = r->start; at < r->end && !c->failed;) {
        const struct q_page *page = q_virt_to_page((void *)at);

        at = page != NULL ? at + (add_page(c, page) << q_page_shift)
                          : q_align_down(at, Q_PAGEBLOCK_SIZE) + Q_PAGEBLOCK_SIZE;
    }
}

static void add_mapping(void *arg, void *addr, size_t bytes)
{
    add(arg, (uintptr_t)addr, bytes, 0);
}

static void add_mapped(struct collector *c)
{
    for (const struct q_mapped *m = q_mapped_first(); m != NULL; m = m->next)
        for (size_t i = 0; i < m->blocks.nr; i++)
            add(c, m->blocks.at[i].start, m->blocks.at[i].bytes, m->blocks.at[i].object);
}

bool q_blocks_collect(struct q_blocks *b, const struct q_ranges *ranges)
{
    struct collector c = {.b = b};

    b->nr = 0;
    for (size_t i = 0; i < ranges->nr; i++)
        add_range(&c, &ranges->at[i]);
    if (q_vstat_locked().blocks > 0)
        q_veach(add_mapping, &c);
    add_mapped(&c);
    q_sort_by_start(b->at, b->nr, sizeof(*b->at));
    return !c.failed;
}

size_t q_blocks_size(const struct q_blocks *b, uintptr_t addr)
{
    size_t lo = 0, hi = b->nr;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (b->at[mid].start <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return 0;
    const struct q_block *k = &b->at[lo - 1];
    size_t off = addr - k->start;
    if (off >= k->bytes)
        return 0;
    if (k->object == 0)
        return off == 0 ? k->bytes : 0;
    off %= Q_SLAB_SIZE; /* each slab begins with an object, and has a rest at its end */
    return off % k->object == 0 && off + k->object <= Q_SLAB_SIZE ? k->object : 0;
}

bool q_blocks_make_sense(const struct q_blocks *b, const struct q_ranges *ranges)
{
    uint64_t last = 0;

    for (size_t i = 0; i < b->nr; i++) {
        const struct q_block *k = &b->at[i];
        const struct q_range *in = q_ranges_find(ranges, (uintptr_t)k->start);

        if (k->start < last || k->start > UINTPTR_MAX || k->bytes == 0 || in == NULL ||
            k->bytes > in->end - k->start || k->object > Q_SLAB_SIZE ||
            (k->object != 0 && k->object < 16))
            return false;
        last = k->start + k->bytes;
    }
    return true;
}

void q_blocks_free(struct q_blocks *b)
{
    if (b->at != NULL)
        q_munmap(b->at, q_align_up(b->room * sizeof(*b->at), q_page_size()));
    *b = (struct q_blocks){0};
}
