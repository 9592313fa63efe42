/*
 * pageinfo.c - the page interface: from page to address to frame number and
 * back, and what to say about a pointer that is no page, or not such a one.
 *
 * Nothing here takes a lock: it reads words that do not change while the
 * caller holds the page.
 */
#include "malloc/pages.h"

#include "malloc/malloc.h"
#include "numa/topology.h"
#include "zone/highmem.h"

struct q_page *q_page_in(const char *caller, const struct quire_page *page)
{
    struct q_page *inner = q_page_at(page);

    if (inner == NULL)
        q_misuse_no_page(caller, page);
    return inner;
}

static struct q_page *valid_pfn(size_t pfn)
{
    if (pfn >= q_mem.max_pages)
        return q_special_pfn_to_page(pfn);
    return q_pfn_online(pfn) ? q_pfn_to_page(pfn) : NULL;
}

Q_PUBLIC void *quire_page_address(const struct quire_page *page)
{
    struct q_page *inner = q_page_in("quire_page_address", page);

    if (inner == NULL)
        return NULL;
    return q_page_is_high(inner) ? q_kmap_address(inner) : q_any_address(inner);
}

/* Any page, mapped ones included. */
static struct q_page *page_at(const void *addr)
{
    struct q_page *page = q_any_page(addr);

    return page != NULL ? page : q_kmap_page(addr);
}

Q_PUBLIC struct quire_page *quire_virt_to_page(const void *addr)
{
    return q_page_out(page_at(addr));
}

Q_PUBLIC size_t quire_page_to_pfn(const struct quire_page *page)
{
    struct q_page *inner = q_page_in("quire_page_to_pfn", page);

    return inner != NULL ? q_any_pfn(inner) : QUIRE_BAD_PFN;
}

Q_PUBLIC struct quire_page *quire_pfn_to_page(size_t pfn)
{
    return q_page_out(valid_pfn(pfn));
}

Q_PUBLIC size_t quire_virt_to_pfn(const void *addr)
{
    struct q_page *page = page_at(addr);

    return page != NULL ? q_any_pfn(page) : QUIRE_BAD_PFN;
}

Q_PUBLIC void *quire_pfn_to_virt(size_t pfn)
{
    struct q_page *page = valid_pfn(pfn);

    return page != NULL ? q_any_address(page) : NULL;
}

Q_PUBLIC int quire_pfn_valid(size_t pfn)
{
    return valid_pfn(pfn) != NULL;
}

Q_PUBLIC int quire_page_to_nid(const struct quire_page *page)
{
    struct q_page *inner = q_page_in("quire_page_to_nid", page);

    if (inner == NULL || q_page_is_special(inner))
        return -1;
    return q_topology.kernel_id[q_pfn_zone(q_page_to_pfn(inner))->nid];
}

/* The counted head for a program's pointer, without a complaint. */
static struct q_page *quiet_head(const struct quire_page *page)
{
    struct q_page *inner = q_page_at(page);

    return inner != NULL ? q_page_head(inner) : NULL;
}

Q_PUBLIC unsigned quire_page_count(const struct quire_page *page)
{
    struct q_page *head = quiet_head(page);

    return head != NULL ? q_page_count(head) : 0;
}

Q_PUBLIC struct quire_page *quire_compound_head(struct quire_page *page)
{
    return q_page_out(quiet_head(page));
}

Q_PUBLIC size_t quire_compound_nr(const struct quire_page *page)
{
    struct q_page *head = quiet_head(page);

    return head != NULL ? head->nr : 0;
}

Q_PUBLIC unsigned quire_get_order(size_t bytes)
{
    q_base_init();
    size_t least = bytes >> q_page_shift;

    least += (bytes & (q_page_size() - 1)) != 0;
    return q_ceil_log2(q_max(least, 1));
}
