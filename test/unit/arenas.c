/* arenas.c - heaps of programs inside: chunks, spans, bits and counters against what the test knows. */
#include <string.h>

#include "core.h"
#include "slab/arena.h"
#include "slab/slub.h"

#define BLOCKS 2000

struct block {
    unsigned char *p, byte;
    size_t size;
};

/* One chunk: its cells are those of its spans, its bits those of their live objects. */
static size_t check_chunk(const struct q_arena *a, const struct q_chunk *c, size_t *spans)
{
    uint16_t cells = c->free_cells;
    size_t live = 0, bits = 0;

    must(c->arena == a && q_list_linked(&c->roomy) == (c->free_cells != 0));
    must(q_page_is_owned(c->page) && c->page->private == Q_OWNER_ARENA);
    for (unsigned i = 0; i < Q_ARENA_CELLS; i++) {
        const struct q_arena_span *s = &c->span[i];
        uint32_t nr = 0;

        if (s->cells == 0)
            continue;
        uint16_t mask = (uint16_t)(((1u << s->cells) - 1) << i);
        must(s->first == i && i % s->cells == 0 && (cells & mask) == 0);
        cells |= mask;
        for (unsigned k = i; k < i + s->cells; k++)
            must_eq(c->span_of[k], i);
        must(s->used <= s->carved && s->carved <= s->objs);
        must(s->objs * q_classes[s->cls].size <= s->cells * Q_ARENA_CELL);
        must(q_list_linked(&s->list) == (s->used < s->objs));
        for (const struct q_object *o = s->free; o != NULL; o = o->next) {
            struct q_arena_spot spot;
            q_arena_look(o, &spot);
            must(spot.what == Q_ARENA_FREE && spot.span == s);
            nr++;
        }
        must_eq(nr + s->used, s->carved);
        live += s->used;
        ++*spans;
    }
    must_eq(cells, UINT16_MAX);
    for (size_t i = 0; i < sizeof(c->live) / sizeof(c->live[0]); i++)
        bits += (size_t)__builtin_popcountll(c->live[i]);
    must_eq(bits, live);
    return live;
}

static void check_arena(const struct q_arena *a, size_t live)
{
    size_t objects = 0, pages = 0, spans = 0, counted = 0;

    for (struct q_list *l = a->chunks.next; l != NULL && l != &a->chunks; l = l->next) {
        const struct q_chunk *c = q_container_of(l, struct q_chunk, list);
        objects += check_chunk(a, c, &spans);
        pages += c->page->nr;
    }
    for (unsigned cls = 0; cls < Q_NR_CLASSES; cls++)
        counted += a->bin[cls].nr_spans;
    must_eq(counted, spans);
    for (struct q_list *l = a->large.next; l != NULL && l != &a->large; l = l->next) {
        pages += q_container_of(l, struct q_arena_block, list)->page->nr;
        objects++;
    }
    for (struct q_list *l = a->huge.next; l != NULL && l != &a->huge; l = l->next) {
        const struct q_arena_block *b = q_container_of(l, struct q_arena_block, list);
        pages += ((size_t)((char *)b - b->base) + q_page_size() + b->bytes) >> q_page_shift;
        objects++;
    }
    must_eq(pages, a->pages);
    must_eq(objects, live);
    must_eq(a->live, live);
}

static void put(struct q_arena *a, struct block *b)
{
    struct q_arena_spot spot;

    must(b->p[0] == b->byte && b->p[b->size - 1] == b->byte);
    q_arena_look(b->p, &spot);
    must(spot.what == Q_ARENA_LIVE && spot.arena == a && spot.bytes >= b->size);
    q_arena_free(a, b->p, &spot);
    q_arena_look(b->p, &spot);
    must(spot.what != Q_ARENA_LIVE);
}

static void random_blocks(enum core_kind kind, size_t most)
{
    static struct block blocks[BLOCKS];
    struct rng r = rng_new(most);
    struct q_arena_how how = {.single = true};
    size_t nr = 0;

    core_start_slabs(kind);
    q_enter();
    size_t before = q_pages_in_use;
    struct q_arena *a = q_arena_create(&how);
    must(a != NULL);
    for (int step = 0; step < 40000; step++) {
        bool filling = step / 4000 % 2 == 0;

        if ((rng_below(&r, 8) < 6) == filling ? nr < BLOCKS : nr == 0) {
            struct block b = {.byte = (unsigned char)rng_next(&r)};
            size_t align = rng_below(&r, 10) == 0 ? (size_t)16 << rng_below(&r, 9) : 16;
            b.size = 1 + rng_below(&r, (size_t)16 << rng_below(&r, q_fls(most) - 3));
            b.p = q_arena_alloc(a, b.size, align, false);
            must(b.p != NULL && ((uintptr_t)b.p & (align - 1)) == 0);
            b.p[0] = b.p[b.size - 1] = b.byte;
            blocks[nr++] = b;
        } else if (nr > 0) {
            size_t i = rng_below(&r, nr);
            put(a, &blocks[i]);
            blocks[i] = blocks[--nr];
        }
        if (step % 1000 == 0)
            check_arena(a, nr);
    }
    check_arena(a, nr);
    q_arena_reset(a);
    check_arena(a, 0);
    must_eq(a->pages, 0);
    q_arena_destroy(a);
    must_eq(q_arenas.nr, 0);
    q_leave();
    q_slub_trim();
    q_vtrim(true);
    must(q_pages_in_use <= before + ((size_t)8 << (q_slab_order())));
    core_check();
}

Test(arenas, random_flat, .timeout = 600)
{
    random_blocks(CORE_FLAT, 4000);
}

Test(arenas, random_discontiguous, .timeout = 600)
{
    random_blocks(CORE_NUMA, 100000);
}

Test(arenas, random_sparse, .timeout = 600)
{
    random_blocks(CORE_SPARSE, 6 << 20);
}

/* Whatever address one asks about, the answer is of that address alone. */
Test(arenas, any_address, .timeout = 600)
{
    struct q_arena_how how = {.single = true};
    struct q_arena_spot spot;

    core_start_slabs(CORE_FLAT);
    q_enter();
    struct q_arena *a = q_arena_create(&how);
    char *p = q_arena_alloc(a, 48, 16, false), *block = q_arena_alloc(a, 100000, 16, false);
    must(p != NULL && block != NULL);
    char *start = (char *)((uintptr_t)p & ~(uintptr_t)65535);
    for (char *at = start - 65536; at < start + 131072; at++) {
        q_arena_look(at, &spot);
        must((spot.what == Q_ARENA_LIVE) == (at == p || at == block));
    }
    for (char *at = block - 70000; at < block + 200000; at += 8) {
        q_arena_look(at, &spot);
        must((spot.what == Q_ARENA_LIVE) == (at == p || at == block));
    }
    q_arena_destroy(a);
    q_arena_look(p, &spot);
    must(spot.what == Q_ARENA_NONE);
    q_leave();
}
