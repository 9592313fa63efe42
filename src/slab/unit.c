/* unit.c - see unit.h. */
#include "slab/unit.h"

#include <string.h>

#include "base/msg.h"
#include "slab/slub.h"
#include "zone/page_alloc.h"

static struct q_slab *descriptor(size_t pfn)
{
    return q_slab_at((uint32_t)(pfn >> q_slab_order()) + 1);
}

void q_unit_claim(struct q_page *page, enum q_owner_kind kind, const void *owner, void *info)
{
    size_t pfn = q_page_to_pfn(page), end = pfn + page->nr;

    q_assert((pfn & (((size_t)1 << q_slab_order()) - 1)) == 0);
    for (size_t at = pfn; at < end; at += (size_t)1 << q_slab_order()) {
        struct q_slab *unit = descriptor(at);

        __atomic_store_n(&unit->span, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&unit->tag, (uintptr_t)owner, __ATOMIC_RELAXED);
        __atomic_store_n(&unit->mult, (uintptr_t)info, __ATOMIC_RELAXED);
        unit->freelist = q_page_address(page);
        unit->in_use = 0;
        /* A heap that ends looks for slabs that it owns: this is none. */
        atomic_store_explicit(&unit->remote, 0, memory_order_relaxed);
    }
    page->private = kind;
    q_page_set_owned(page);
}

void q_unit_disown(const struct q_page *page)
{
    size_t pfn = q_page_to_pfn(page), end = pfn + page->nr;

    for (size_t at = pfn; at < end; at += (size_t)1 << q_slab_order())
        __atomic_store_n(&descriptor(at)->tag, 0, __ATOMIC_RELAXED);
}

void q_unit_release(struct q_page *page)
{
    q_unit_disown(page);
    q_page_set_plain(page);
    q_free_run(page);
}

struct q_page *q_unit_page(const void *p)
{
    struct q_page *page = q_virt_to_page(p);

    if (page == NULL)
        return NULL;
    /* The unit's first page is the run's, or lies inside it and the descriptor knows the run's. */
    size_t pfn = q_align_down(q_page_to_pfn(page), (size_t)1 << q_slab_order());
    const struct q_slab *unit = descriptor(pfn);
    struct q_page *head = q_pfn_to_page(pfn);

    if (q_page_type_of(head) == Q_PAGE_NONE) {
        head = q_virt_to_page(q_unit_start(unit));
        if (head == NULL || q_unit_owner(unit) == NULL)
            return NULL;
    }
    /* Racy for an address that belongs to nobody who asks; then it only leads to a message. */
    if (q_page_type_of(head) != Q_PAGE_RUN || !q_page_is_owned(head) ||
        q_page_to_pfn(page) - q_page_to_pfn(head) >= __atomic_load_n(&head->nr, __ATOMIC_RELAXED))
        return NULL;
    return head;
}

struct q_slab *q_unit_of(const void *p)
{
    return descriptor(q_virt_to_pfn(p));
}

void *q_inner_alloc(size_t bytes)
{
    void *p = q_slub_pop(q_heap_class(q_heap, bytes));

    return p != NULL ? memset(p, 0, bytes) : NULL;
}

void q_inner_free(void *p)
{
    enum q_free_result r = q_slub_free(q_slab_of(p), p);

    q_assert(r == Q_FREED);
    (void)r;
}
