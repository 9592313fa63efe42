/* movable.c - see movable.h: handles, pins, and dropping what may be dropped. */
#include "zone/movable.h"

#include "base/msg.h"
#include "zone/page_alloc.h"
#include "zone/page_ref.h"

#define FIRST_CHUNK 64u /* handles; each chunk has twice as many as the one before */
#define NR_CHUNKS 24u

struct q_lock q_movable_lock;

static struct q_movable *chunk[NR_CHUNKS];
static uint32_t nr_handles; /* ever made */
static uint32_t nr_runs;    /* that are discardable, pinned or not */
static struct q_movable *spare;
static uint32_t hand; /* where the next look for something to drop begins */
static size_t changes;

static unsigned chunk_of(uint32_t number)
{
    return q_fls(number / FIRST_CHUNK + 1);
}

static uint32_t chunk_first(unsigned k)
{
    return FIRST_CHUNK * ((1u << k) - 1);
}

static struct q_movable *handle_at(uint32_t number)
{
    unsigned k = chunk_of(number);

    return chunk[k] + (number - chunk_first(k));
}

/* True where h points to a handle in use; the lock is held. */
static bool is_handle(const struct q_movable *h)
{
    for (unsigned k = 0; k < NR_CHUNKS; k++) {
        size_t off = (uintptr_t)h - (uintptr_t)chunk[k];

        if (chunk[k] == NULL || off >= (size_t)(FIRST_CHUNK << k) * sizeof(*h))
            continue;
        return off % sizeof(*h) == 0 && h->live;
    }
    return false;
}

/* A handle that is not in use; the lock is held. */
static struct q_movable *new_handle(void)
{
    struct q_movable *h = spare;
    unsigned k = chunk_of(nr_handles);

    if (h != NULL) {
        spare = h->spare;
        return h;
    }
    if (k >= NR_CHUNKS)
        return NULL;
    if (chunk_first(k) == nr_handles) {
        chunk[k] = q_meta_alloc((size_t)(FIRST_CHUNK << k) * sizeof(*h));
        if (chunk[k] == NULL)
            return NULL;
    }
    h = handle_at(nr_handles);
    h->number = nr_handles++;
    return h;
}

bool q_movable_open(const struct q_movable *h, struct q_page *page, bool open)
{
    int prot = open ? PROT_READ | PROT_WRITE : PROT_NONE;

    if ((h->flags & Q_MOVABLE_STRICT) == 0)
        return true;
    return q_mprotect(q_page_address(page), (size_t)h->nr << q_page_shift, prot) == 0;
}

/* A handle has got a run, or lost one; the lock is held. */
static void count_run(const struct q_movable *h, uint32_t by)
{
    /* Relaxed: read without the lock as a hint. */
    if ((h->flags & Q_MOVABLE_DISCARDABLE) != 0)
        __atomic_store_n(&nr_runs, nr_runs + by, __ATOMIC_RELAXED);
}

/* The run at page belongs to h from now on. */
static void bind(struct q_movable *h, struct q_page *page)
{
    h->page = page;
    /* Relaxed: compact.c looks under the zone's lock, and asks the handle before it believes it. */
    __atomic_store_n(&page->private, h->number + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&page->refcount, Q_PAGE_HANDLED, __ATOMIC_RELAXED);
}

static struct q_page *fetch(size_t nr, bool zero)
{
    return q_alloc_run(Q_GFP_MOVABLE | (zero ? Q_GFP_ZERO : 0), nr);
}

/* Free a run that is nobody's any more. Where it cannot be made accessible it is lost. */
static void release(const struct q_movable *h, struct q_page *page)
{
    if (!q_movable_open(h, page, true))
        return;
    q_page_set_plain(page);
    q_free_run(page);
}

struct q_movable *q_movable_alloc(size_t nr, unsigned flags)
{
    struct q_page *page = fetch(nr, (flags & Q_MOVABLE_ZERO) != 0);

    if (page == NULL)
        return NULL;
    q_lock(&q_movable_lock);
    struct q_movable *h = new_handle();
    if (h != NULL) {
        h->nr = (uint32_t)nr;
        h->pins = 0;
        h->flags = (uint8_t)(flags | (Q_CHECKS ? Q_MOVABLE_STRICT : 0));
        h->lost = false;
        h->used = true;
        h->live = true;
        bind(h, page);
        count_run(h, 1);
        q_movable_open(h, page, false);
        changes++;
    }
    q_unlock(&q_movable_lock);
    if (h == NULL)
        q_free_run(page);
    return h;
}

/* A handle that has no run and is to be pinned: get one, and look again. */
static enum q_pin refill(struct q_movable *h, size_t nr)
{
    struct q_page *page = fetch(nr, true);

    if (page == NULL)
        return Q_PIN_NO_MEMORY;
    q_lock(&q_movable_lock);
    bool take = is_handle(h) && h->page == NULL && h->nr == nr;
    if (take) {
        bind(h, page);
        count_run(h, 1);
        q_movable_open(h, page, false);
        changes++;
    }
    q_unlock(&q_movable_lock);
    if (!take)
        q_free_run(page);
    return Q_PIN_OK;
}

/* The lock is held, and there is a run. */
static enum q_pin pin(struct q_movable *h, void **at, bool *lost)
{
    if (h->pins == UINT32_MAX)
        return Q_PIN_WRONG;
    if (h->pins == 0 && !q_movable_open(h, h->page, true))
        return Q_PIN_NO_MEMORY;
    h->pins++;
    h->used = true;
    *lost = h->lost;
    h->lost = false;
    *at = q_page_address(h->page);
    return Q_PIN_OK;
}

enum q_pin q_movable_pin(struct q_movable *h, void **at, bool *lost)
{
    for (;;) {
        enum q_pin result = Q_PIN_NO_HANDLE;
        size_t nr = 0;

        q_lock(&q_movable_lock);
        if (is_handle(h) && h->page == NULL)
            nr = h->nr;
        else if (is_handle(h))
            result = pin(h, at, lost);
        q_unlock(&q_movable_lock);
        if (nr == 0)
            return result;
        if ((result = refill(h, nr)) != Q_PIN_OK)
            return result;
    }
}

enum q_pin q_movable_unpin(struct q_movable *h)
{
    enum q_pin result = Q_PIN_NO_HANDLE;

    q_lock(&q_movable_lock);
    if (is_handle(h)) {
        result = h->pins > 0 ? Q_PIN_OK : Q_PIN_WRONG;
        if (h->pins > 0 && --h->pins == 0)
            q_movable_open(h, h->page, false);
    }
    q_unlock(&q_movable_lock);
    return result;
}

enum q_pin q_movable_free(struct q_movable *h)
{
    enum q_pin result = Q_PIN_NO_HANDLE;
    struct q_movable then = {.page = NULL};

    q_lock(&q_movable_lock);
    if (is_handle(h)) {
        result = h->pins > 0 ? Q_PIN_WRONG : Q_PIN_OK;
        if (h->pins == 0) {
            then = *h;
            if (h->page != NULL)
                count_run(h, -1u);
            h->live = false;
            h->page = NULL;
            h->spare = spare;
            spare = h;
            changes++;
        }
    }
    q_unlock(&q_movable_lock);
    if (then.page != NULL)
        release(&then, then.page);
    return result;
}

size_t q_movable_pages(const struct q_movable *h)
{
    q_lock(&q_movable_lock);
    size_t nr = is_handle(h) ? h->nr : 0;
    q_unlock(&q_movable_lock);
    return nr;
}

static bool droppable(const struct q_movable *h)
{
    return h->live && h->pins == 0 && h->page != NULL && (h->flags & Q_MOVABLE_DISCARDABLE) != 0;
}

/* Every handle twice: what was used since the last time gets one more chance. */
size_t q_movable_shrink(size_t nr)
{
    size_t given = 0;

    /* Relaxed: a program that has none pays for one load. */
    if (__atomic_load_n(&nr_runs, __ATOMIC_RELAXED) == 0)
        return 0;
    q_lock(&q_movable_lock);
    uint32_t all = nr_handles;
    for (uint32_t n = 0; n < 2 * all && given < nr && nr_runs > 0; n++) {
        struct q_movable *h = handle_at(hand);

        hand = (hand + 1) % all;
        if (!droppable(h))
            continue;
        if (h->used) {
            h->used = false;
            continue;
        }
        struct q_page *page = h->page;
        h->page = NULL;
        h->lost = true;
        count_run(h, -1u);
        given += h->nr;
        changes++;
        release(h, page);
    }
    q_unlock(&q_movable_lock);
    return given;
}

size_t q_movable_droppable(void)
{
    size_t n = 0;

    q_lock(&q_movable_lock);
    for (uint32_t i = 0; i < nr_handles; i++)
        n += droppable(handle_at(i)) ? handle_at(i)->nr : 0;
    q_unlock(&q_movable_lock);
    return n;
}

struct q_movable *q_movable_grab(const struct q_page *page)
{
    q_lock(&q_movable_lock);
    /* Relaxed: whether it is right is what the rest finds out. */
    uint32_t number = __atomic_load_n(&page->private, __ATOMIC_RELAXED) - 1;
    struct q_movable *h = number < nr_handles ? handle_at(number) : NULL;
    if (h != NULL && h->live && h->page == page && h->pins == 0)
        return h;
    q_unlock(&q_movable_lock);
    return NULL;
}

void q_movable_moved(struct q_movable *h, struct q_page *to)
{
    bind(h, to);
    changes++;
}

void q_movable_ungrab(void)
{
    q_unlock(&q_movable_lock);
}

void q_movable_reach(bool open)
{
    for (uint32_t i = 0; i < nr_handles; i++) {
        const struct q_movable *h = handle_at(i);

        if (h->live && h->page != NULL && h->pins == 0)
            q_movable_open(h, h->page, open);
    }
}

size_t q_movable_changes(void)
{
    return __atomic_load_n(&changes, __ATOMIC_RELAXED);
}
