/* slabs.c - one slab's life, and the multiplication that knows an object from everything else. */
#include "core.h"
#include "slab/slub.h"

/* A slab with `carves` carvings done, as many objects as there are where that is too many. */
static struct q_slab *make_slab(unsigned cls, unsigned carves)
{
    struct q_slab *s = q_slab_create(cls, false);
    uint32_t nr;

    must(s != NULL);
    while (carves-- > 0 && q_slab_carve(s, 0, &nr) != NULL)
        ;
    s->used = s->carved;
    return s;
}

static uintptr_t own_tp(void)
{
    return q_thread_pointer();
}

/* Is start + n accepted, with the right key, exactly where it is the start of a carved object? */
static void check_at(const struct q_slab *s, uintptr_t start, int64_t n)
{
    int64_t key, size = q_slab_class(s)->size;
    bool want = n >= 0 && n % size == 0 && n / size < s->carved;
    bool got = q_slab_mine(s, (const void *)(start + (uintptr_t)n), &key);

    if (got != want || (want && (uint64_t)key != q_slab_key(s, (uint32_t)(n / size))))
        cr_assert(false, "size %lld, %u carved, epoch %u: offset %lld is %s", (long long)size,
                  s->carved, s->epoch, (long long)n, got ? "accepted" : "rejected");
}

static void check_slab(const struct q_slab *s, struct rng *r)
{
    uintptr_t start = (uintptr_t)q_slab_start(s);
    int64_t near = UNIT_SANITIZED ? 1 << 17 : 1 << 20;

    for (int64_t n = -near; n <= near; n++)
        check_at(s, start, n);
    /* Any address of user space, and multiples of the window, which share the descriptor. */
    for (int i = 0; i < 20000; i++) {
        int64_t n = (int64_t)(rng_next(r) >> 17 >> rng_below(r, 27));
        check_at(s, start, n);
        check_at(s, start, -n);
        int64_t windows = (int64_t)(rng_below(r, 8192) << q_fls(q_mem.size));
        n = windows + (int64_t)rng_below(r, Q_SLAB_SIZE);
        check_at(s, start, n < (int64_t)1 << 47 ? n : 1);
        check_at(s, start, n < (int64_t)1 << 47 ? n - 2 * windows : 1);
    }
}

Test(slabs, test_accepts_objects_and_nothing_else, .timeout = 1200)
{
    struct rng r = rng_new(70);

    core_start_slabs(CORE_FLAT);
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++) {
        /* Partly carved, and full. */
        for (unsigned carves = 1; carves <= 4096; carves += 4095) {
            struct q_slab *s = make_slab(cls, carves);

            q_slab_arm(s, own_tp(), true);
            check_slab(s, &r);
        }
    }
}

Test(slabs, nothing_is_accepted_while_disarmed, .timeout = 300)
{
    int64_t key;

    core_start_slabs(CORE_FLAT);
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++) {
        struct q_slab *s = make_slab(cls, 4096);
        char *start = q_slab_start(s);

        for (int armed = 0; armed < 3; armed++) {
            if (armed == 1)
                q_slab_arm(s, own_tp(), false); /* for a heap that must not use the fast path */
            if (armed == 2) {
                q_slab_arm(s, own_tp(), true);
                must(q_slab_mine(s, start, &key));
                q_slab_disarm(s);
            }
            for (int64_t n = -70000; n < 140000; n++)
                must(!q_slab_mine(s, (char *)((uintptr_t)start + (uintptr_t)n), &key));
        }
    }
}

/* Another thread's pointer, at least 256 KiB away: rejected all over the slab. */
Test(slabs, strangers_are_rejected, .timeout = 600)
{
    struct rng r = rng_new(71);
    int64_t key;

    core_start_slabs(CORE_FLAT);
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++) {
        struct q_slab *s = make_slab(cls, 4096);
        char *start = q_slab_start(s);

        for (int i = 0; i < 40; i++) {
            uint64_t far = (256u << 10) + (rng_next(&r) >> 18 >> rng_below(&r, 28));
            uintptr_t tp = i == 0   ? own_tp() + (256u << 10)
                           : i == 1 ? own_tp() - (256u << 10)
                           : i % 2  ? own_tp() + far
                                    : own_tp() - far;

            q_slab_arm(s, tp, true);
            for (size_t n = 0; n < Q_SLAB_SIZE; n += 16)
                if (q_slab_mine(s, start + n, &key))
                    cr_assert(false, "class %u, thread pointers %lld apart, offset %zu", cls,
                              (long long)(tp - own_tp()), n);
        }
    }
}

/* Epochs: keys change with each and the test holds in all of them, round the end of the count. */
Test(slabs, epochs_change_the_keys)
{
    core_start_slabs(CORE_FLAT);
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls += 7) {
        struct q_slab *s = make_slab(cls, 4096);
        uintptr_t start = (uintptr_t)q_slab_start(s);
        uint64_t last = 0;
        unsigned rounds = 0;

        q_slab_arm(s, own_tp(), true);
        for (unsigned e = 0; e < 2 * 65535 + 10 && rounds < 2; e++) {
            int64_t key;

            must(q_slab_mine(s, (void *)start, &key));
            must((uint64_t)key != last);
            last = (uint64_t)key;
            for (int64_t n = -40; n < (int64_t)q_slab_class(s)->size + 40; n += 8)
                check_at(s, start, n);
            check_at(s, start, (int64_t)s->carved * q_slab_class(s)->size);
            check_at(s, start, (int64_t)(s->carved - 1u) * q_slab_class(s)->size);
            must(s->epoch < q_slab_class(s)->excess);
            q_slab_next_epoch(s, &q_classes[cls], own_tp());
            rounds += s->epoch == 0;
        }
        must_eq(rounds, 2);
    }
}

/* Keys of all objects and epochs of a slab are different numbers. */
Test(slabs, keys_are_unique)
{
    core_start_slabs(CORE_FLAT);
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++) {
        struct q_slab *s = make_slab(cls, 4096);

        s->epoch = (uint16_t)(q_min(q_slab_class(s)->excess, 65535) - 1);
        for (uint32_t k = 0; k + 1 < s->carved; k++) {
            uint64_t top = q_slab_key(s, k);
            uint16_t epoch = s->epoch;

            s->epoch = 0;
            must(q_slab_key(s, k + 1) > top);
            s->epoch = epoch;
        }
    }
}

/* Whatever address free() is given, its descriptor can be read, and is the right one for slabs. */
static void check_lookup(enum core_kind kind)
{
    struct rng r = rng_new(72);
    int64_t key;

    core_start_slabs(kind);
    struct q_slab *s = make_slab(20, 4096);
    char *start = q_slab_start(s);

    q_slab_arm(s, own_tp(), kind != CORE_SPARSE);
    for (size_t n = 0; n < Q_SLAB_SIZE; n += 8) {
        if (kind != CORE_SPARSE)
            must(q_slab_guess(start + n) == s);
        must(q_slab_of(start + n) == s);
    }
    must(q_slab_of(start - 1) != s && q_slab_of(start + Q_SLAB_SIZE) != s);
    must(q_slab_of(NULL) == NULL && q_slab_of(&s) == NULL);
    for (int i = 0; i < 200000; i++) {
        void *p = (void *)(rng_next(&r) >> rng_below(&r, 64));

        /* Canonical addresses only: what a program can have. */
        p = (void *)((uintptr_t)p & (((uintptr_t)1 << 47) - 1));
        struct q_slab *guess = q_slab_guess(p);
        must((char *)guess >= q_lookup.slabs || guess != NULL);
        bool mine = q_slab_mine(guess, p, &key);
        must(!mine || ((char *)p >= start && (char *)p < start + Q_SLAB_SIZE));
        must(q_slab_of(p) == NULL || q_slab_of(p) == s);
    }
}

Test(slabs, lookup_flat)
{
    check_lookup(CORE_FLAT);
}

Test(slabs, lookup_discontiguous)
{
    check_lookup(CORE_NUMA);
}

Test(slabs, lookup_sparse)
{
    check_lookup(CORE_SPARSE);
}

/* Objects of a class come in order, without gaps, a page or so at a time; then no more. */
Test(slabs, carving)
{
    core_start_slabs(CORE_FLAT);
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++) {
        struct q_slab *s = q_slab_create(cls, true);
        const struct q_class *k = &q_classes[cls];
        char *want = q_slab_start(s);
        struct q_object *list;
        uint32_t nr;

        for (;;) {
            const char *there = q_slab_start(s) + ((size_t)q_slab_page(s)->private << q_page_shift);
            uint32_t n = 0;

            list = q_slab_carve(s, 0, &nr);
            if (list == NULL)
                break;

            for (struct q_object *o = list; o != NULL; o = o->next, n++) {
                must((char *)o == want);
                must_eq((uintptr_t)o % 16, 0);
                must((k->size & (k->size - 1)) != 0 || (uintptr_t)o % k->size == 0);
                want += k->size;
            }
            must_eq(n, nr);
            must(nr == 1 || (size_t)nr * k->size <= 4096 || (nr <= 8 && want <= there));
        }
        must_eq(s->carved, k->objs);
        must(want <= q_slab_start(s) + Q_SLAB_SIZE);
        s->used = s->carved;
        q_slab_verify(s);
        q_slab_destroy(s);
        must(q_slab_of(want - 1) == NULL);
    }
    core_check();
    must_eq(q_pages_in_use, 0);
}

/* Where a slab's pages are in memory from its last life, several large objects come at once. */
Test(slabs, carving_what_is_there)
{
    uint32_t nr, objs = 0;

    core_start_slabs(CORE_FLAT);
    struct q_slab *s = q_slab_create(q_class_of(10000), false);
    while (q_slab_carve(s, 0, &nr) != NULL)
        objs += nr;
    s->used = s->carved;
    q_slab_destroy(s);
    s = q_slab_create(q_class_of(10000), false);
    must(q_slab_page(s)->private > 0);
    must(q_slab_carve(s, 0, &nr) != NULL);
    must(nr > 1 && nr <= objs);
    s->used = s->carved;
    q_slab_destroy(s);
}

/* A fresh slab costs one page, the pages behind stay untouched until they are carved. */
Test(slabs, carving_is_lazy)
{
    uint32_t nr;

    core_start_slabs(CORE_FLAT);
    q_opt.populate = 0;
    struct q_slab *s = q_slab_create(q_class_of(64), true);
    char *start = q_slab_start(s);
    size_t pages = Q_SLAB_SIZE >> q_page_shift;

    must_eq(core_resident(start, pages), 0);
    for (size_t n = 1; n <= Q_SLAB_SIZE / 4096; n++) {
        must(q_slab_carve(s, 0, &nr) != NULL);
        must_eq(core_resident(start, pages), q_align_up(n * 4096, q_page_size()) >> q_page_shift);
    }
    must(q_slab_carve(s, 0, &nr) == NULL);
}

/* What a slab carved is known to be written when it goes back, and nothing else is. */
Test(slabs, destroyed_slabs_know_their_written_pages)
{
    struct rng r = rng_new(73);

    core_start_slabs(CORE_FLAT);
    for (int i = 0; i < 500; i++) {
        unsigned cls = (unsigned)rng_below(&r, Q_NR_CLASSES);
        struct q_slab *s = make_slab(cls, (unsigned)rng_below(&r, 5));

        for (char *p = q_slab_start(s), *end = p + (size_t)s->carved * q_classes[cls].size; p < end;
             p += 8)
            *(uint64_t *)p = ~0ull;
        q_slab_destroy(s);
        if (i % 50 == 0) {
            q_pcp_drain(core_zone(0, Q_ZONE_NORMAL));
            core_check();
        }
    }
    must_eq(q_pages_in_use, 0);
}

/* Once many slabs are densely in use, the next are asked to be huge; never with huge:off. */
static size_t huge_blocks_of_a_dense_heap(unsigned long huge)
{
    q_opt.huge = huge;
    core_start_slabs(CORE_FLAT);
    q_opt.populate = 0;
    for (size_t i = 0; i < ((size_t)128 << 20) / Q_SLAB_SIZE; i++)
        make_slab(q_class_of(32768), 4096);
    return core_zone(0, Q_ZONE_NORMAL)->nr_huge_blocks;
}

Test(slabs, dense_heaps_get_huge_pages)
{
    size_t blocks = huge_blocks_of_a_dense_heap(Q_HUGE_AUTO);

    must(q_mem.thp_never || (blocks > 0 && blocks < 64));
}

Test(slabs, dense_heaps_get_none_where_they_are_off)
{
    must_eq(huge_blocks_of_a_dense_heap(Q_HUGE_OFF), 0);
}
