/* slab.c - see slab.h: one slab's life. */
#include "slab/slab.h"

#include "base/msg.h"
#include "base/opt.h"
#include "slab/holes.h"
#include "slab/remote.h"
#include "zone/page_alloc.h"

#define CARVE_BYTES 4096u
#define CARVE_AT_ONCE 8u /* objects, where no page is touched for them */

struct q_slab *q_slab_of(const void *p)
{
    size_t pfn = q_virt_to_pfn(p);

    if (pfn == Q_BAD_PFN || !q_pfn_online(pfn))
        return NULL;
    uint32_t number = (uint32_t)(pfn >> q_slab_order());
    struct q_page *head = q_pfn_to_page((size_t)number << q_slab_order());
    /* Acquire: pairs with q_alloc_slab_pages(); the descriptor is set up once the type says so. */
    if (__atomic_load_n(&head->type, __ATOMIC_ACQUIRE) != Q_PAGE_SLAB)
        return NULL;
    struct q_slab *s = q_slab_at(number + 1);
    return s->in_use ? s : NULL;
}

/* Pages that slabs of each class were seen to fill, lately. A hint: threads may write at once. */
static uint8_t usual[Q_NR_CLASSES];

static unsigned usual_pages(unsigned cls)
{
    return __atomic_load_n(&usual[cls], __ATOMIC_RELAXED);
}

/* Up at once, down by and by. */
static void learn_usual(unsigned cls, unsigned pages)
{
    unsigned u = usual_pages(cls);

    u = pages >= u ? pages : u - (u - pages + 3) / 4;
    __atomic_store_n(&usual[cls], (uint8_t)u, __ATOMIC_RELAXED);
}

struct q_slab *q_slab_create(unsigned cls, bool first)
{
    /* The first slab of a thread's class may remain nearly empty, later ones will not. */
    unsigned want = first ? usual_pages(cls) : Q_SLAB_SIZE >> q_page_shift, written;
    struct q_page *page = q_alloc_slab_pages((unsigned)q_max(want, 1), &written);

    if (page == NULL)
        return NULL;
    page->private = written;
    struct q_slab *s = q_slab_at((uint32_t)(q_page_to_pfn(page) >> q_slab_order()) + 1);

    /* The epoch goes on from the slab's last life, so that old keys in its memory are not today's. */
    s->epoch = (uint16_t)(s->epoch + 1u < q_min(q_classes[cls].excess, 65535) ? s->epoch + 1 : 0);
    /* Relaxed: whoever frees a mapping may look here, see q_slab_mine(). */
    __atomic_store_n(&s->mult, q_classes[cls].mult, __ATOMIC_RELAXED);
    __atomic_store_n(&s->span, 0, __ATOMIC_RELAXED);
    s->freelist = NULL;
    s->used = 0;
    s->debt = 0;
    s->next = s->prev = 0;
    s->carved = 0;
    s->holes = 0;
    s->cls = (uint8_t)cls;
    s->flags = 0;
    atomic_store_explicit(&s->remote, 0, memory_order_relaxed);
    s->in_use = 1;
    return s;
}

/* Pages at the start of the slab that hold carved objects. */
static unsigned carved_pages(const struct q_slab *s)
{
    size_t bytes = (size_t)s->carved * q_slab_class(s)->size;

    return (unsigned)(q_align_up(bytes, q_page_size()) >> q_page_shift);
}

void q_slab_destroy(struct q_slab *s)
{
    struct q_page *page = q_slab_page(s);
    unsigned written = (unsigned)q_max(page->private, carved_pages(s));

    q_assert((s->flags & (Q_SLAB_PARTIAL | Q_SLAB_CURRENT)) == 0);
    atomic_fetch_sub_explicit(&q_pages_carved,
                              carved_pages(s) - (unsigned)__builtin_popcount(s->holes),
                              memory_order_relaxed);
    if (s->carved > 0)
        learn_usual(s->cls, carved_pages(s));
    q_slab_disarm(s);
    s->in_use = 0;
    /* Relaxed: nobody owns it, whoever looks before the pages are somebody else's, or after. */
    atomic_store_explicit(&s->remote, 0, memory_order_relaxed);
    q_free_slab_pages(page, written);
}

void q_slab_arm(struct q_slab *s, uintptr_t tp, bool fast)
{
    const struct q_class *k = q_slab_class(s);
    uint64_t shift = (1ull << 63) - (uint64_t)s->carved * k->excess + s->epoch;

    __atomic_store_n(&s->tag, (uintptr_t)q_slab_start(s) + Q_TP_FACTOR * tp - shift * k->inv,
                     __ATOMIC_RELAXED);
    fast &= s->holes == 0; /* see holes.h */
    __atomic_store_n(&s->span, fast ? (uint64_t)s->carved * k->excess : 0, __ATOMIC_RELAXED);
}

void q_slab_disarm(struct q_slab *s)
{
    /* No thread pointer makes up for this, so the next owner's span fits no old tag. */
    __atomic_store_n(&s->tag, s->tag + (1ull << 49), __ATOMIC_RELAXED);
    __atomic_store_n(&s->span, 0, __ATOMIC_RELAXED);
}

/* Fault in the pages up to `to` and some ahead, with one call instead of one fault each. */
static void populate(struct q_slab *s, size_t to, unsigned ahead)
{
    static bool refused;
    struct q_page *page = q_slab_page(s);
    unsigned have = page->private, want = (unsigned)(q_align_up(to, q_page_size()) >> q_page_shift);

    if (want <= have)
        return;
    want = (unsigned)q_min(have + q_max(ahead, want - have), Q_SLAB_SIZE >> q_page_shift);
    page->private = want;
    if (want - have < 2 || !q_opt.populate || refused || q_pageblock_of(q_slab_pfn(s))->huge)
        return;
    long ret = q_madvise(q_slab_start(s) + ((size_t)have << q_page_shift),
                         (size_t)(want - have) << q_page_shift, MADV_POPULATE_WRITE);
    if (ret == -22) /* EINVAL: before Linux 5.14 */
        refused = true;
}

/*
 * How many objects to carve: up to the end of the page, so that the next page
 * is touched only when it is needed; a few more where the pages are there.
 */
static uint32_t carve_count(const struct q_slab *s)
{
    const struct q_class *k = q_slab_class(s);
    size_t from = (size_t)s->carved * k->size;
    size_t there = (size_t)q_slab_page(s)->private << q_page_shift;
    size_t n = CARVE_BYTES / k->size;

    if (n > 1)
        n = (CARVE_BYTES - (from & (CARVE_BYTES - 1))) / k->size;
    if (n < CARVE_AT_ONCE && there > from)
        n = q_max(n, q_min((there - from) / k->size, CARVE_AT_ONCE));
    return (uint32_t)q_min(q_max(n, 1), k->objs - s->carved);
}

struct q_object *q_slab_carve(struct q_slab *s, unsigned ahead, uint32_t *nr)
{
    const struct q_class *k = q_slab_class(s);
    char *at = q_slab_start(s) + (size_t)s->carved * k->size;

    if (s->carved == k->objs)
        return NULL;
    uint32_t n = carve_count(s);
    populate(s, q_min((size_t)(s->carved + n) * k->size, Q_SLAB_SIZE), ahead);
    struct q_object *first = (struct q_object *)at, *o = first;
    for (uint32_t i = 1; i < n; i++) {
        o->next = (struct q_object *)((char *)o + k->size);
        o = o->next;
    }
    o->next = NULL;
    unsigned before = carved_pages(s);
    __atomic_store_n(&s->carved, (uint16_t)(s->carved + n), __ATOMIC_RELAXED);
    /* Relaxed: a counter for policy only. */
    atomic_fetch_add_explicit(&q_pages_carved, carved_pages(s) - before, memory_order_relaxed);
    *nr = n;
    return first;
}

void q_slab_verify(const struct q_slab *s)
{
    uint32_t n = 0;
    const char *start = q_slab_start(s), *end = start + Q_SLAB_SIZE;

    for (const struct q_object *o = s->freelist; o != NULL; o = o->next, n++) {
        if ((const char *)o < start || (const char *)o >= end || n > s->carved ||
            (size_t)((const char *)o - start) % q_slab_class(s)->size != 0)
            q_die("slab at %p: its free list leads to %p", (const void *)start, (const void *)o);
    }
    if (q_slab_used(s) + n != s->carved)
        q_die("slab at %p: %u used and %u free of %u carved", (const void *)start, q_slab_used(s),
              n, s->carved);
}
