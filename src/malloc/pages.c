/*
 * pages.c - the page interface: allocating, freeing, counting, splitting.
 *
 * Each function checks what it was given before it changes anything. What
 * allocates does so inside q_enter(), so that a signal handler finds out that
 * it interrupted the allocator. What frees needs no lock but for the last
 * reference; a handler that drops that one while it may not wait for locks
 * leaves the block on malloc's list of things to free later.
 */
#include "malloc/pages.h"

#include <errno.h>

#include "malloc/enter.h"
#include "malloc/shrink.h"
#include "numa/topology.h"
#include "zone/page_alloc.h"

#define HIGH_FLAGS (QUIRE_GFP_HIGHMEM | QUIRE_GFP_SECRET)
#define ZONE_FLAGS (QUIRE_GFP_DMA32 | QUIRE_GFP_DMA | HIGH_FLAGS)
#define MOVE_FLAGS (QUIRE_GFP_MOVABLE | QUIRE_GFP_RECLAIMABLE | QUIRE_GFP_THISNODE)
#define ALL_FLAGS (QUIRE_GFP_ZERO | MOVE_FLAGS | ZONE_FLAGS)
#define BLOCK_MAX ((size_t)1 << Q_MAX_ORDER)

_Static_assert(QUIRE_MAX_ORDER == Q_MAX_ORDER && QUIRE_NODE_LOCAL + 1 == 0, "the same");

static bool fail(int error)
{
    errno = error;
    return false;
}

static q_gfp_t inner_gfp(quire_gfp_t gfp)
{
    return (gfp & QUIRE_GFP_ZERO ? Q_GFP_ZERO : 0) | (gfp & QUIRE_GFP_MOVABLE ? Q_GFP_MOVABLE : 0) |
           (gfp & QUIRE_GFP_RECLAIMABLE ? Q_GFP_RECLAIMABLE : 0) |
           (gfp & QUIRE_GFP_THISNODE ? Q_GFP_THISNODE : 0);
}

/* No flag but known ones; of the special zones at most one, which knows neither kinds nor nodes. */
static bool flags_fit(quire_gfp_t gfp)
{
    quire_gfp_t zone = gfp & ZONE_FLAGS;

    return (gfp & ~ALL_FLAGS) == 0 && (zone & (zone - 1)) == 0 &&
           (zone == 0 || (gfp & MOVE_FLAGS) == 0);
}

static enum q_special kind_of(quire_gfp_t gfp)
{
    if (gfp & HIGH_FLAGS)
        return gfp & QUIRE_GFP_SECRET ? Q_SPECIAL_SECRET : Q_SPECIAL_HIGHMEM;
    return gfp & QUIRE_GFP_DMA32 ? Q_SPECIAL_DMA32 : Q_SPECIAL_DMA;
}

/*
 * nr pages at a multiple of 2^order, which is enough for them, from the zone
 * that the flags name. NULL: *error says why.
 */
static struct q_page *get(struct q_place from, quire_gfp_t gfp, unsigned order, size_t nr,
                          int *error)
{
    *error = ENOMEM;
    if ((gfp & ZONE_FLAGS) == 0)
        return q_alloc_on(from, inner_gfp(gfp), order, nr);
    return q_special_alloc(kind_of(gfp), order, nr, (gfp & QUIRE_GFP_ZERO) != 0, error);
}

/* Enter the allocator to get nr pages; false with errno set where that cannot be. */
static bool begin(quire_gfp_t gfp, size_t nr)
{
    if (!flags_fit(gfp) || nr == 0 || nr > BLOCK_MAX)
        return fail(EINVAL);
    int error = q_call_begin();

    return error == 0 || fail(error);
}

/* Leave it with what there is; error: where that is nothing. */
static struct q_page *end(struct q_page *page, int error)
{
    if (page != NULL)
        q_page_set_counted(page);
    q_call_end();
    if (page == NULL)
        errno = error;
    return page;
}

/* The order as a number of pages; 0 where there is no such order. */
static size_t pages_of_order(unsigned order)
{
    return order <= Q_MAX_ORDER ? (size_t)1 << order : 0;
}

static struct q_page *try_order(int node, quire_gfp_t gfp, unsigned order)
{
    if (!begin(gfp, pages_of_order(order)))
        return NULL;
    unsigned nid = q_find_node(node);
    if (nid >= q_topology.nr_nodes) {
        q_leave();
        fail(ENXIO);
        return NULL;
    }
    int error;
    struct q_place from = node == QUIRE_NODE_LOCAL ? q_place_by_policy() : q_place_on(nid);
    struct q_page *page = get(from, gfp, order, (size_t)1 << order, &error);
    return end(page, error);
}

/* Whether a call that failed is worth repeating. */
static bool again(size_t nr, unsigned *tries)
{
    return errno == ENOMEM && q_memory_is_short(nr << q_page_shift, tries);
}

static struct q_page *alloc_order(int node, quire_gfp_t gfp, unsigned order)
{
    int saved = errno;
    struct q_page *page = try_order(node, gfp, order);

    for (unsigned tries = 0; page == NULL && again((size_t)1 << order, &tries);)
        page = try_order(node, gfp, order);
    if (page != NULL)
        errno = saved;
    return page;
}

static void *address_or_null(struct q_page *page)
{
    return page != NULL ? q_any_address(page) : NULL;
}

Q_PUBLIC struct quire_page *quire_alloc_pages_node(int node, quire_gfp_t gfp, unsigned order)
{
    return q_page_out(alloc_order(node, gfp, order));
}

Q_PUBLIC struct quire_page *quire_alloc_pages(quire_gfp_t gfp, unsigned order)
{
    return q_page_out(alloc_order(QUIRE_NODE_LOCAL, gfp, order));
}

Q_PUBLIC struct quire_page *quire_alloc_page(quire_gfp_t gfp)
{
    return quire_alloc_pages(gfp, 0);
}

/* For what is to be known by its address. */
static bool has_address(quire_gfp_t gfp)
{
    return (gfp & HIGH_FLAGS) == 0 || fail(EINVAL);
}

Q_PUBLIC void *quire_get_free_pages(quire_gfp_t gfp, unsigned order)
{
    if (!has_address(gfp))
        return NULL;
    return address_or_null(alloc_order(QUIRE_NODE_LOCAL, gfp, order));
}

Q_PUBLIC void *quire_get_free_page(quire_gfp_t gfp)
{
    return quire_get_free_pages(gfp, 0);
}

Q_PUBLIC void *quire_get_zeroed_page(quire_gfp_t gfp)
{
    return quire_get_free_pages(gfp | QUIRE_GFP_ZERO, 0);
}

/* Whole pages that hold so many bytes; more than a block has where they are too many. */
static size_t pages_of_bytes(size_t bytes)
{
    return (bytes >> q_page_shift) + ((bytes & (q_page_size() - 1)) != 0);
}

Q_PUBLIC void *quire_alloc_pages_exact(size_t bytes, quire_gfp_t gfp)
{
    /* The page size is known from the set-up on, which may be yet to come. */
    q_base_init();
    size_t nr = pages_of_bytes(bytes);
    struct q_page *page = NULL;
    unsigned tries = 0;
    int error, saved = errno;

    if (!has_address(gfp))
        return NULL;
    do {
        if (!begin(gfp, nr))
            return NULL;
        page = end(get(q_place_by_policy(), gfp, q_ceil_log2(nr), nr, &error), error);
    } while (page == NULL && again(nr, &tries));
    if (page != NULL)
        errno = saved;
    return address_or_null(page);
}

static void split(struct q_page *head)
{
    if (q_page_is_special(head))
        q_special_split(head);
    else
        q_split_run(head);
}

/* Up to `want` pages that lie in a row, as counted runs of one page: the first, and *got. */
static struct q_page *alloc_singles(quire_gfp_t gfp, size_t want, size_t *got, int *error)
{
    struct q_page *page = NULL;

    for (size_t nr = q_min(want, BLOCK_MAX); nr > 0 && page == NULL; nr /= 2) {
        page = get(q_place_by_policy(), gfp, q_ceil_log2(nr), nr, error);
        *got = nr;
    }
    if (page != NULL) {
        q_page_set_counted(page);
        split(page);
    }
    return page;
}

static size_t count_empty(size_t nr, struct quire_page *const *pages)
{
    size_t empty = 0;

    for (size_t i = 0; i < nr; i++)
        empty += pages[i] == NULL;
    return empty;
}

Q_PUBLIC size_t quire_alloc_pages_bulk(quire_gfp_t gfp, size_t nr, struct quire_page **pages)
{
    size_t empty = count_empty(nr, pages), left = 0, i = 0;
    struct q_page *page = NULL;
    unsigned tries = 0;
    int error;

    if (flags_fit(gfp) && empty == 0)
        return nr;
    do {
        if (!begin(gfp, 1))
            return nr - empty;
        while (empty > 0 && (page = alloc_singles(gfp, empty, &left, &error)) != NULL) {
            empty -= left;
            for (; left > 0; i++) {
                if (pages[i] != NULL)
                    continue;
                pages[i] = q_page_out(page++);
                left--;
            }
        }
        q_call_end();
    } while (empty > 0 && error == ENOMEM && q_memory_is_short(empty << q_page_shift, &tries));
    if (empty > 0)
        errno = error;
    return nr - empty;
}

void q_page_drop(const char *caller, struct q_page *head)
{
    enum q_put left = q_page_put(head);

    if (left == Q_PUT_NONE) {
        q_misuse_page(caller, head);
    } else if (left == Q_PUT_LAST && q_interrupted() && q_page_is_special(head)) {
        q_special_free_later(head);
    } else if (left == Q_PUT_LAST && q_interrupted()) {
        q_page_set_plain(head);
        q_free_later(q_page_address(head));
    } else if (left == Q_PUT_LAST) {
        int saved = errno;

        q_enter();
        if (q_page_is_special(head))
            q_special_free(head);
        else
            q_free_run(head);
        q_leave();
        errno = saved;
    }
}

void q_page_let_go(const char *caller, struct q_page *page)
{
    struct q_page *head = q_page_head(page);

    if (head != NULL)
        q_page_drop(caller, head);
    else
        q_misuse_page(caller, page);
}

struct q_page *q_page_head_of(const char *caller, const struct quire_page *outer)
{
    struct q_page *page = q_page_in(caller, outer), *head = NULL;

    if (page != NULL && (head = q_page_head(page)) == NULL)
        q_misuse_page(caller, page);
    return head;
}

/* The same where page must be the head itself, of a run of nr pages. */
static struct q_page *head_of_nr(const char *caller, struct q_page *page, size_t nr)
{
    struct q_page *head = q_page_head(page);

    if (head != page) {
        q_misuse_page(caller, page);
        return NULL;
    }
    if (head->nr != nr) {
        q_misuse_page_nr(caller, head, nr);
        return NULL;
    }
    return head;
}

static void free_nr(const char *caller, const struct quire_page *outer, size_t nr)
{
    struct q_page *page = outer != NULL ? q_page_in(caller, outer) : NULL;

    if (page != NULL && (page = head_of_nr(caller, page, nr)) != NULL)
        q_page_drop(caller, page);
}

static void free_at(const char *caller, void *addr, size_t nr)
{
    struct q_page *page = addr != NULL ? q_any_page(addr) : NULL;

    if (addr == NULL)
        return;
    if (page == NULL || q_any_address(page) != addr || q_page_head(page) != page) {
        q_misuse(caller, addr);
        return;
    }
    if ((page = head_of_nr(caller, page, nr)) != NULL)
        q_page_drop(caller, page);
}

Q_PUBLIC void quire_free_pages(struct quire_page *page, unsigned order)
{
    free_nr("quire_free_pages", page, pages_of_order(order));
}

Q_PUBLIC void quire_free_page(struct quire_page *page)
{
    free_nr("quire_free_page", page, 1);
}

Q_PUBLIC void quire_put_free_pages(void *addr, unsigned order)
{
    free_at("quire_put_free_pages", addr, pages_of_order(order));
}

Q_PUBLIC void quire_put_free_page(void *addr)
{
    free_at("quire_put_free_page", addr, 1);
}

Q_PUBLIC void quire_free_pages_exact(void *addr, size_t bytes)
{
    free_at("quire_free_pages_exact", addr, pages_of_bytes(bytes));
}

Q_PUBLIC void quire_get_page(struct quire_page *page)
{
    struct q_page *head = q_page_head_of("quire_get_page", page);

    if (head != NULL && !q_page_get(head))
        q_misuse_page("quire_get_page", head);
}

Q_PUBLIC void quire_put_page(struct quire_page *page)
{
    struct q_page *head = q_page_head_of("quire_put_page", page);

    if (head != NULL)
        q_page_drop("quire_put_page", head);
}

Q_PUBLIC void quire_free_pages_bulk(size_t nr, struct quire_page **pages)
{
    for (size_t i = 0; i < nr; i++) {
        struct q_page *head =
            pages[i] != NULL ? q_page_head_of("quire_free_pages_bulk", pages[i]) : NULL;

        pages[i] = NULL;
        if (head != NULL)
            q_page_drop("quire_free_pages_bulk", head);
    }
}

Q_PUBLIC int quire_split_page(struct quire_page *outer, unsigned order)
{
    struct q_page *head = q_page_head_of("quire_split_page", outer);
    int error = 0;

    if (head == NULL || q_page_out(head) != outer || head->nr != pages_of_order(order))
        error = EINVAL;
    else if (q_page_count(head) != 1)
        error = EBUSY;
    else if (q_interrupted())
        error = EAGAIN;
    if (error != 0)
        return (int)fail(error) - 1;
    q_enter();
    split(head);
    q_leave();
    return 0;
}
