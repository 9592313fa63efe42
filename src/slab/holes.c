/* holes.c - see holes.h. */
#include "slab/holes.h"

#include "base/opt.h"
#include "zone/hold.h"
#include "zone/linear.h"
#include "zone/page_alloc.h"
#include "zone/pageblock.h"

#define MAX_PAGES 16u   /* of a slab, where pages are the smallest there are */
#define HUGE_PAGES 8u   /* fewer are not worth taking a huge page apart */
#define STEPS 512u      /* slabs that the hand passes in one call, at most */
#define LOOKS_MIN 4u    /* slabs to look through in one call, */
#define LOOKS_PER_MS 4u /* and as many more as take a few per cent of the time */
#define LOOKS_MAX 128u

/* The first and the last object that reach into page p. */
static uint32_t first_in(const struct q_class *k, unsigned p)
{
    return (uint32_t)((size_t)p << q_page_shift) / k->size;
}

static uint32_t last_in(const struct q_class *k, unsigned p)
{
    uint32_t last = (uint32_t)(((size_t)(p + 1) << q_page_shift) - 1) / k->size;

    return (uint32_t)q_min(last, k->objs - 1);
}

uint32_t q_holes_absent(uint32_t holes, const struct q_class *k)
{
    uint32_t nr = 0, next = 0; /* objects below `next` were counted */

    for (; holes != 0; holes &= holes - 1) {
        unsigned p = (unsigned)__builtin_ctz(holes);
        uint32_t first = (uint32_t)q_max(first_in(k, p), next);

        next = last_in(k, p) + 1;
        nr += next - (uint32_t)q_min(first, next);
    }
    return nr;
}

struct q_object *q_holes_fill(struct q_slab *s, uint32_t *nr)
{
    const struct q_class *k = q_slab_class(s);
    uint32_t holes = s->holes;
    struct q_object *list = NULL, **link = &list;

    *nr = 0;
    if (holes == 0)
        return NULL;
    /* What the first absent object reaches into. */
    unsigned p = (unsigned)__builtin_ctz(holes);
    uint32_t at = first_in(k, p), fill = holes & q_slab_pages((size_t)at * k->size, k->size);
    uint32_t last = last_in(k, q_fls(fill));

    holes &= ~fill;
    for (; at <= last; at++) {
        size_t off = (size_t)at * k->size;

        if ((holes & q_slab_pages(off, k->size)) != 0)
            continue;
        struct q_object *o = (struct q_object *)(q_slab_start(s) + off);
        *link = o;
        link = &o->next;
        ++*nr;
    }
    *link = NULL;
    __atomic_store_n(&s->holes, (uint16_t)holes, __ATOMIC_RELAXED);
    /* Relaxed: a counter for policy only. */
    atomic_fetch_add_explicit(&q_pages_carved, (size_t)__builtin_popcount(fill),
                              memory_order_relaxed);
    return list;
}

/* Which objects are free, a bit where each begins, and how many of them reach into each page. */
struct tally {
    uint64_t seen[Q_SLAB_SIZE / 16 / 64];
    uint16_t nr[MAX_PAGES];
};

/* False: it was counted already. */
static bool count(struct tally *t, size_t off, size_t size)
{
    uint64_t *seen = &t->seen[off / 16 / 64], bit = 1ull << (off / 16 % 64);

    if ((*seen & bit) != 0)
        return false;
    *seen |= bit;
    for (size_t p = off >> q_page_shift; p <= (off + size - 1) >> q_page_shift; p++)
        t->nr[p]++;
    return true;
}

/*
 * Pages of a slab, not holes yet, that only free objects reach into; none if
 * they are too few. The first on the freelist stays: a free() that a signal
 * handler interrupted may be about to put its object before it. An object
 * that is there twice was freed twice without being noticed: hands off.
 */
static uint32_t free_pages(const struct q_slab *s)
{
    const struct q_class *k = q_slab_class(s);
    struct tally t = {.nr = {0}};
    uint32_t found = 0;

    for (const struct q_object *o = s->freelist; o != NULL; o = o->next)
        if (!count(&t, (size_t)((const char *)o - q_slab_start(s)), k->size))
            return 0;
    for (uint32_t holes = s->holes, next = 0; holes != 0; holes &= holes - 1) {
        unsigned p = (unsigned)__builtin_ctz(holes);

        for (uint32_t at = (uint32_t)q_max(first_in(k, p), next); at <= last_in(k, p); at++)
            count(&t, (size_t)at * k->size, k->size);
        next = last_in(k, p) + 1;
    }
    for (unsigned p = 0; p < Q_SLAB_SIZE >> q_page_shift; p++) {
        uint32_t first = first_in(k, p), last = last_in(k, p);

        /* The last page may have no object at all. */
        if (first <= last && last < s->carved && t.nr[p] == last - first + 1)
            found |= 1u << p;
    }
    found &= ~(uint32_t)s->holes;
    if (s->freelist != NULL)
        found &= ~q_slab_pages((size_t)((char *)s->freelist - q_slab_start(s)), k->size);
    unsigned least = q_pageblock_of(q_slab_pfn(s))->huge ? HUGE_PAGES : 1;
    return (unsigned)__builtin_popcount(found) >= least ? found : 0;
}

/* Take the objects that reach into these pages off the freelist. Returns how many. */
static uint32_t unlink_from(struct q_slab *s, uint32_t pages)
{
    size_t size = q_slab_class(s)->size;
    uint32_t nr = 0;

    for (struct q_object **link = &s->freelist, *o; (o = *link) != NULL;) {
        if ((pages & q_slab_pages((size_t)((char *)o - q_slab_start(s)), size)) != 0) {
            *link = o->next;
            nr++;
        } else {
            link = &o->next;
        }
    }
    return nr;
}

/* Give these pages back. Returns those that had to stay. */
static uint32_t discard(const struct q_slab *s, uint32_t pages)
{
    struct q_zone *zone = q_pfn_zone(q_slab_pfn(s));
    uint32_t stay = 0;

    /* Cuts are made with this lock held. */
    q_lock(&zone->lock);
    while (pages != 0) {
        unsigned p = (unsigned)__builtin_ctz(pages);
        unsigned nr = (unsigned)__builtin_ctz(~(pages >> p));
        uint32_t these = ((1u << nr) - 1) << p;

        if (q_any_held() || q_linear_discard(q_slab_start(s) + ((size_t)p << q_page_shift),
                                             (size_t)nr << q_page_shift) != 0)
            stay |= these; /* wanted by a snapshot; locked, or shared with children */
        else
            zone->nr_given_back += nr;
        pages &= ~these;
    }
    q_unlock(&zone->lock);
    return stay;
}

/* They are free as before, behind the first, unless another hole reaches into them. */
static void relink(struct q_slab *s, uint32_t pages)
{
    const struct q_class *k = q_slab_class(s);
    uint32_t next = 0, others = s->holes & ~pages;

    for (uint32_t rest = pages; rest != 0; rest &= rest - 1) {
        unsigned p = (unsigned)__builtin_ctz(rest);

        for (uint32_t at = (uint32_t)q_max(first_in(k, p), next); at <= last_in(k, p); at++) {
            size_t off = (size_t)at * k->size;
            struct q_object *o = (struct q_object *)(q_slab_start(s) + off);

            if ((others & q_slab_pages(off, k->size)) != 0)
                continue;
            o->key = q_slab_key(s, at);
            o->next = s->freelist->next;
            s->freelist->next = o;
            s->debt--;
        }
        next = last_in(k, p) + 1;
    }
    __atomic_store_n(&s->holes, (uint16_t)others, __ATOMIC_RELAXED);
}

unsigned q_holes_punch(struct q_heap *heap, struct q_slab *s)
{
    unsigned nr = 0;

    /* No free() of a signal handler shall reach the freelist meanwhile. */
    __atomic_store_n(&s->span, 0, __ATOMIC_RELAXED);
    atomic_signal_fence(memory_order_seq_cst);
    uint32_t pages = free_pages(s);
    if (pages != 0) {
        s->debt = (int16_t)(s->debt + (int)unlink_from(s, pages));
        __atomic_store_n(&s->holes, (uint16_t)(s->holes | pages), __ATOMIC_RELAXED);
        uint32_t stay = discard(s, pages);
        if (stay != 0)
            relink(s, stay);
        nr = (unsigned)__builtin_popcount(pages & ~stay);
        /* Relaxed: a counter for policy only. */
        atomic_fetch_sub_explicit(&q_pages_carved, nr, memory_order_relaxed);
    }
    q_slab_arm(s, heap->tp, heap->fast);
    return nr;
}

/* Worth walking its freelist: much of it is free. */
static bool promising(const struct q_slab *s)
{
    uint32_t free = s->carved - q_slab_used(s);

    return free >= s->carved / 4u && (size_t)free * q_slab_class(s)->size >= 2 * q_page_size();
}

/* The first time it is only marked: see holes.h. */
static bool examine(struct q_heap *heap, struct q_slab *s)
{
    if ((s->flags & Q_SLAB_LOOKED) != 0 || !promising(s))
        return false;
    if ((s->flags & Q_SLAB_AGED) == 0) {
        s->flags |= Q_SLAB_AGED;
        return false;
    }
    s->flags |= Q_SLAB_LOOKED;
    q_holes_punch(heap, s);
    return true;
}

/* To try and fail would write to what is free: all of it would be copied, or saved. */
static bool possible(void)
{
    return !q_any_held() && q_linear_takes_pages();
}

void q_holes_tick(struct q_heap *heap, uint32_t now, uint32_t since_ms)
{
    uint32_t most = (uint32_t)q_min((uint64_t)since_ms * LOOKS_PER_MS + LOOKS_MIN, LOOKS_MAX);

    if (heap->nr_partial == 0 || !possible())
        return;
    if (heap->hand_class == Q_NR_CLASSES) {
        if (heap->lap_ms == 0) /* a new heap */
            heap->lap_ms = now;
        if (now - heap->lap_ms <= q_opt.decay_ms)
            return;
        heap->lap_ms = now;
        heap->hand_class = 0;
        heap->hand = heap->bin[0].partial;
    }
    for (unsigned steps = 0, looks = 0; steps < STEPS && looks < most; steps++) {
        if (heap->hand == 0) {
            if (++heap->hand_class == Q_NR_CLASSES)
                return;
            heap->hand = heap->bin[heap->hand_class].partial;
            continue;
        }
        struct q_slab *s = q_slab_at(heap->hand);
        heap->hand = s->next;
        looks += examine(heap, s);
    }
}

size_t q_holes_trim(struct q_heap *heap)
{
    size_t nr = 0;

    for (unsigned c = 0; c < Q_NR_CLASSES && possible(); c++)
        for (uint32_t n = heap->bin[c].partial; n != 0; n = q_slab_at(n)->next)
            nr += q_holes_punch(heap, q_slab_at(n));
    return nr;
}
