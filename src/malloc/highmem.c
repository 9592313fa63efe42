/*
 * highmem.c - kmap, kmap_local, fixmap for programs: see quire/highmem.h.
 *
 * Each mapping holds a reference, so that no page is freed under a window. A
 * thread's stack of windows goes by the number of its heap, which another
 * thread takes over when the thread ends; what was left mapped is unmapped
 * then. It is changed inside q_enter(), so that no signal handler finds it half
 * changed, and maps something of its own in the same window.
 */
#include "quire/highmem.h"

#include <errno.h>

#include "base/msg.h"
#include "malloc/malloc.h"
#include "malloc/pages.h"
#include "zone/highmem.h"

_Static_assert(QUIRE_NR_KMAP == Q_NR_KMAP && QUIRE_NR_KMAP_LOCAL == Q_NR_LOCAL &&
                   QUIRE_NR_FIXMAP == Q_NR_FIXMAP,
               "the same");

static void *fail(int error)
{
    errno = error;
    return NULL;
}

/* Hold the page that is to be mapped; NULL after complaining. */
static struct q_page *hold(const char *caller, const struct quire_page *outer)
{
    struct q_page *head = q_page_head_of(caller, outer);

    if (head == NULL || !q_page_get(head)) {
        if (head != NULL)
            q_misuse_page(caller, head);
        return NULL;
    }
    return (struct q_page *)outer;
}

Q_PUBLIC void *quire_kmap(struct quire_page *outer)
{
    int error;

    if (q_interrupted())
        return fail(EAGAIN);
    struct q_page *page = hold("quire_kmap", outer);
    if (page == NULL)
        return fail(EINVAL);
    if (!q_page_is_high(page)) {
        q_page_let_go("quire_kmap", page);
        return q_any_address(page);
    }
    q_enter();
    void *at = q_kmap(page, &error);
    q_leave();
    if (at != NULL)
        return at;
    q_page_let_go("quire_kmap", page);
    return fail(error);
}

Q_PUBLIC void quire_kunmap(struct quire_page *outer)
{
    struct q_page *head = q_page_head_of("quire_kunmap", outer);
    struct q_page *page = (struct q_page *)outer;

    if (head == NULL || !q_page_is_high(page))
        return;
    bool ok = false;
    if (!q_interrupted()) {
        q_enter();
        ok = q_kunmap(page);
        q_leave();
    }
    if (ok)
        q_page_let_go("quire_kunmap", page);
    else
        q_misuse_text("quire_kunmap", outer, "this page is not mapped by quire_kmap()");
}

/* What a thread that is gone left mapped. Inside q_enter(): what is freed by it is freed later. */
static void clear_stack(struct q_local *l, uint64_t life)
{
    while (l->depth > 0) {
        l->depth--;
        q_window_unmap(q_local_window(l, l->depth), 1);
        q_page_let_go("quire_kmap_local", l->page[l->depth]);
        l->page[l->depth] = NULL;
    }
    l->life = life;
}

/* The calling thread's stack of windows, inside q_enter(); NULL: no memory. */
static struct q_local *my_stack(void)
{
    struct q_heap *heap = q_heap_get();
    struct q_local *l = heap != NULL ? q_local_get(heap->id) : NULL;

    if (l != NULL && l->life != heap->exited)
        clear_stack(l, heap->exited);
    return l;
}

/* Let the page appear in the next window. What the window showed last may be the same. 0, or errno. */
static int push(struct q_local *l, struct q_page *page)
{
    if (l == NULL)
        return ENOMEM;
    if (l->depth == Q_NR_LOCAL)
        return EBUSY;
    int error = l->page[l->depth] == page ? 0 : q_window_map(q_local_window(l, l->depth), page, 1);

    if (error != 0) {
        q_window_unmap(q_local_window(l, l->depth), 1);
        l->page[l->depth] = NULL;
        return -error;
    }
    l->page[l->depth++] = page;
    return 0;
}

Q_PUBLIC void *quire_kmap_local(struct quire_page *outer)
{
    if (q_interrupted())
        return fail(EAGAIN);
    struct q_page *page = hold("quire_kmap_local", outer);
    if (page == NULL)
        return fail(EINVAL);
    if (!q_page_is_high(page)) {
        q_page_let_go("quire_kmap_local", page);
        return q_any_address(page);
    }
    q_enter();
    struct q_local *l = my_stack();
    int error = push(l, page);
    void *at = error == 0 ? q_local_window(l, l->depth - 1) : NULL;
    q_leave();
    if (error == 0)
        return at;
    q_page_let_go("quire_kmap_local", page);
    return fail(error);
}

static void complain_local(const struct q_local *l, const void *addr)
{
    char text[160];
    struct q_buf b = {.at = text, .size = sizeof(text)};
    bool mine;

    if (q_any_page(addr) != NULL)
        return; /* a page with an address of its own */
    if (!q_local_holds(l, addr, &mine)) {
        q_buf_printf(&b, "not an address that quire_kmap_local() gave");
    } else if (!mine || l == NULL) {
        q_buf_printf(&b, "in a window of another thread");
    } else if (l->depth == 0) {
        q_buf_printf(&b, "this thread has nothing mapped");
    } else {
        q_buf_printf(&b, "out of order: the last one mapped is %p",
                     (const void *)q_local_window(l, l->depth - 1));
    }
    q_misuse_text("quire_kunmap_local", addr, text);
}

Q_PUBLIC void quire_kunmap_local(const void *addr)
{
    struct q_heap *heap = q_heap;
    struct q_local *l = heap->id != 0 ? q_local_get(heap->id) : NULL;
    bool last = l != NULL && l->life == heap->exited && l->depth > 0 &&
                (uintptr_t)addr - (uintptr_t)q_local_window(l, l->depth - 1) < q_page_size();

    if (!last) {
        complain_local(l, addr);
        return;
    }
    q_enter();
    struct q_page *page = l->page[--l->depth];
    /* It may rest there, unless it is secret, or somebody wants to know who still uses it. */
    bool secret = q_special_kind(q_special_section(page)) == Q_SPECIAL_SECRET;
    if (Q_CHECKS || secret) {
        q_window_unmap(q_local_window(l, l->depth), 1);
        l->page[l->depth] = NULL;
    }
    q_leave();
    q_page_let_go("quire_kunmap_local", page);
}

Q_PUBLIC void *quire_fix_to_virt(unsigned slot)
{
    if (slot >= Q_NR_FIXMAP)
        return fail(EINVAL);
    if (q_interrupted())
        return fail(EAGAIN);
    q_enter();
    void *at = q_slub_init() ? q_fixmap_address(slot) : NULL;
    q_leave();
    return at != NULL ? at : fail(ENOMEM);
}

Q_PUBLIC void *quire_set_fixmap(unsigned slot, struct quire_page *outer)
{
    struct q_page *before = NULL, *page = NULL;
    void *at = quire_fix_to_virt(slot);

    if (at == NULL)
        return NULL;
    if (outer != NULL && (page = hold("quire_set_fixmap", outer)) == NULL)
        return fail(EINVAL);
    q_enter();
    int error = page != NULL && !q_page_is_high(page) ? -EINVAL : q_fixmap_set(slot, page, &before);
    q_leave();
    if (before != NULL)
        q_page_let_go("quire_set_fixmap", before);
    if (error == 0)
        return at;
    if (page != NULL)
        q_page_let_go("quire_set_fixmap", page);
    return fail(-error);
}

Q_PUBLIC int quire_page_file(const struct quire_page *outer, int *fd, off_t *offset)
{
    struct q_page *page = (struct q_page *)outer;

    if (q_page_head_of("quire_page_file", outer) == NULL || !q_page_is_high(page)) {
        errno = EINVAL;
        return -1;
    }
    const struct q_section *s = q_special_section(page);
    *fd = s->fd;
    *offset = (off_t)(s->offset + ((size_t)(page - s->pages) << q_page_shift));
    return 0;
}
