/* holes.c - pages of slabs given back and taken again, against a model that looks at each object. */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"
#include "slab/holes.h"
#include "slab/slub.h"

#define MAX_OBJS (Q_SLAB_SIZE / 16)

enum state { LIVE, LISTED, ABSENT };

struct model {
    struct q_slab *s;
    enum state is[MAX_OBJS];
};

static struct q_heap heap; /* all that punching needs of one */

static struct q_object *object(const struct q_slab *s, uint32_t k)
{
    return (struct q_object *)(q_slab_start(s) + (size_t)k * q_slab_class(s)->size);
}

static uint32_t number(const struct q_slab *s, const struct q_object *o)
{
    return (uint32_t)((size_t)((const char *)o - q_slab_start(s)) / q_slab_class(s)->size);
}

static unsigned char mark_of(uint32_t k)
{
    return (unsigned char)(k * 7 + 1);
}

static void begin(struct model *m, unsigned cls, struct rng *r)
{
    uint32_t nr, carves = (uint32_t)rng_below(r, 18) + 1;

    m->s = q_slab_create(cls, false);
    must(m->s != NULL);
    while (carves-- > 0 && q_slab_carve(m->s, 0, &nr) != NULL)
        ;
    for (uint32_t k = 0; k < m->s->carved; k++) {
        m->is[k] = LIVE;
        memset(object(m->s, k), mark_of(k), q_slab_class(m->s)->size);
    }
    m->s->used = m->s->carved;
    q_slab_arm(m->s, heap.tp, true);
}

static void put(struct model *m, uint32_t k)
{
    struct q_object *o = object(m->s, k);

    o->key = q_slab_key(m->s, k);
    o->next = m->s->freelist;
    m->s->freelist = o;
    m->s->used--;
    m->is[k] = LISTED;
}

/* Some objects are freed: single ones, or in stretches. */
static void free_some(struct model *m, struct rng *r)
{
    uint32_t stretch = (uint32_t)(1 + rng_below(r, rng_below(r, 2) == 0 ? 2 : m->s->carved));
    bool on = false;

    for (uint32_t k = 0; k < m->s->carved; k++) {
        if (rng_below(r, stretch) == 0)
            on = !on;
        if (on && m->is[k] == LIVE)
            put(m, k);
    }
}

static bool page_is_free(const struct model *m, size_t from, size_t to)
{
    size_t size = q_slab_class(m->s)->size;

    if (from >= q_slab_class(m->s)->objs * size)
        return false; /* what is left over behind the last object */
    /* Carved to its end: nothing will be carved from it later. */
    if (m->s->carved < q_slab_class(m->s)->objs && (size_t)m->s->carved * size < to)
        return false;
    for (uint32_t k = 0; k < m->s->carved; k++)
        if (m->is[k] == LIVE && k * size < to && (k + 1) * size > from)
            return false;
    return true;
}

/* The page of the first object on the freelist stays. */
static bool has_first(const struct model *m, size_t p)
{
    const struct q_object *o = m->s->freelist;

    if (o == NULL)
        return false;
    size_t off = (size_t)((const char *)o - q_slab_start(m->s));
    return (q_slab_pages(off, q_slab_class(m->s)->size) >> p & 1) != 0;
}

/* What punching should make of it. Returns the holes there should be. */
static uint32_t punch_model(struct model *m)
{
    size_t size = q_slab_class(m->s)->size, page = q_page_size();
    uint32_t holes = 0;

    for (size_t p = 0; p < Q_SLAB_SIZE / page; p++)
        if (page_is_free(m, p * page, (p + 1) * page) && !has_first(m, p))
            holes |= 1u << p;
    for (uint32_t k = 0; k < m->s->carved; k++)
        for (size_t p = k * size / page; p <= ((k + 1) * size - 1) / page; p++)
            if ((holes >> p & 1) != 0)
                m->is[k] = ABSENT;
    return holes;
}

static void compare(const struct model *m, uint32_t holes)
{
    const struct q_slab *s = m->s;
    size_t size = q_slab_class(s)->size, page = q_page_size();
    uint32_t nr[3] = {0}, listed = 0;

    must_eq(s->holes, holes);
    for (uint32_t k = 0; k < s->carved; k++) {
        nr[m->is[k]]++;
        must_eq(q_slab_in_hole(s, k * size), m->is[k] == ABSENT);
        for (size_t i = 0; m->is[k] == LIVE && i < size; i++)
            must_eq(((unsigned char *)object(s, k))[i], mark_of(k));
        if (m->is[k] != LISTED)
            must_eq(q_slub_is_free(m->s, object(s, k)), m->is[k] == ABSENT);
    }
    for (const struct q_object *o = s->freelist; o != NULL; o = o->next, listed++)
        must(m->is[number(s, o)] == LISTED && (char *)object(s, number(s, o)) == (char *)o);
    must_eq(listed, nr[LISTED]);
    must_eq(q_slab_absent(s), nr[ABSENT]);
    must_eq(q_slab_live(s), nr[LIVE]);
    must_eq(s->span != 0, holes == 0 && s->carved > 0);
    for (size_t p = 0; p < Q_SLAB_SIZE / page; p++)
        if ((holes >> p & 1) != 0)
            must_eq(core_resident(q_slab_start(s) + p * page, 1), 0);
    q_slab_verify(s);
}

/* One hole is filled: at least one object comes, each was absent, and none comes twice. */
static bool fill_one(struct model *m)
{
    size_t size = q_slab_class(m->s)->size;
    uint32_t nr, n = 0, before = m->s->holes;
    struct q_object *list = q_holes_fill(m->s, &nr);

    must_eq(list != NULL, before != 0);
    must((m->s->holes & ~before) == 0);
    for (struct q_object *o = list, *next; o != NULL; o = next, n++) {
        uint32_t k = number(m->s, o);

        next = o->next;
        must(m->is[k] == ABSENT && object(m->s, k) == o);
        m->is[k] = LIVE;
        memset(o, mark_of(k), size);
    }
    must(n == nr && (list == NULL || n > 0));
    q_slab_arm(m->s, heap.tp, true);
    return list != NULL;
}

static void take_listed(struct model *m)
{
    struct q_object *next;

    for (struct q_object *o = m->s->freelist; o != NULL; o = next) {
        uint32_t k = number(m->s, o);

        next = o->next;
        memset(o, mark_of(k), q_slab_class(m->s)->size);
        m->is[k] = LIVE;
        m->s->used++;
    }
    m->s->freelist = NULL;
    q_slab_next_epoch(m->s, q_slab_class(m->s), heap.tp);
    q_slab_arm(m->s, heap.tp, true);
}

static void check_kind(enum core_kind kind)
{
    static struct model m;
    struct rng r = rng_new(90);
    size_t carved;

    core_start_slabs(kind);
    heap.tp = q_thread_pointer();
    heap.fast = true;
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++) {
        for (int round = 0; round < 6; round++) {
            begin(&m, cls, &r);
            for (int step = 0; step < 6; step++) {
                carved = atomic_load(&q_pages_carved);
                uint32_t before = m.s->holes, holes;

                free_some(&m, &r);
                holes = punch_model(&m);
                q_holes_punch(&heap, m.s);
                compare(&m, holes);
                must_eq(carved - atomic_load(&q_pages_carved),
                        __builtin_popcount(holes) - __builtin_popcount(before));
                /* Some come back, or all. */
                for (size_t n = rng_below(&r, 20); n > 0 && fill_one(&m); n--)
                    compare(&m, m.s->holes);
                if (rng_below(&r, 2) == 0)
                    take_listed(&m);
            }
            while (fill_one(&m))
                ;
            compare(&m, 0);
            take_listed(&m);
            q_slab_destroy(m.s);
        }
    }
    core_check();
}

Test(holes, against_a_model_flat, .timeout = 300)
{
    check_kind(CORE_FLAT);
}

Test(holes, against_a_model_sparse, .timeout = 300)
{
    check_kind(CORE_SPARSE);
}

/* Where the kernel does not take them back, they are free as before. */
Test(holes, locked_memory, .timeout = 300)
{
    static struct model m;
    struct rng r = rng_new(91);

    core_start_slabs(CORE_FLAT);
    heap.tp = q_thread_pointer();
    heap.fast = true;
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++) {
        begin(&m, cls, &r);
        /* Sanitizers have an mlock() of their own, which does nothing. */
        if (syscall(SYS_mlock, q_slab_start(m.s), Q_SLAB_SIZE) != 0)
            cr_skip("mlock is not allowed here");
        free_some(&m, &r);
        q_holes_punch(&heap, m.s);
        compare(&m, 0);
        syscall(SYS_munlock, q_slab_start(m.s), Q_SLAB_SIZE);
        uint32_t holes = punch_model(&m);
        q_holes_punch(&heap, m.s);
        compare(&m, holes);
    }
}
