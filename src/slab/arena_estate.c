/*
 * arena_estate.c - see arena.h: memory of heaps whose writers save pages themselves.
 *
 * The kernel is told of such memory by whole mappings (src/cow/sigbus.c), so
 * these heaps take whole pageblocks, and cut them up themselves:
 *
 *   estate   | chunk | run of 3 units      | free  | free  | ...      32 units of 64 KiB
 *   pages     RUN     RUN                   RUN     RUN
 *
 * To all others each of these is a run like any that a heap owns; a free unit
 * is one, too, of no kind. An estate goes back whole, when all of it is free. Runs above half a
 * pageblock are pageblocks of their own.
 */
#include <string.h>

#include "slab/arena.h"
#include "slab/slub.h"
#include "zone/page_alloc.h"

#define UNITS ((unsigned)(Q_PAGEBLOCK_SIZE / Q_SLAB_SIZE))
#define ALL (uint32_t)(((uint64_t)1 << UNITS) - 1)

_Static_assert(UNITS <= 32, "a bit each");

void (*q_arena_hook)(void *at, size_t bytes, bool ours);

static size_t unit_pages(void)
{
    return (size_t)1 << q_slab_order();
}

static uint32_t mask_of(unsigned at, unsigned units)
{
    return (uint32_t)((((uint64_t)1 << units) - 1) << at);
}

/* [at, at + units) becomes one run, or as many as there are units. */
static void cut(struct q_arena_estate *e, unsigned at, unsigned units, bool one)
{
    struct q_zone *zone = q_pfn_zone(q_page_to_pfn(e->page));
    struct q_page *first = e->page + at * unit_pages();

    q_lock(&zone->lock);
    for (unsigned i = units; i-- > 0;) {
        struct q_page *head = first + i * unit_pages();
        bool is_head = !one || i == 0;

        head->nr = (uint32_t)(is_head ? (one ? units : 1) * unit_pages() : 0);
        head->private = 0;
        /* Q_PAGE_MOVED: all of a run goes home where a part was moved. */
        (is_head ? head : first)->flags |= (is_head ? first : head)->flags;
        if (!is_head)
            head->flags = 0;
        __atomic_store_n(&head->refcount, is_head ? Q_PAGE_OWNED : 0, __ATOMIC_RELAXED);
        q_page_set_type(head, is_head ? Q_PAGE_RUN : Q_PAGE_NONE);
    }
    q_unlock(&zone->lock);
}

static struct q_page *get_blocks(struct q_arena *a, size_t nr, unsigned order)
{
    struct q_page *page =
        q_arena_alloc_run(a, nr, (unsigned)q_max(order, q_pageblock_order()), false);

    if (page != NULL) {
        q_page_set_owned(page);
        q_arena_hook(q_page_address(page), nr << q_page_shift, true);
    }
    return page;
}

static void put_blocks(struct q_page *page)
{
    q_arena_hook(q_page_address(page), (size_t)page->nr << q_page_shift, false);
    q_unit_release(page);
}

static struct q_arena_estate *new_estate(struct q_arena *a)
{
    struct q_arena_estate *e = q_inner_alloc(sizeof(*e));

    if (e == NULL) {
        a->starved = true;
        return NULL;
    }
    e->page = get_blocks(a, UNITS * unit_pages(), 0);
    if (e->page == NULL) {
        q_inner_free(e);
        return NULL;
    }
    cut(e, 0, UNITS, false);
    e->free = ALL;
    q_list_add(&a->estates, &e->list);
    return e;
}

/* Free units in a row, at a multiple of `align`; UNITS: none. */
static unsigned find(const struct q_arena_estate *e, unsigned units, unsigned align)
{
    for (unsigned at = 0; at + units <= UNITS; at += align)
        if ((e->free & mask_of(at, units)) == mask_of(at, units))
            return at;
    return UNITS;
}

static struct q_arena_estate *estate_with(struct q_arena *a, unsigned units, unsigned align,
                                          unsigned *at)
{
    for (struct q_list *l = a->estates.next; l != NULL && l != &a->estates; l = l->next) {
        struct q_arena_estate *e = q_container_of(l, struct q_arena_estate, list);

        *at = find(e, units, align);
        if (*at < UNITS)
            return e;
    }
    *at = 0;
    return new_estate(a);
}

size_t q_estate_round(size_t nr)
{
    size_t unit = unit_pages(), half = UNITS / 2 * unit;

    return q_align_up(nr, q_align_up(nr, unit) > half ? UNITS * unit : unit);
}

struct q_page *q_estate_get(struct q_arena *a, size_t nr, unsigned order, bool zero)
{
    size_t align = q_max((size_t)1 << order, unit_pages());
    unsigned at, units = (unsigned)(nr / unit_pages());
    struct q_page *page;

    if (units > UNITS / 2 || align > UNITS / 2 * unit_pages()) {
        page = get_blocks(a, q_align_up(nr, UNITS * unit_pages()), order);
    } else {
        struct q_arena_estate *e = estate_with(a, units, (unsigned)(align / unit_pages()), &at);

        if (e == NULL)
            return NULL;
        cut(e, at, units, true);
        e->free &= ~mask_of(at, units);
        if (e->free == 0) {
            q_list_del(&e->list);
            q_list_add(&a->full, &e->list);
        }
        page = e->page + at * unit_pages();
        page->lru.prev = &e->list;
    }
    if (zero && page != NULL)
        memset(q_page_address(page), 0, nr << q_page_shift);
    return page;
}

void q_estate_put(struct q_arena *a, struct q_page *page)
{
    unsigned units = (unsigned)(page->nr / unit_pages());

    if (units >= UNITS) {
        put_blocks(page);
        return;
    }
    struct q_arena_estate *e = q_container_of(page->lru.prev, struct q_arena_estate, list);
    unsigned at = (unsigned)((size_t)(page - e->page) / unit_pages());
    if (e->free == 0) {
        q_list_del(&e->list);
        q_list_add(&a->estates, &e->list);
    }
    q_unit_disown(page);
    e->free |= mask_of(at, units);
    cut(e, at, units, false);
    if (e->free != ALL)
        return;
    q_list_del(&e->list);
    cut(e, 0, UNITS, true);
    put_blocks(e->page);
    q_inner_free(e);
}
