/*
 * branch.c - writable copies of a snapshot at another address.
 *
 *   heap      [ range ]        [ range ]
 *   branch a  [ missing | own | missing  ]   filled on first touch, then the branch's own
 *   branch b  [ own | missing            ]
 *
 * As a view (view.c), but for writing too, and as many as one likes. The
 * handler fills a missing page from the snapshot, so a page that is not
 * touched costs nothing. What lies between the stretches is zeroes.
 *
 * Locks: the list of branches is q_store.lock's, under which the handler
 * looks for one; a snapshot's count of branches is api_lock's.
 */
#include "quire/branch.h"
#include "cow/cow.h"
#include "cow/own.h"

#define BRANCH_MAGIC 0x68636e6172627121ull

struct quire_branch {
    uint64_t magic;
    int pid;
    struct quire_snapshot *snapshot;
    struct quire_branch *next;
    char *map;
    size_t bytes;
    uintptr_t lowest;     /* address in the heap of where map begins */
    _Atomic size_t pages; /* filled; written under q_store.lock */
};

static struct quire_branch *branches; /* under q_store.lock */

static size_t own_size(void)
{
    return q_align_up(sizeof(struct quire_branch), q_page_size());
}

static int check(const struct quire_branch *b)
{
    if (b == NULL || b->magic != BRANCH_MAGIC)
        return EINVAL;
    return b->pid == q_getpid() ? 0 : ESTALE;
}

bool q_branch_fault(uintptr_t at, char *page)
{
    struct quire_branch *b = branches;

    /* Of a parent's branches, in a child, nothing was inherited. */
    while (b != NULL && (at - (uintptr_t)b->map >= b->bytes || b->pid != q_cow.pid))
        b = b->next;
    if (b == NULL)
        return false;
    uintptr_t addr = at - (uintptr_t)b->map + b->lowest;
    bool inside = q_ranges_find(&b->snapshot->ranges, addr) != NULL;
    if (inside && q_view_waits(b->snapshot, addr))
        return true;
    long ret = inside ? q_snapshot_copy(b->snapshot, addr, page, q_page_size()) : 0;
    if (ret == 0)
        ret = q_uffd_fill(&q_cow.uffd, at, inside ? page : NULL);
    if (ret == 0) {
        /* Relaxed: a number for people. */
        atomic_fetch_add_explicit(&b->pages, 1, memory_order_relaxed);
        return true;
    }
    /* That page is lost, and only that: the rest may have been written to. */
    if (ret != -EEXIST)
        q_mprotect((void *)at, q_page_size(), PROT_NONE);
    q_uffd_wake(&q_cow.uffd, at, q_page_size());
    return true;
}

/* api_lock held. 0 or an errno. */
static int map_branch(struct quire_branch *b)
{
    const struct q_ranges *r = &b->snapshot->ranges;
    const char *why;

    if (q_cow_gone(b->snapshot) != 0)
        return EFAULT;
    if (r->nr == 0 || q_cow_start(&why) != 0)
        return ENOTSUP;
    b->lowest = r->at[0].start;
    b->bytes = r->at[r->nr - 1].end - b->lowest;
    b->map = q_mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_NORESERVE);
    if (b->map == NULL)
        return ENOMEM;
    /* A child would read zeroes where nothing was touched yet. A huge page would be filled with them. */
    if (q_madvise(b->map, b->bytes, MADV_DONTFORK) != 0 ||
        q_uffd_register(&q_cow.uffd, (uintptr_t)b->map, b->bytes, UFFDIO_REGISTER_MODE_MISSING) !=
            0) {
        q_munmap(b->map, b->bytes);
        return ENOTSUP;
    }
    q_madvise(b->map, b->bytes, MADV_NOHUGEPAGE);
    return 0;
}

/* q_store.lock held, here and below. */
static uintptr_t link_branch(uintptr_t branch, uintptr_t unused)
{
    struct quire_branch *b = (struct quire_branch *)branch;

    b->next = branches;
    branches = b;
    return 0;
}

static uintptr_t unlink_branch(uintptr_t branch, uintptr_t unused)
{
    struct quire_branch **at = &branches;

    while (*at != NULL && *at != (struct quire_branch *)branch)
        at = &(*at)->next;
    if (*at != NULL)
        *at = (*at)->next;
    return 0;
}

static void change_list(uintptr_t (*fn)(uintptr_t a, uintptr_t b), struct quire_branch *b)
{
    uint64_t mask = q_signals_block();

    q_own_run(fn, (uintptr_t)b, 0);
    q_signals_restore(mask);
}

Q_PUBLIC quire_branch_t *quire_branch(quire_snapshot_t *s)
{
    int error = q_snapshot_check(s);
    struct quire_branch *b = NULL;

    if (error == 0)
        error = q_cow_error(s);
    if (error == 0) {
        b = q_mmap(NULL, own_size(), PROT_READ | PROT_WRITE, 0);
        error = b != NULL ? 0 : ENOMEM;
    }
    if (error == 0) {
        *b = (struct quire_branch){.magic = BRANCH_MAGIC, .pid = q_getpid(), .snapshot = s};
        q_cow_lock_api();
        error = map_branch(b);
        if (error == 0) {
            s->branches++;
            change_list(link_branch, b);
        }
        q_cow_unlock_api();
    }
    if (error == 0)
        return b;
    if (b != NULL)
        q_munmap(b, own_size());
    errno = error;
    return NULL;
}

Q_PUBLIC ptrdiff_t quire_branch_distance(const quire_branch_t *b)
{
    return (ptrdiff_t)((uintptr_t)b->map - b->lowest);
}

Q_PUBLIC void *quire_branch_ptr(const quire_branch_t *b, const void *p)
{
    int error = check(b);

    if (error == 0 && q_ranges_find(&b->snapshot->ranges, (uintptr_t)p) == NULL)
        error = EFAULT;
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return (void *)((uintptr_t)p + (uintptr_t)quire_branch_distance(b));
}

Q_PUBLIC size_t quire_branch_size(const quire_branch_t *b)
{
    return atomic_load_explicit(&b->pages, memory_order_relaxed) << q_page_shift;
}

Q_PUBLIC int quire_branch_error(const quire_branch_t *b)
{
    int error = check(b);

    return error != 0 ? error : q_cow_error(b->snapshot);
}

Q_PUBLIC int quire_branch_release(quire_branch_t *b)
{
    int error = check(b);

    if (error == EINVAL) {
        errno = EINVAL;
        return -1;
    }
    if (error == 0) { /* a forked child has the handle alone */
        struct quire_snapshot *s = b->snapshot;

        change_list(unlink_branch, b);
        q_munmap(b->map, b->bytes);
        q_cow_lock_api();
        bool last = --s->branches == 0 && s->released;
        if (last)
            q_snapshot_end(s);
        q_cow_unlock_api();
    }
    b->magic = 0;
    q_munmap(b, own_size());
    return 0;
}

void q_branch_fork_child(void)
{
    branches = NULL;
}
