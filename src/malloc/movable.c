/* movable.c - memory by handles for programs: see quire/movable.h and zone/movable.h. */
#include "zone/movable.h"

#include <errno.h>

#include "malloc/malloc.h"
#include "malloc/pages.h"
#include "malloc/shrink.h"
#include "quire/movable.h"
#include "zone/compact.h"

#define ALL_FLAGS (QUIRE_MOVABLE_ZERO | QUIRE_MOVABLE_DISCARDABLE | QUIRE_MOVABLE_STRICT)

_Static_assert(QUIRE_MOVABLE_ZERO == Q_MOVABLE_ZERO && QUIRE_MOVABLE_STRICT == Q_MOVABLE_STRICT &&
                   QUIRE_MOVABLE_DISCARDABLE == Q_MOVABLE_DISCARDABLE,
               "the same");

static void *fail(int error)
{
    errno = error;
    return NULL;
}

static struct q_movable *inner(const quire_movable_t *h)
{
    return (struct q_movable *)(uintptr_t)h;
}

Q_PUBLIC quire_movable_t *quire_movable_alloc(size_t bytes, unsigned flags)
{
    q_base_init();
    if (bytes == 0 || bytes > q_max_block_size() || (flags & ~ALL_FLAGS) != 0)
        return fail(EINVAL);
    if (q_interrupted())
        return fail(EAGAIN);
    struct q_movable *h = NULL;
    size_t nr = q_align_up(bytes, q_page_size()) >> q_page_shift;
    unsigned tries = 0;
    do {
        q_enter();
        if (q_slub_init())
            h = q_movable_alloc(nr, flags);
        q_leave();
    } while (h == NULL && q_memory_is_short(bytes, &tries));
    return h != NULL ? (quire_movable_t *)h : fail(ENOMEM);
}

/* What to say about a handle: by what became of the call. */
static void complain(const char *caller, const quire_movable_t *h, enum q_pin result,
                     const char *wrong)
{
    if (result == Q_PIN_NO_HANDLE)
        q_misuse_text(caller, h, "not a handle of quire_movable_alloc(), or already free");
    else if (result == Q_PIN_WRONG)
        q_misuse_text(caller, h, wrong);
}

Q_PUBLIC void *quire_movable_pin(quire_movable_t *h, int *lost)
{
    enum q_pin result;
    void *at = NULL;
    bool dropped = false;

    if (q_interrupted())
        return fail(EAGAIN);
    unsigned tries = 0;
    do {
        q_enter();
        result = q_movable_pin(inner(h), &at, &dropped);
        q_leave();
    } while (result == Q_PIN_NO_MEMORY && q_memory_is_short(q_page_size(), &tries));
    if (result == Q_PIN_OK) {
        if (lost != NULL)
            *lost = dropped;
        return at;
    }
    complain("quire_movable_pin", h, result, "has as many pins as can be counted");
    return fail(result == Q_PIN_NO_MEMORY ? ENOMEM : EINVAL);
}

/* Undo a pin, or all; keeps errno. */
static void end(const char *caller, quire_movable_t *h, enum q_pin (*fn)(struct q_movable *),
                const char *wrong)
{
    int saved = errno;

    if (q_interrupted()) {
        q_misuse_text(caller, h, "in a signal handler that interrupted the allocator");
        return;
    }
    q_enter();
    enum q_pin result = fn(inner(h));
    q_leave();
    complain(caller, h, result, wrong);
    errno = saved;
}

Q_PUBLIC void quire_movable_unpin(quire_movable_t *h)
{
    end("quire_movable_unpin", h, q_movable_unpin, "is not pinned");
}

Q_PUBLIC void quire_movable_free(quire_movable_t *h)
{
    if (h != NULL)
        end("quire_movable_free", h, q_movable_free, "is pinned");
}

Q_PUBLIC size_t quire_movable_size(const quire_movable_t *h)
{
    size_t nr = 0;

    if (!q_interrupted()) {
        q_enter();
        nr = q_movable_pages(inner(h));
        q_leave();
        if (nr == 0)
            complain("quire_movable_size", h, Q_PIN_NO_HANDLE, NULL);
    }
    return nr << q_page_shift;
}

Q_PUBLIC size_t quire_compact(void)
{
    struct q_compacted done = {0, 0};

    if (q_interrupted())
        return 0;
    q_enter();
    if (q_slub_init())
        done = q_compact();
    q_leave();
    return done.pageblocks << Q_PAGEBLOCK_SHIFT;
}
