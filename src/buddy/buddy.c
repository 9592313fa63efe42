/* buddy.c - see buddy.h. */
#include "buddy/buddy.h"

#include "base/msg.h"

static void list_block(struct q_buddy *b, struct q_page *page, unsigned order, unsigned list,
                       bool to_tail)
{
    struct q_free_area *area = &b->area[order];

    page->order = (uint8_t)order;
    page->list = (uint8_t)list;
    page->nr = 0;
    if ((list & 1) == 0) /* of fresh ones nobody asks, and their map may be fresh as well */
        page[((size_t)1 << order) - 1].order = (uint8_t)order;
    /* Compiler only: see the last invariant. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    q_page_set_type(page, Q_PAGE_BUDDY);
    if (to_tail)
        q_list_add_tail(&area->free_list[list], &page->lru);
    else
        q_list_add(&area->free_list[list], &page->lru);
    area->nr_free++;
    b->nr_free_pages += (size_t)1 << order;
}

void q_buddy_remove(struct q_buddy *b, struct q_page *page)
{
    q_assert(q_page_type_of(page) == Q_PAGE_BUDDY);
    q_list_del(&page->lru);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    q_page_set_type(page, Q_PAGE_NONE);
    b->area[page->order].nr_free--;
    b->nr_free_pages -= (size_t)1 << page->order;
}

/* The block of the same order that together with this one makes the next larger. */
static struct q_page *buddy_of(struct q_page *page, size_t pfn, unsigned order)
{
    return page + ((ptrdiff_t)(pfn ^ ((size_t)1 << order)) - (ptrdiff_t)pfn);
}

unsigned q_buddy_free(struct q_buddy *b, struct q_page *page, size_t pfn, unsigned order,
                      struct q_free_how how)
{
    q_assert((pfn & (((size_t)1 << order) - 1)) == 0);
    q_assert(q_page_type_of(page) != Q_PAGE_BUDDY);

    q_page_set_type(page, Q_PAGE_NONE);
    while (order < Q_MAX_ORDER) {
        struct q_page *buddy = buddy_of(page, pfn, order);

        if (!q_page_is_free(buddy) || buddy->order != order)
            break;
        how.fresh &= buddy->list & 1;
        q_buddy_remove(b, buddy);
        if (buddy < page) {
            page = buddy;
            pfn &= ~((size_t)1 << order);
        }
        order++;
    }
    list_block(b, page, order, q_list_index(how.mobility, how.fresh), how.to_tail);
    return order;
}

/* List one half of a used block, and return the other: the one that holds memory, where only one does. */
static struct q_page *split(struct q_buddy *b, struct q_page *page, unsigned order, unsigned list,
                            q_is_fresh_fn *is_fresh)
{
    struct q_page *rest = page + ((size_t)1 << order);

    if ((list & 1) == 0 && is_fresh != NULL) {
        if (is_fresh(rest, order)) {
            list |= 1;
        } else if (is_fresh(page, order)) {
            struct q_page *used = rest;
            rest = page;
            page = used;
            list |= 1;
        }
    }
    list_block(b, rest, order, list, false);
    return page;
}

/* Take the smallest block that fits off one kind of list, and split it. */
static struct q_page *alloc_from(struct q_buddy *b, unsigned order, unsigned list,
                                 q_is_fresh_fn *is_fresh)
{
    for (unsigned have = order; have <= Q_MAX_ORDER; have++) {
        struct q_list *head = &b->area[have].free_list[list];

        if (q_list_empty(head))
            continue;
        struct q_page *page = q_container_of(head->next, struct q_page, lru);
        q_buddy_remove(b, page);
        while (have > order)
            page = split(b, page, --have, list, is_fresh);
        page->list = (uint8_t)list;
        return page;
    }
    return NULL;
}

struct q_page *q_buddy_alloc(struct q_buddy *b, unsigned order, enum q_mobility mobility,
                             q_is_fresh_fn *is_fresh)
{
    struct q_page *page = alloc_from(b, order, q_list_index(mobility, false), is_fresh);

    return page != NULL ? page : alloc_from(b, order, q_list_index(mobility, true), is_fresh);
}

struct q_page *q_buddy_largest(struct q_buddy *b, unsigned min_order, enum q_mobility mobility)
{
    for (int order = Q_MAX_ORDER; order >= (int)min_order; order--) {
        for (unsigned fresh = 0; fresh < 2; fresh++) {
            struct q_list *head = &b->area[order].free_list[q_list_index(mobility, fresh)];

            if (!q_list_empty(head))
                return q_container_of(head->next, struct q_page, lru);
        }
    }
    return NULL;
}

void q_buddy_relist(struct q_buddy *b, struct q_page *page, enum q_mobility mobility)
{
    list_block(b, page, page->order, q_list_index(mobility, false), false);
}

void q_buddy_retype(struct q_buddy *b, struct q_page *page, enum q_mobility mobility)
{
    unsigned order = page->order, fresh = page->list & 1;

    q_buddy_remove(b, page);
    list_block(b, page, order, q_list_index(mobility, fresh), false);
}

void q_buddy_freshen(struct q_buddy *b, struct q_page *page)
{
    unsigned order = page->order, list = page->list | 1;

    q_buddy_remove(b, page);
    list_block(b, page, order, list, true);
}

void q_buddy_free_range(struct q_buddy *b, struct q_page *page, size_t pfn, size_t nr,
                        struct q_free_how how)
{
    while (nr > 0) {
        unsigned order = pfn == 0 ? Q_MAX_ORDER : (unsigned)__builtin_ctzl(pfn);

        order = (unsigned)q_min(q_min(order, q_fls(nr)), Q_MAX_ORDER);
        q_buddy_free(b, page, pfn, order, how);
        page += (size_t)1 << order;
        pfn += (size_t)1 << order;
        nr -= (size_t)1 << order;
    }
}

void q_buddy_verify(const struct q_buddy *b)
{
    size_t total = 0;

    for (unsigned order = 0; order <= Q_MAX_ORDER; order++) {
        const struct q_free_area *area = &b->area[order];
        size_t seen = 0;

        for (unsigned list = 0; list < Q_NR_LISTS; list++) {
            const struct q_list *head = &area->free_list[list];

            for (const struct q_list *l = head->next; l != NULL && l != head; l = l->next) {
                const struct q_page *page = q_container_of(l, const struct q_page, lru);

                if (q_page_type_of(page) != Q_PAGE_BUDDY || page->order != order ||
                    page->list != list || l->next->prev != l)
                    q_die("buddy: page %p on the list of order %u is not a free block of it",
                          (const void *)page, order);
                seen++;
            }
        }
        if (seen != area->nr_free)
            q_die("buddy: order %u counts %zu blocks, its lists hold %zu", order, area->nr_free,
                  seen);
        total += seen << order;
    }
    if (total != b->nr_free_pages)
        q_die("buddy: %zu free pages counted, the lists hold %zu", b->nr_free_pages, total);
}
