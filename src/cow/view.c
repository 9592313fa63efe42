/*
 * view.c - a snapshot as memory, at a constant distance from the heap.
 *
 *   heap    [ range ]      [ range ]         [ range ]
 *   view    [ missing, filled on first touch ........ ]
 *            <-------- from the first stretch to the end of the last -------->
 *
 * The view is one mapping for reading, registered for missing pages with the
 * same userfaultfd; the handler fills a page when it is touched first. What
 * lies between the stretches reads as zeroes.
 */
#include "cow/cow.h"
#include "cow/own.h"

#ifndef MADV_DONTFORK
#define MADV_DONTFORK 10
#endif

static uintptr_t lowest(const struct quire_snapshot *s)
{
    return s->ranges.at[0].start;
}

/* Pages wait for nothing that may not come: a lost snapshot's view is closed, and touching it kills. */
static void close_view(struct quire_snapshot *s)
{
    q_mprotect(s->view_map, s->view_bytes, PROT_NONE);
    q_uffd_wake(&q_cow.uffd, (uintptr_t)s->view_map, s->view_bytes);
}

/* What cannot be read in the heap cannot be read in the view: that page alone, where it is only that. */
static void close_page(struct quire_snapshot *s, uintptr_t at, int error)
{
    if (error == EFAULT && q_mprotect((void *)at, q_page_size(), PROT_NONE) == 0)
        q_uffd_wake(&q_cow.uffd, at, q_page_size());
    else
        close_view(s);
}

void q_view_close_all(void)
{
    for (struct quire_snapshot *s = q_cow.views; s != NULL; s = s->next_view)
        close_view(s);
}

bool q_view_waits(const struct quire_snapshot *s, uintptr_t addr)
{
    return s->method == QUIRE_SNAPSHOT_BY_PROTECTION && q_sweep_away(addr, 1) &&
           q_sweep_want_elsewhere(addr);
}

bool q_view_fault(uintptr_t at)
{
    static char page[1 << 16] __attribute__((aligned(64))); /* under q_store.lock */
    struct quire_snapshot *s = q_cow.views;

    while (s != NULL && at - (uintptr_t)s->view_map >= s->view_bytes)
        s = s->next_view;
    if (s == NULL)
        return q_branch_fault(at, page);
    uintptr_t addr = at - (uintptr_t)s->view + lowest(s);
    bool inside = q_ranges_find(&s->ranges, addr) != NULL;
    if (inside && q_view_waits(s, addr))
        return true;
    int error = inside ? q_snapshot_copy(s, addr, page, q_page_size()) : 0;
    if (error != 0) {
        close_page(s, at, error);
        return true;
    }
    long ret = q_uffd_fill(&q_cow.uffd, at, inside ? page : NULL);
    if (ret == -EEXIST)
        q_uffd_wake(&q_cow.uffd, at, q_page_size());
    else if (ret != 0)
        close_view(s);
    return true;
}

/* q_store.lock held, here and below. */
static uintptr_t link_view(uintptr_t snapshot, uintptr_t unused)
{
    struct quire_snapshot *s = (struct quire_snapshot *)snapshot;

    s->next_view = q_cow.views;
    q_cow.views = s;
    return 0;
}

static uintptr_t unlink_view(uintptr_t snapshot, uintptr_t unused)
{
    struct quire_snapshot **at = &q_cow.views;

    while (*at != NULL && *at != (struct quire_snapshot *)snapshot)
        at = &(*at)->next_view;
    if (*at != NULL)
        *at = (*at)->next_view;
    return 0;
}

/* api_lock held. 0 or an errno. */
static int make_view(struct quire_snapshot *s)
{
    const char *why;

    if (s->view != NULL)
        return 0;
    if (q_cow_gone(s) != 0)
        return EFAULT;
    if (s->ranges.nr == 0 || q_cow_start(&why) != 0)
        return ENOTSUP;
    size_t bytes = s->ranges.at[s->ranges.nr - 1].end - lowest(s);
    char *map = q_mmap(NULL, bytes, PROT_READ, MAP_NORESERVE);
    if (map == NULL)
        return ENOMEM;
    /* A child would read zeroes where nothing was touched yet. */
    if (q_madvise(map, bytes, MADV_DONTFORK) != 0 ||
        q_uffd_register(&q_cow.uffd, (uintptr_t)map, bytes, UFFDIO_REGISTER_MODE_MISSING) != 0) {
        q_munmap(map, bytes);
        return ENOTSUP;
    }
    s->view_map = map;
    s->view_bytes = bytes;
    s->view = map;
    uint64_t mask = q_signals_block();
    q_own_run(link_view, (uintptr_t)s, 0);
    q_signals_restore(mask);
    return 0;
}

void q_view_end(struct quire_snapshot *s)
{
    if (s->view == NULL)
        return;
    q_own_run(unlink_view, (uintptr_t)s, 0);
    q_munmap(s->view_map, s->view_bytes);
    s->view = NULL;
}

Q_PUBLIC int quire_snapshot_view(quire_snapshot_t *s, ptrdiff_t *distance)
{
    int error = q_snapshot_check(s);

    if (error == 0)
        error = q_cow_error(s);
    if (error == 0) {
        q_cow_lock_api();
        error = make_view(s);
        q_cow_unlock_api();
    }
    if (error != 0) {
        errno = error;
        return -1;
    }
    *distance = (ptrdiff_t)((uintptr_t)s->view - lowest(s));
    return 0;
}

Q_PUBLIC const void *quire_snapshot_ptr(quire_snapshot_t *s, const void *p)
{
    ptrdiff_t distance;

    if (quire_snapshot_view(s, &distance) != 0)
        return NULL;
    if (q_ranges_find(&s->ranges, (uintptr_t)p) == NULL) {
        errno = EFAULT;
        return NULL;
    }
    return (const void *)((uintptr_t)p + (uintptr_t)distance);
}
