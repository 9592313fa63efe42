/* page_ref.c - see page_ref.h. */
#include "zone/page_ref.h"

#include "base/msg.h"
#include "zone/special.h"

struct q_page *q_page_at(const void *p)
{
    size_t off = (uintptr_t)p - (uintptr_t)q_mem.mem_map;
    size_t pfn = off / sizeof(struct q_page);

    if (pfn >= q_mem.max_pages && q_special_section(p) != NULL)
        return (struct q_page *)p;
    if (off % sizeof(struct q_page) != 0 || pfn >= q_mem.max_pages || !q_pfn_online(pfn))
        return NULL;
    return q_pfn_to_page(pfn);
}

/*
 * The head of the run that holds page, if it stands as counted ones do; NULL where there is none.
 *
 * Struct pages of a largest block begin at a multiple of what they take
 * together, in the memory map as in the special zones, so aligning the
 * pointer is aligning the frame number.
 *
 * A page that the caller holds is found at once or after steps inside its own
 * run, whose words nobody changes meanwhile. For any other page the words may
 * be changing: the answer may be stale, and leads to a complaint at most.
 */
static struct q_page *aligned_run(struct q_page *page)
{
    for (unsigned order = 0; order <= Q_MAX_ORDER; order++) {
        size_t block = sizeof(*page) << order;
        struct q_page *head = (struct q_page *)q_align_down((uintptr_t)page, block);
        unsigned type = q_page_type_of(head);

        if (type == Q_PAGE_NONE)
            continue;
        if (type != Q_PAGE_RUN ||
            (size_t)(page - head) >= __atomic_load_n(&head->nr, __ATOMIC_RELAXED))
            return NULL;
        return head;
    }
    return NULL;
}

/* malloc's runs stand anywhere in a largest block (page_alloc.c): the head is the next below. */
size_t q_page_set_moved(struct q_page *page)
{
    size_t before = q_page_to_pfn(page) & (((size_t)1 << Q_MAX_ORDER) - 1);
    struct q_page *head = page;

    while (q_page_type_of(head) == Q_PAGE_NONE && before-- > 0)
        head--;
    /* Relaxed, the length too: as in aligned_run(). */
    unsigned type = q_page_type_of(head);
    size_t nr = __atomic_load_n(&head->nr, __ATOMIC_RELAXED), at = (size_t)(page - head);

    if ((type != Q_PAGE_SLAB && type != Q_PAGE_RUN) || at >= nr)
        return 1;
    /* Relaxed: whoever frees it, or unpins it, comes after its owner's call. */
    __atomic_fetch_or(&head->flags, Q_PAGE_MOVED, __ATOMIC_RELAXED);
    return nr - at;
}

struct q_page *q_page_head(struct q_page *page)
{
    struct q_page *head = aligned_run(page);

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

void q_split_pages(struct q_page *page)
{
    q_assert(q_page_is_counted(page));
    for (size_t i = page->nr; i-- > 0;) {
        page[i].nr = 1;
        page[i].flags |= page->flags & Q_PAGE_MOVED;
        q_page_set_counted(&page[i]);
        q_page_set_type(&page[i], Q_PAGE_RUN);
    }
}

void q_split_run(struct q_page *page)
{
    struct q_zone *zone = q_pfn_zone(q_page_to_pfn(page));

    q_lock(&zone->lock);
    q_split_pages(page);
    q_unlock(&zone->lock);
}
