/* area.c - vmalloc and vmap for programs: see quire/highmem.h and zone/area.h. */
#include "zone/area.h"

#include <errno.h>

#include "malloc/malloc.h"
#include "malloc/pages.h"
#include "malloc/shrink.h"
#include "quire/highmem.h"
#include "zone/highmem.h"
#include "zone/page_alloc.h"

static void *fail(int error)
{
    errno = error;
    return NULL;
}

/* Enter the allocator, set up; false with errno set. */
static bool begin(void)
{
    if (q_interrupted())
        return fail(EAGAIN);
    q_enter();
    if (q_slub_init())
        return true;
    q_leave();
    return fail(ENOMEM);
}

Q_PUBLIC void *quire_vmalloc(size_t bytes)
{
    unsigned tries = 0;
    void *at;
    int error;

    if (bytes == 0)
        return fail(EINVAL);
    do {
        if (!begin())
            return NULL;
        at = q_area_alloc(bytes, &error);
        if (at == NULL && q_last_resort(bytes >> q_page_shift))
            at = q_area_alloc(bytes, &error);
        q_leave();
    } while (at == NULL && q_memory_is_short(bytes, &tries));
    return at != NULL ? at : fail(error);
}

/* Drop a reference to each of pages[0..nr). */
static void drop_all(const char *caller, struct q_page *const *pages, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        q_page_let_go(caller, pages[i]);
}

/* Hold each of pages[0..nr), all of which must be such as can be mapped. */
static bool hold_all(struct quire_page *const *pages, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        struct q_page *head = q_page_head_of("quire_vmap", pages[i]);

        if (head == NULL || !q_page_is_high(head) || !q_page_get(head)) {
            drop_all("quire_vmap", (struct q_page *const *)pages, i);
            return false;
        }
    }
    return true;
}

Q_PUBLIC void *quire_vmap(struct quire_page *const *pages, size_t nr)
{
    int error;

    if (nr == 0 || nr > (size_t)PTRDIFF_MAX >> q_page_shift)
        return fail(EINVAL);
    if (q_interrupted())
        return fail(EAGAIN);
    if (!hold_all(pages, nr))
        return fail(EINVAL);
    q_enter();
    void *at = q_area_map(pages, nr, &error);
    q_leave();
    if (at != NULL)
        return at;
    drop_all("quire_vmap", (struct q_page *const *)pages, nr);
    return fail(error);
}

/* Remove the area at addr, by the function for its kind. Keeps errno. */
static void end(const char *caller, const void *addr, bool mapped)
{
    int saved = errno;
    struct q_area *a = NULL;

    if (addr == NULL)
        return;
    if (!q_interrupted()) {
        q_enter();
        a = q_area_remove(addr, mapped);
        q_leave();
    }
    if (a != NULL && mapped)
        drop_all(caller, a->pages, a->nr);
    if (a != NULL)
        q_area_done(a);
    else
        q_misuse_area(caller, addr);
    errno = saved;
}

Q_PUBLIC void quire_vunmap(const void *addr)
{
    end("quire_vunmap", addr, true);
}

Q_PUBLIC void quire_vfree(const void *addr)
{
    end("quire_vfree", addr, false);
}
