/* fit.c - see fit.h. */
#include "zone/fit.h"

#include "zone/memmap.h"
#include "zone/pageblock.h"

#define SCAN_MAX 32u /* blocks to look at, */
#define SCAN_MIN 16u /* fewer where there is less to save */
#define SPARE 4u     /* beyond so many times the length the buddy allocator finds one as well */
#define CLOSE 8u     /* this part of the length to spare is as good as none */

void q_free_tail(struct q_zone *zone, struct q_page *page, size_t nr, bool fresh)
{
    size_t pfn = q_page_to_pfn(page);
    struct q_free_how how = {.mobility = q_pageblock_of(pfn)->mobility, .fresh = fresh};

    q_buddy_free_range(&zone->buddy, page, pfn, nr, how);
}

size_t q_free_behind(const struct q_page *page, size_t from, size_t most)
{
    size_t pfn = q_page_to_pfn(page), at = from;
    size_t end = q_next_section(pfn) - pfn; /* nothing that is given out may reach beyond */

    while (at < q_min(most, end) && q_page_is_free(page + at))
        at += (size_t)1 << page[at].order;
    return q_min(at, end) - from;
}

void q_take_behind(struct q_zone *zone, struct q_page *page, size_t from, size_t to)
{
    while (from < to) {
        struct q_page *next = page + from;
        size_t block = (size_t)1 << next->order;

        q_buddy_remove(&zone->buddy, next);
        if (from + block > to)
            q_free_tail(zone, page + to, from + block - to, (next->list & 1) != 0);
        from += block;
    }
}

/* A free block that holds memory. */
static bool is_used(const struct q_page *page)
{
    return q_page_is_free(page) && (page->list & 1) == 0;
}

/* The length of such a block that ends before page, or 0. Its last page knows its order. */
static size_t block_before(const struct q_page *page)
{
    /* Relaxed: what is there may be on some CPU's list, and then does not count. */
    unsigned order = __atomic_load_n(&page[-1].order, __ATOMIC_RELAXED);

    if (order >= Q_MAX_ORDER)
        return 0;
    size_t nr = (size_t)1 << order;
    const struct q_page *head = page - nr;
    bool aligned = (q_page_to_pfn(page) & (nr - 1)) == 0; /* if not, it is an earlier block's */
    return aligned && is_used(head) && head->order == order ? nr : 0;
}

/* Pages in a row. */
struct extent {
    struct q_page *first;
    size_t nr;
};

/* The extent around a free block; it is not followed further than `most` pages. */
static struct extent extent_of(struct q_page *page, size_t most)
{
    size_t nr = (size_t)1 << page->order;
    size_t before = q_page_to_pfn(page) & (((size_t)1 << Q_SECTION_ORDER) - 1), step;

    for (; before > 0 && nr < most && (step = block_before(page)) > 0; before -= step) {
        page -= step;
        nr += step;
    }
    size_t end = q_next_section(q_page_to_pfn(page)) - q_page_to_pfn(page);
    while (nr < q_min(most, end) && is_used(page + nr))
        nr += (size_t)1 << page[nr].order;
    return (struct extent){page, nr};
}

/* The best so far, and how many blocks may still be looked at. */
struct search {
    size_t nr, spare; /* wanted; what the best has beyond it */
    struct q_page *best;
    unsigned left;
};

/* Whether another look could hardly find anything better. */
static bool good_enough(const struct search *s)
{
    return s->left == 0 || s->spare <= s->nr / CLOSE;
}

static void search_list(struct search *s, const struct q_list *head)
{
    for (struct q_list *l = head->next; l != NULL && l != head && !good_enough(s); l = l->next) {
        struct extent e = extent_of(q_container_of(l, struct q_page, lru), s->nr + s->spare);

        s->left--;
        if (e.nr >= s->nr && e.nr - s->nr < s->spare) {
            s->best = e.first;
            s->spare = e.nr - s->nr;
        }
    }
}

/*
 * Most rows of the right length have a block of half the length or more, some
 * only one of a quarter; longer blocks are rows with much to spare.
 */
static struct q_page *find_fitting(struct q_zone *zone, size_t nr, enum q_mobility mobility)
{
    struct search s = {nr, SPARE * nr, NULL, (unsigned)q_min(SCAN_MIN + nr / 4, SCAN_MAX)};
    unsigned half = q_fls(nr), list = q_list_index(mobility, false);
    const struct q_free_area *area = zone->buddy.area;

    search_list(&s, &area[half].free_list[list]);
    if (half > 0)
        search_list(&s, &area[half - 1].free_list[list]);
    for (unsigned order = half + 1; order <= Q_MAX_ORDER; order++)
        search_list(&s, &area[order].free_list[list]);
    return s.best;
}

struct q_page *q_take_fitting(struct q_zone *zone, size_t nr, enum q_mobility mobility,
                              size_t *written)
{
    struct q_page *page = find_fitting(zone, nr, mobility);

    if (page == NULL)
        return NULL;
    q_take_behind(zone, page, 0, nr);
    *written = q_pageblock_taken(zone, q_page_to_pfn(page), nr);
    zone->nr_alloc++;
    return page;
}
