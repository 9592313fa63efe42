/* objects.c - thread heaps over slabs: random objects, remote frees, exit, adoption, misuse. */
#include <pthread.h>
#include <string.h>

#include "core.h"
#include "slab/slub.h"
#include "stat/stat.h"

#define MAX_OBJECTS 20000

struct object {
    unsigned char *p;
    uint32_t size;
    uint8_t fill;
};

static void *get(size_t n)
{
    void *p = q_slub_pop(q_class_of(n));

    must(p != NULL);
    must_eq((uintptr_t)p % 16, 0);
    return p;
}

/* As free() does it: the fast way where the test passes, else with every check. */
static void put(void *p)
{
    struct q_slab *s = q_slab_guess(p);
    struct q_object *o = p;
    int64_t key;

    if (q_slab_mine(s, p, &key) && o->key != (uint64_t)key) {
        must(s == q_slab_of(p));
        o->next = s->freelist;
        o->key = (uint64_t)key;
        s->freelist = o;
        if (--s->used == 0)
            q_slub_countdown(s);
        return;
    }
    must((s = q_slab_of(p)) != NULL);
    must_eq(q_slub_free(s, p), Q_FREED);
}

static void fill(const struct object *o)
{
    memset(o->p, o->fill, o->size);
}

static void check(const struct object *o)
{
    for (uint32_t i = 0; i<o->size; i += o->size> 2048 ? 61 : 1)
        must_eq(o->p[i], o->fill);
    must_eq(o->p[o->size - 1], o->fill);
}

static struct object make(struct rng *r)
{
    size_t top = (size_t)16 << rng_below(r, 12), n = 1 + rng_below(r, top);
    struct object o = {get(n), (uint32_t)n, (uint8_t)rng_next(r)};

    must(q_slab_class(q_slab_of(o.p))->size >= n);
    fill(&o);
    return o;
}

static void drop(const struct object *o)
{
    check(o);
    put(o->p);
}

/* Give everything back; then there must be nothing left. */
static void check_nothing_is_left(void)
{
    struct q_stat st;

    q_slub_trim();
    q_reclaim_all(0);
    core_check();
    q_stat_read(&st);
    must_eq(st.slab_live_bytes, 0);
    must_eq(core_dirty_pages(), 0);
    must_eq(core_pcp_pages(), 0);
    must_eq(q_pages_in_use << q_page_shift, st.slab_bytes);
}

static void random_objects(enum core_kind kind, uint64_t salt)
{
    static struct object live[MAX_OBJECTS];
    struct rng r = rng_new(salt);
    size_t nr = 0;

    core_start_slabs(kind);
    for (int step = 0; step < 200000; step++) {
        bool filling = step / 20000 % 2 == 0;

        if ((rng_below(&r, 8) < 6) == filling ? nr < MAX_OBJECTS : nr == 0) {
            live[nr++] = make(&r);
        } else {
            size_t i = rng_below(&r, nr);
            drop(&live[i]);
            live[i] = live[--nr];
        }
        if (step % 20000 == 0) {
            struct q_stat st;
            size_t count = 0;

            q_stat_read(&st);
            for (unsigned c = 0; c < Q_NR_CLASSES; c++)
                count += st.cls[c].live;
            must_eq(count, nr);
        }
    }
    while (nr > 0)
        drop(&live[--nr]);
    check_nothing_is_left();
}

Test(objects, random_flat, .timeout = 600)
{
    random_objects(CORE_FLAT, 80);
}

Test(objects, random_discontiguous, .timeout = 600)
{
    random_objects(CORE_NUMA, 81);
}

Test(objects, random_sparse, .timeout = 600)
{
    random_objects(CORE_SPARSE, 82);
}

/* Trim leaves no slab, not even of classes that empty and fill again and again. */
Test(objects, trim_gives_every_empty_slab_back)
{
    core_start_slabs(CORE_FLAT);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++)
        for (int i = 0; i < 10000; i++)
            put(q_slub_pop(c));
    check_nothing_is_left();
    must_eq(q_pages_in_use, 0);
}

/* Every class by itself: all objects of several slabs, distinct, freed in three orders. */
Test(objects, every_class, .timeout = 600)
{
    static unsigned char *p[3 * Q_SLAB_SIZE / 16];

    core_start_slabs(CORE_FLAT);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        size_t size = q_classes[c].size, nr = 3 * q_classes[c].objs;

        for (int order = 0; order < 3; order++) {
            for (size_t i = 0; i < nr; i++) {
                must((p[i] = q_slub_pop(c)) != NULL);
                memset(p[i], (int)(i & 0xff), size);
            }
            for (size_t i = 0; i < nr; i++)
                must(p[i][0] == (i & 0xff) && p[i][size - 1] == (i & 0xff));
            for (size_t i = 0; i < nr; i++)
                put(order == 0 ? p[i] : order == 1 ? p[nr - 1 - i] : p[(i * 7919) % nr]);
        }
    }
    check_nothing_is_left();
}

/* An address that is no live object's start is refused, and nothing changes by it. */
Test(objects, wrong_frees_are_refused)
{
    core_start_slabs(CORE_FLAT);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        unsigned char *a = q_slub_pop(c), *b = q_slub_pop(c);
        struct q_slab *s = q_slab_of(a);
        int64_t key;

        memset(a, 1, q_classes[c].size);
        memset(b, 2, q_classes[c].size);
        for (size_t off = 8; off < q_classes[c].size; off += off < 64 ? 8 : 1000) {
            must(!q_slab_mine(s, a + off, &key));
            must_eq(q_slub_free(s, a + off), Q_FREE_INTERIOR);
        }
        put(a);
        must_eq(q_slub_free(s, a), Q_FREE_TWICE);
        must(q_slub_is_free(s, a));
        must(!q_slub_is_free(s, b));
        must_eq(b[0], 2);
        must_eq(b[q_classes[c].size - 1], 2);
        put(b);
    }
    check_nothing_is_left();
}

/* A live object that happens to hold what looks like its key is no double free. */
Test(objects, keys_in_live_objects_are_not_believed)
{
    core_start_slabs(CORE_FLAT);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        struct q_object *o = q_slub_pop(c), *keep = q_slub_pop(c);
        struct q_slab *s = q_slab_of(o);
        uint32_t k = (uint32_t)((size_t)((char *)o - q_slab_start(s)) / q_classes[c].size);

        o->key = q_slab_key(s, k);
        must(!q_slub_is_free(s, o));
        put(o);
        put(keep);
    }
    check_nothing_is_left();
}

struct pass {
    struct object *o;
    size_t nr;
};

static void *drop_all(void *arg)
{
    struct pass *pass = arg;

    for (size_t i = 0; i < pass->nr; i++)
        drop(&pass->o[i]);
    return NULL;
}

static void *make_some(void *arg)
{
    struct pass *pass = arg;
    struct rng r = rng_new(pass->nr);

    for (size_t i = 0; i < pass->nr; i++)
        pass->o[i] = make(&r);
    return NULL;
}

static void in_thread(void *(*fn)(void *), struct pass *pass)
{
    pthread_t t;

    must(pthread_create(&t, NULL, fn, pass) == 0);
    pthread_join(t, NULL);
}

/* Allocated here, freed by others who end; and the other way round. */
Test(objects, freed_by_other_threads, .timeout = 300)
{
    static struct object live[MAX_OBJECTS];
    struct pass pass = {live, MAX_OBJECTS};

    core_start_slabs(CORE_FLAT);
    q_heap_hook_threads();
    for (int round = 0; round < 3; round++) {
        make_some(&pass);
        in_thread(drop_all, &pass);
        in_thread(make_some, &pass);
        drop_all(&pass);
        in_thread(make_some, &pass);
        in_thread(drop_all, &pass);
    }
    check_nothing_is_left();
}

/* Threads that come and go use the same few heaps, and what they leave is used by the next. */
Test(objects, heaps_and_slabs_of_ended_threads_are_used_again, .timeout = 300)
{
    static struct object live[2000];
    struct pass pass = {live, 2000};
    size_t pages = 0;

    core_start_slabs(CORE_FLAT);
    q_heap_hook_threads();
    for (int i = 0; i < 200; i++) {
        in_thread(make_some, &pass);
        in_thread(drop_all, &pass);
        pages = i == 20 ? q_pages_in_use : pages;
    }
    must(q_nr_heaps <= 3);
    must(q_pages_in_use <= pages + pages / 2 + 1000);
    check_nothing_is_left();
}

/*
 * A thread that ends when its current slab has just become full leaves a slab without free objects.
 * Whoever comes next must not take it for its own current one.
 */
static void *take_one_slab_whole(void *arg)
{
    void **p = arg;
    unsigned c = q_class_of(4096);

    for (uint32_t i = 0; i < q_classes[c].objs; i++)
        must((p[i] = q_slub_pop(c)) != NULL);
    return NULL;
}

Test(objects, full_slabs_of_ended_threads)
{
    void *left[64], *own[200];
    unsigned c;
    pthread_t t;

    core_start_slabs(CORE_FLAT);
    q_heap_hook_threads();
    c = q_class_of(4096);
    must(pthread_create(&t, NULL, take_one_slab_whole, left) == 0);
    pthread_join(t, NULL);
    own[0] = q_slub_pop(c);
    struct q_slab *s = q_slab_of(left[0]);
    must(q_slab_of(own[0]) != s);
    must((s->flags & Q_SLAB_CURRENT) == 0);
    for (uint32_t i = 0; i < q_classes[c].objs; i++)
        put(left[i]);
    for (size_t i = 1; i < 200; i++) {
        must((own[i] = q_slub_pop(c)) != NULL);
        for (size_t k = 0; k < i; k++)
            must(own[k] != own[i]);
    }
    for (size_t i = 0; i < 200; i++)
        put(own[i]);
    check_nothing_is_left();
}

/* Several threads that hand objects round in a ring. */
#define RING 4
static struct object *_Atomic slot[RING][64];

static void *ring_worker(void *arg)
{
    size_t me = (size_t)arg;
    struct rng r = rng_new(me + 90);

    for (int step = 0; step < 60000; step++) {
        size_t to = rng_below(&r, RING), at = rng_below(&r, 64);
        struct object *o = get(sizeof(*o));

        *o = make(&r);
        o = atomic_exchange(&slot[to][at], o);
        if (o != NULL) {
            struct object copy = *o;
            put(o);
            drop(&copy);
        }
    }
    return NULL;
}

Test(objects, handed_round_between_threads, .timeout = 600)
{
    pthread_t t[RING];

    core_start_slabs(CORE_NUMA);
    q_heap_hook_threads();
    for (size_t i = 0; i < RING; i++)
        must(pthread_create(&t[i], NULL, ring_worker, (void *)i) == 0);
    for (size_t i = 0; i < RING; i++)
        pthread_join(t[i], NULL);
    for (size_t i = 0; i < RING; i++)
        for (size_t k = 0; k < 64; k++)
            if (slot[i][k] != NULL) {
                drop(slot[i][k]);
                put(slot[i][k]);
            }
    check_nothing_is_left();
}
