/* sizeclass.c - the classes: complete, monotone, with bounded waste and the right constants. */
#include "slab/sizeclass.h"

#include "unit.h"

static void init(void)
{
    q_sizeclass_init();
}

/* The answer by looking through all of them. */
static unsigned slow_class_of(size_t n)
{
    unsigned c = 0;

    while (c < Q_NR_CLASSES && q_classes[c].size < n)
        c++;
    return c;
}

Test(sizeclass, sizes_rise_and_are_multiples_of_16, .init = init)
{
    must_eq(q_classes[0].size, 16);
    must_eq(q_classes[Q_NR_CLASSES - 1].size, Q_SMALL_MAX);
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        must_eq(q_classes[c].size % 16, 0);
        must_eq(q_classes[c].objs, Q_SLAB_SIZE / q_classes[c].size);
        must(q_classes[c].objs >= 2);
        must(c == 0 || q_classes[c].size > q_classes[c - 1].size);
    }
}

Test(sizeclass, every_size_gets_the_smallest_class_that_holds_it, .init = init)
{
    for (size_t n = 0; n <= Q_SMALL_MAX; n++) {
        must_eq(q_class_of(n), slow_class_of(n));
        must(n == 0 || q_class_of(n) >= q_class_of(n - 1));
    }
}

Test(sizeclass, waste_is_at_most_an_eighth_up_to_8_KiB, .init = init)
{
    for (size_t n = 129; n <= 8192; n++) {
        size_t waste = q_classes[q_class_of(n)].size - n;
        must(waste * 8 < q_classes[q_class_of(n)].size);
    }
    for (size_t n = 1; n <= 128; n++)
        must(q_classes[q_class_of(n)].size - n < 16);
}

Test(sizeclass, last_six_cut_a_slab_evenly, .init = init)
{
    for (unsigned c = Q_NR_CLASSES - 6, parts = 7; c < Q_NR_CLASSES; c++, parts--) {
        must_eq(q_classes[c].objs, parts);
        /* No class with so many objects could be much larger. */
        must((q_classes[c].size + 64) * parts > Q_SLAB_SIZE);
    }
}

Test(sizeclass, powers_of_two_are_classes, .init = init)
{
    for (size_t n = 16; n <= Q_SMALL_MAX; n *= 2)
        must_eq(q_classes[q_class_of(n)].size, n);
}

Test(sizeclass, constants_of_the_test, .init = init)
{
    for (unsigned c = 0; c < Q_NR_CLASSES; c++) {
        const struct q_class *k = &q_classes[c];

        must_eq(k->mult * k->inv, 1);
        must_eq(k->mult & 1, 1);
        must_eq((uint64_t)k->size * k->mult, k->excess);
        must(k->excess >= 1024 && k->excess < 1u << 17);
        /* The keys of all objects and epochs stay apart and below overflow. */
        must((uint64_t)k->objs * k->excess < 1ull << 40);
    }
}

Test(sizeclass, aligned_classes_hold_and_align, .init = init)
{
    for (size_t align = 1; align <= 2 * Q_SMALL_MAX; align *= 2) {
        for (size_t n = 0; n <= Q_SMALL_MAX + 1; n += n < 4096 ? 1 : 37) {
            unsigned c = q_class_aligned(n, align), best = Q_NR_CLASSES;

            for (unsigned i = Q_NR_CLASSES; i-- > 0;)
                if (q_classes[i].size >= n && q_classes[i].size >= align &&
                    q_classes[i].size % align == 0)
                    best = i;
            must_eq(c, best);
        }
    }
}
