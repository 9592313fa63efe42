/* buddy.c - see buddy.h. */
#include "buddy/buddy.h"

#include "base/msg.h"

static void list_block(struct q_buddy *b, struct q_page *page, unsigned order,
                       enum q_mobility mobility, bool to_tail)
{
    struct q_free_area *area = &b->area[order];

    page->type = Q_PAGE_BUDDY;
    page->order = (uint8_t)order;
    page->mobility = (uint8_t)mobility;
    page->nr = 0;
    if (to_tail)
        q_list_add_tail(&area->free_list[mobility], &page->lru);
    else
        q_list_add(&area->free_list[mobility], &page->lru);
    area->nr_free++;
    b->nr_free_pages += (size_t)1 << order;
}

void q_buddy_remove(struct q_buddy *b, struct q_page *page)
{
    q_assert(page->type == Q_PAGE_BUDDY);
    q_list_del(&page->lru);
    page->type = Q_PAGE_NONE;
    b->area[page->order].nr_free--;
    b->nr_free_pages -= (size_t)1 << page->order;
}

/* The block of the same order that together with this one makes the next larger. */
static struct q_page *buddy_of(struct q_page *page, size_t pfn, unsigned order)
{
    return page + ((ptrdiff_t)(pfn ^ ((size_t)1 << order)) - (ptrdiff_t)pfn);
}

unsigned q_buddy_free(struct q_buddy *b, struct q_page *page, size_t pfn, unsigned order,
                      enum q_mobility mobility, bool to_tail)
{
    q_assert((pfn & (((size_t)1 << order) - 1)) == 0);
    q_assert(page->type != Q_PAGE_BUDDY);

    page->type = Q_PAGE_NONE;
    while (order < Q_MAX_ORDER) {
        struct q_page *buddy = buddy_of(page, pfn, order);

        if (buddy->type != Q_PAGE_BUDDY || buddy->order != order)
            break;
        q_buddy_remove(b, buddy);
        if (buddy < page) {
            page = buddy;
            pfn &= ~((size_t)1 << order);
        }
        order++;
    }
    list_block(b, page, order, mobility, to_tail);
    return order;
}

struct q_page *q_buddy_alloc(struct q_buddy *b, unsigned order, enum q_mobility mobility)
{
    for (unsigned have = order; have <= Q_MAX_ORDER; have++) {
        struct q_list *list = &b->area[have].free_list[mobility];

        if (q_list_empty(list))
            continue;
        struct q_page *page = q_container_of(list->next, struct q_page, lru);
        q_buddy_remove(b, page);
        while (have > order) {
            have--;
            list_block(b, page + ((size_t)1 << have), have, mobility, false);
        }
        return page;
    }
    return NULL;
}

struct q_page *q_buddy_largest(struct q_buddy *b, unsigned min_order, enum q_mobility mobility)
{
    for (int order = Q_MAX_ORDER; order >= (int)min_order; order--) {
        struct q_list *list = &b->area[order].free_list[mobility];

        if (!q_list_empty(list))
            return q_container_of(list->next, struct q_page, lru);
    }
    return NULL;
}

void q_buddy_retype(struct q_buddy *b, struct q_page *page, enum q_mobility mobility)
{
    unsigned order = page->order;

    q_buddy_remove(b, page);
    list_block(b, page, order, mobility, false);
}

void q_buddy_free_range(struct q_buddy *b, struct q_page *page, size_t pfn, size_t nr,
                        enum q_mobility mobility, bool to_tail)
{
    while (nr > 0) {
        unsigned order = pfn == 0 ? Q_MAX_ORDER : (unsigned)__builtin_ctzl(pfn);

        order = (unsigned)q_min(q_min(order, q_fls(nr)), Q_MAX_ORDER);
        q_buddy_free(b, page, pfn, order, mobility, to_tail);
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

        for (unsigned m = 0; m < Q_NR_MOBILITIES; m++) {
            const struct q_list *head = &area->free_list[m];

            for (const struct q_list *l = head->next; l != NULL && l != head; l = l->next) {
                const struct q_page *page = q_container_of(l, const struct q_page, lru);

                if (page->type != Q_PAGE_BUDDY || page->order != order || page->mobility != m ||
                    l->next->prev != l)
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
