/* young.c - see young.h. */
#include "slab/young.h"

#include <string.h>

#include "slab/slub.h"

/* With 512 or 1024 `idle` takes one or four per cent more, in the same time. */
#define DRAW_BYTES 256u

void q_young_init(struct q_heap *heap, bool young)
{
    memset(heap->young, 0, sizeof(heap->young));
    for (unsigned c = 0; c < Q_NR_CLASSES; c++)
        if (!young || q_classes[c].size > Q_YOUNG_SIZE_MAX)
            heap->young[c].drawn = Q_YOUNG_DRAWN;
}

/* Objects that make DRAW_BYTES or so, and whole cache lines: what is next to them is another thread's. */
static uint32_t draw_of(uint32_t size)
{
    uint32_t n = q_max((DRAW_BYTES + size / 2) / size, 1), lines = Q_CACHELINE / (size & -size);

    return lines <= 1 ? n : (uint32_t)q_align_up(n, lines);
}

bool q_young_draw(struct q_heap *heap, unsigned cls)
{
    struct q_young *young = &heap->young[cls];
    uint32_t size = q_classes[cls].size, nr;
    struct q_object *list = q_shared_draw(cls, draw_of(size), &nr);

    if (list == NULL) {
        young->drawn = Q_YOUNG_DRAWN;
        return false;
    }
    young->drawn = (uint16_t)(young->drawn + nr * size / 16);
    young->out = (uint16_t)(young->out + nr);
    heap->bin[cls].handed += nr;
    heap->chain[cls] = list;
    return true;
}

/* Give back a chain of nr objects. They look free again. */
static void return_chain(struct q_heap *heap, unsigned cls, struct q_object *list, uint32_t nr)
{
    struct q_young *young = &heap->young[cls];
    struct q_slab *s = q_slab_guess(list);
    struct q_object *o = list;

    for (;; o = o->next) {
        o->key = q_slab_key(s, q_slab_index(s, o));
        if (o->next == NULL)
            break;
    }
    heap->bin[cls].handed -= nr;
    young->out = (uint16_t)(young->out - q_min(nr, young->out));
    q_slub_push(s, list, o, nr);
}

/* The chain, if of a common slab. Taken in one instruction: a signal handler may pop from it. */
static struct q_object *take_chain(struct q_heap *heap, unsigned cls)
{
    if (heap->bin[cls].current != NULL)
        return NULL;
    return __atomic_exchange_n(&heap->chain[cls], NULL, __ATOMIC_RELAXED);
}

void q_young_freed(struct q_heap *heap, unsigned cls)
{
    struct q_young *young = &heap->young[cls];

    if (young->out == 0 || --young->out > draw_of(q_classes[cls].size))
        return;
    struct q_object *list = take_chain(heap, cls);
    uint32_t nr = q_chain_length(list);
    if (nr > 0 && young->out <= nr)
        return_chain(heap, cls, list, nr);
    else if (nr > 0)
        heap->chain[cls] = list;
}

void q_young_drop(struct q_heap *heap, unsigned cls)
{
    struct q_object *list = take_chain(heap, cls);

    if (list != NULL)
        return_chain(heap, cls, list, q_chain_length(list));
}
