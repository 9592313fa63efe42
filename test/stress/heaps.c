/*
 * heaps.c - threads that share a heap, have heaps of their own, and hand heaps over to each other,
 * with all that is in them, to be ended there.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "quire/heap.h"
#include "stress.h"

#define SLOTS 64
#define SHARED_SLOTS 512

static struct quire_heap *shared;
static unsigned char *_Atomic shared_slot[SHARED_SLOTS];

/* A heap on its way, with the blocks in it as a list. */
struct parcel {
    struct quire_heap *heap;
    struct parcel *next; /* blocks of the heap: the same, of size bytes, full of mark */
    size_t size;
    unsigned char mark;
};

static struct parcel *_Atomic parcels[SLOTS];

static void check_bytes(const unsigned char *p, size_t from, size_t size, unsigned char mark)
{
    for (size_t i = from; i < size; i += i < 64 ? 1 : 61)
        if (p[i] != mark)
            stress_fail("block of %zu bytes at %p: byte %zu was overwritten", size, (const void *)p,
                        i);
}

static size_t a_size(struct rng *r, size_t least)
{
    size_t kind = rng_below(r, 100);

    return least + (kind < 80 ? rng_below(r, 500) : rng_below(r, kind < 98 ? 20000 : 300000));
}

static void pack(struct rng *r)
{
    struct quire_heap_attr attr = {.flags = rng_below(r, 2) ? QUIRE_HEAP_SINGLE : 0};
    struct quire_heap *h = quire_heap_create(&attr);
    struct parcel *first = NULL;

    for (size_t n = 1 + rng_below(r, 40); h != NULL && n > 0; n--) {
        size_t size = a_size(r, sizeof(struct parcel));
        struct parcel *p = quire_heap_alloc(h, size);

        if (p == NULL)
            stress_fail("no memory for %zu bytes", size);
        memset(p, (int)n, size);
        *p = (struct parcel){h, first, size, (unsigned char)n};
        first = p;
    }
    if (h == NULL)
        stress_fail("no memory for a heap");
    first = atomic_exchange_explicit(&parcels[rng_below(r, SLOTS)], first, memory_order_acq_rel);
    if (first == NULL)
        return;
    h = first->heap;
    quire_heap_own(h);
    for (struct parcel *p = first, *next; p != NULL; p = next) {
        next = p->next;
        check_bytes((unsigned char *)p, sizeof(*p), p->size, p->mark);
        if (rng_below(r, 2) == 0)
            quire_heap_free(h, p);
    }
    quire_heap_destroy(h);
}

static void share(struct rng *r)
{
    size_t size = a_size(r, 1);
    unsigned char *p = NULL, mark = (unsigned char)rng_next(r);

    if (rng_below(r, 5) != 0) {
        p = rng_below(r, 4) == 0 ? quire_heap_calloc(shared, 1, size + 8)
                                 : quire_heap_alloc(shared, size + 8);
        if (p == NULL)
            stress_fail("no memory for %zu bytes", size);
        memcpy(p, &size, 8);
        memset(p + 8, mark, size);
    }
    p = atomic_exchange_explicit(&shared_slot[rng_below(r, SHARED_SLOTS)], p, memory_order_acq_rel);
    if (p == NULL)
        return;
    memcpy(&size, p, 8);
    check_bytes(p + 8, 0, size, p[8]);
    if (rng_below(r, 4) == 0) {
        p = quire_heap_realloc(shared, p, size / 2 + 8);
        if (p == NULL)
            stress_fail("a block could not be made smaller");
    }
    quire_heap_free(shared, p);
}

static void *work(void *arg)
{
    struct rng r = rng_for((uintptr_t)arg);

    for (int i = 0; i < 4000 && !stress_over(); i++) {
        if (rng_below(&r, 10) == 0)
            pack(&r);
        else
            share(&r);
        atomic_fetch_add_explicit(&stress_ops, 1, memory_order_relaxed);
    }
    return NULL;
}

static void round_of_threads(uint64_t *salt)
{
    pthread_t thread[256];

    for (unsigned i = 0; i < stress.threads; i++)
        if (pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(*salt)++) != 0)
            stress_fail("no thread");
    for (unsigned i = 0; i < stress.threads; i++)
        pthread_join(thread[i], NULL);
}

int main(int argc, char **argv)
{
    uint64_t salt = 1;

    stress_start(argc, argv, 10, 4);
    shared = quire_heap_create(NULL);
    if (shared == NULL)
        stress_fail("no memory for a heap");
    while (!stress_over()) {
        struct quire_heap_stat st;
        size_t nr = 0;

        round_of_threads(&salt);
        for (size_t i = 0; i < SHARED_SLOTS; i++)
            nr += atomic_load(&shared_slot[i]) != NULL;
        quire_heap_stat(shared, &st);
        if (st.live != nr)
            stress_fail("%zu blocks are live, not %zu", st.live, nr);
    }
    quire_heap_destroy(shared);
    for (size_t i = 0; i < SLOTS; i++) {
        struct quire_heap *h = parcels[i] != NULL ? parcels[i]->heap : NULL;

        if (h != NULL)
            quire_heap_own(h);
        quire_heap_destroy(h);
    }
    return stress_end();
}
