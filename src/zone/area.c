/* area.c - see area.h. */
#include "zone/area.h"

#include <errno.h>

#include "zone/highmem.h"
#include "zone/page_alloc.h"

#define BUCKETS 1024u

struct q_lock q_area_lock;

static struct q_area *bucket[BUCKETS], *spare;

static struct q_area **bucket_of(uintptr_t addr)
{
    return &bucket[((addr >> 12) * 0x9e3779b97f4a7c15u) >> 54];
}

static struct q_area *new_area(void)
{
    q_lock(&q_area_lock);
    struct q_area *a = spare;
    if (a != NULL)
        spare = a->next;
    q_unlock(&q_area_lock);
    return a != NULL ? a : q_meta_alloc(sizeof(*a));
}

void q_area_done(struct q_area *a)
{
    if (a->pages != NULL)
        q_munmap(a->pages, q_align_up(a->nr * sizeof(*a->pages), q_page_size()));
    q_lock(&q_area_lock);
    a->next = spare;
    spare = a;
    q_unlock(&q_area_lock);
}

static void *enter(struct q_area *a, uintptr_t addr, size_t nr, struct q_page **pages)
{
    struct q_area **head = bucket_of(addr);

    q_lock(&q_area_lock);
    a->addr = addr;
    a->nr = nr;
    a->pages = pages;
    a->next = *head;
    *head = a;
    q_unlock(&q_area_lock);
    return (void *)addr;
}

/* Place for nr pages and a guard on both sides; the address between them. */
static char *place(size_t nr)
{
    char *area = q_reserve((nr + 2) << q_page_shift, q_page_size());

    return area != NULL ? area + q_page_size() : NULL;
}

static void remove_place(uintptr_t addr, size_t nr)
{
    q_munmap((char *)addr - q_page_size(), (nr + 2) << q_page_shift);
}

void *q_area_alloc(size_t bytes, int *error)
{
    size_t nr = (bytes >> q_page_shift) + ((bytes & (q_page_size() - 1)) != 0);

    *error = ENOMEM;
    if (nr >= (size_t)PTRDIFF_MAX >> q_page_shift || !q_charge_outside(nr))
        return NULL;
    struct q_area *a = new_area();
    char *at = a != NULL ? place(nr) : NULL;
    q_keep_to_limit();
    if (at != NULL && q_mprotect(at, nr << q_page_shift, PROT_READ | PROT_WRITE) == 0)
        return enter(a, (uintptr_t)at, nr, NULL);
    if (at != NULL)
        remove_place((uintptr_t)at, nr);
    if (a != NULL) {
        a->pages = NULL;
        q_area_done(a);
    }
    q_uncharge_outside(nr);
    return NULL;
}

/* How many of pages[0..nr) lie in a row, in one section. */
static size_t in_a_row(struct q_page **pages, size_t nr)
{
    const struct q_section *s = q_special_section(pages[0]);
    size_t n = 1, left = ((size_t)1 << Q_MAX_ORDER) - (size_t)(pages[0] - s->pages);

    while (n < q_min(nr, left) && pages[n] == pages[0] + n)
        n++;
    return n;
}

static int show(char *at, struct q_page **pages, size_t nr)
{
    for (size_t i = 0, n; i < nr; i += n) {
        n = in_a_row(pages + i, nr - i);
        int error = q_window_map(at + (i << q_page_shift), pages[i], n);
        if (error != 0)
            return -error;
    }
    return 0;
}

void *q_area_map(struct quire_page *const *pages, size_t nr, int *error)
{
    size_t bytes = q_align_up(nr * sizeof(*pages), q_page_size());
    struct q_area *a = new_area();
    struct q_page **copy = a != NULL ? q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0) : NULL;
    char *at = copy != NULL ? place(nr) : NULL;

    *error = ENOMEM;
    for (size_t i = 0; at != NULL && i < nr; i++)
        copy[i] = (struct q_page *)pages[i];
    if (at != NULL && (*error = show(at, copy, nr)) == 0)
        return enter(a, (uintptr_t)at, nr, copy);
    if (at != NULL)
        remove_place((uintptr_t)at, nr);
    if (a != NULL) {
        a->pages = copy;
        a->nr = nr;
        q_area_done(a);
    }
    return NULL;
}

struct q_area *q_area_remove(const void *p, bool mapped)
{
    struct q_area *a;

    q_lock(&q_area_lock);
    for (struct q_area **link = bucket_of((uintptr_t)p); (a = *link) != NULL; link = &a->next) {
        if (a->addr != (uintptr_t)p || (a->pages != NULL) != mapped)
            continue;
        *link = a->next;
        break;
    }
    q_unlock(&q_area_lock);
    if (a == NULL)
        return NULL;
    remove_place(a->addr, a->nr);
    if (!mapped)
        q_uncharge_outside(a->nr);
    return a;
}

bool q_area_find(const void *p, uintptr_t *addr, size_t *nr, bool *mapped)
{
    bool found = false;

    q_lock(&q_area_lock);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (const struct q_area *a = bucket[i]; a != NULL && !found; a = a->next) {
            if ((uintptr_t)p - (a->addr - q_page_size()) >= (a->nr + 2) << q_page_shift)
                continue;
            *addr = a->addr;
            *nr = a->nr;
            *mapped = a->pages != NULL;
            found = true;
        }
    }
    q_unlock(&q_area_lock);
    return found;
}

void q_area_each(void (*fn)(void *arg, const struct q_area *a), void *arg)
{
    q_lock(&q_area_lock);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct q_area *a = bucket[i]; a != NULL; a = a->next)
            fn(arg, a);
    q_unlock(&q_area_lock);
}
