/* page_ref.c - see page_ref.h. */
#include "zone/page_ref.h"

#include "base/msg.h"

struct q_page *q_page_at(const void *p)
{
    size_t off = (uintptr_t)p - (uintptr_t)q_mem.mem_map;
    size_t pfn = off / sizeof(struct q_page);

    if (off % sizeof(struct q_page) != 0 || pfn >= q_mem.max_pages || !q_pfn_online(pfn))
        return NULL;
    return q_pfn_to_page(pfn);
}

/*
 * A page that the caller holds is found at once or after steps inside its own
 * run, whose words nobody changes meanwhile. For any other page the words may
 * be changing: the answer may be stale, and leads to a complaint at most.
 */
struct q_page *q_page_run(struct q_page *page)
{
    size_t pfn = q_page_to_pfn(page);

    for (unsigned order = 0; order <= Q_MAX_ORDER; order++) {
        size_t first = q_align_down(pfn, (size_t)1 << order);
        struct q_page *head = q_pfn_to_page(first);
        unsigned type = __atomic_load_n(&head->type, __ATOMIC_RELAXED);

        if (type == Q_PAGE_NONE)
            continue;
        if (type != Q_PAGE_RUN || pfn - first >= __atomic_load_n(&head->nr, __ATOMIC_RELAXED))
            return NULL;
        return head;
    }
    return NULL;
}

struct q_page *q_page_head(struct q_page *page)
{
    struct q_page *head = q_page_run(page);

    return head != NULL && q_page_is_counted(head) && q_page_count(head) > 0 ? head : NULL;
}

uint32_t q_page_count(const struct q_page *head)
{
    /* Relaxed: a number for people, or for a caller that knows who else holds the page. */
    return __atomic_load_n(&head->refcount, __ATOMIC_RELAXED) & Q_PAGE_COUNT_MAX;
}

bool q_page_get(struct q_page *head)
{
    uint32_t old = __atomic_load_n(&head->refcount, __ATOMIC_RELAXED);

    do {
        if ((old & Q_PAGE_COUNTED) == 0 || (old & Q_PAGE_COUNT_MAX) == 0 ||
            (old & Q_PAGE_COUNT_MAX) == Q_PAGE_COUNT_MAX)
            return false;
        /* Relaxed: who gets a reference has one already, or a lock that keeps one alive. */
    } while (!__atomic_compare_exchange_n(&head->refcount, &old, old + 1, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

enum q_put q_page_put(struct q_page *head)
{
    uint32_t old = __atomic_load_n(&head->refcount, __ATOMIC_RELAXED);

    do {
        if ((old & Q_PAGE_COUNTED) == 0 || (old & Q_PAGE_COUNT_MAX) == 0)
            return Q_PUT_NONE;
        /*
         * Release: what this holder did with the page comes before its freeing. Acquire: so does,
         * for whoever drops the last one, what all others did.
         */
    } while (!__atomic_compare_exchange_n(&head->refcount, &old, old - 1, true, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return (old & Q_PAGE_COUNT_MAX) == 1 ? Q_PUT_LAST : Q_PUT_KEPT;
}

void q_split_run(struct q_page *page)
{
    struct q_zone *zone = q_pfn_zone(q_page_to_pfn(page));

    q_assert(q_page_is_counted(page));
    /* Under the lock walkers see either one run or all the single pages. */
    q_lock(&zone->lock);
    for (size_t i = page->nr; i-- > 0;) {
        page[i].nr = 1;
        page[i].flags = page->flags;
        q_page_set_counted(&page[i]);
        /* Relaxed, but whole: read by q_page_head() of others without the lock. */
        __atomic_store_n(&page[i].type, Q_PAGE_RUN, __ATOMIC_RELAXED);
    }
    q_unlock(&zone->lock);
}
