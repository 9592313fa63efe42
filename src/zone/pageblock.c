/* pageblock.c - see pageblock.h. */
#include "zone/pageblock.h"

#include "base/msg.h"
#include "base/opt.h"

/* A stretch of pages inside one pageblock. */
struct span {
    struct q_pageblock *block;
    unsigned first, nr;
};

/* Cut the first stretch off [*pfn, *pfn + *nr). */
static struct span next_span(size_t *pfn, size_t *nr)
{
    size_t per_block = (size_t)1 << q_pageblock_order();
    struct span s = {.block = q_pageblock_of(*pfn), .first = (unsigned)(*pfn & (per_block - 1))};

    s.nr = (unsigned)q_min(per_block - s.first, *nr);
    *pfn += s.nr;
    *nr -= s.nr;
    return s;
}

/* Bits [from, to) of word w of the bitmap fall into the stretch. */
static unsigned from_bit(const struct span *s, unsigned w)
{
    return s->first > w * 64 ? s->first - w * 64 : 0;
}

static unsigned to_bit(const struct span *s, unsigned w)
{
    return (unsigned)q_min(s->first + s->nr - w * 64, 64);
}

static uint64_t span_mask(const struct span *s, unsigned w)
{
    unsigned to = to_bit(s, w);

    return (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from_bit(s, w)) - 1);
}

static unsigned first_word(const struct span *s)
{
    return s->first / 64;
}

static unsigned last_word(const struct span *s)
{
    return (s->first + s->nr - 1) / 64;
}

static unsigned count_written(const struct span *s)
{
    unsigned n = 0;

    for (unsigned w = first_word(s); w <= last_word(s); w++) {
        uint64_t mask = span_mask(s, w), bits = s->block->written[w] & mask;

        /* Mostly all or nothing; without an instruction for it, counting takes longer. */
        if (bits == mask)
            n += to_bit(s, w) - from_bit(s, w);
        else if (bits != 0)
            n += (unsigned)__builtin_popcountll(bits);
    }
    return n;
}

static void set_written(const struct span *s)
{
    for (unsigned w = first_word(s); w <= last_word(s); w++)
        s->block->written[w] |= span_mask(s, w);
}

static void clear_written(const struct span *s)
{
    for (unsigned w = first_word(s); w <= last_word(s); w++)
        s->block->written[w] &= ~span_mask(s, w);
}

static void change_dirty(struct q_zone *zone, struct q_pageblock *block, int by)
{
    if (by == 0)
        return;
    if (block->nr_dirty == 0)
        q_list_add_tail(&zone->dirty, &block->dirty);
    block->nr_dirty = (uint16_t)(block->nr_dirty + by);
    zone->nr_dirty += (size_t)(ptrdiff_t)by;
    if (block->nr_dirty == 0)
        q_list_del(&block->dirty);
}

void q_pageblock_freed(struct q_zone *zone, size_t pfn, size_t nr, size_t written)
{
    uint32_t now = q_now_ms();

    while (nr > 0) {
        struct span s = next_span(&pfn, &nr);
        bool whole = s.block->huge && q_opt.limit != 0; /* all of it holds memory: see reclaim.c */

        if (written > 0 || whole) {
            struct span w = s;
            w.nr = whole ? s.nr : (unsigned)q_min(s.nr, written);
            set_written(&w);
            written -= q_min(written, w.nr);
        }
        s.block->nr_free = (uint16_t)(s.block->nr_free + s.nr);
        s.block->stamp_ms = now;
        change_dirty(zone, s.block, (int)count_written(&s));
    }
}

/* Pages of the stretch up to the last written one. */
static unsigned written_end(const struct span *s)
{
    for (unsigned w = last_word(s) + 1; w-- > first_word(s);) {
        uint64_t bits = s->block->written[w] & span_mask(s, w);

        if (bits != 0)
            return w * 64 + q_fls(bits) + 1 - s->first;
    }
    return 0;
}

bool q_pageblock_is_fresh(const struct q_page *page, unsigned order)
{
    size_t pfn = q_page_to_pfn(page), nr = (size_t)1 << order;

    while (nr > 0) {
        struct span s = next_span(&pfn, &nr);

        /* In a huge page all of it holds memory, once one page does. */
        if (s.block->nr_dirty > 0 && (s.block->huge || written_end(&s) > 0))
            return false;
    }
    return true;
}

/* Pages that hold nothing are given out, where some that did were given back a moment ago. */
static void note_missed(struct q_zone *zone, size_t fresh)
{
    size_t missed = q_min(fresh, zone->nr_gone);

    zone->nr_gone -= missed;
    zone->nr_missed += missed;
}

size_t q_pageblock_taken(struct q_zone *zone, size_t pfn, size_t nr)
{
    size_t start = pfn, end = 0, fresh = nr;

    while (nr > 0) {
        size_t at = pfn - start;
        struct span s = next_span(&pfn, &nr);
        unsigned written = count_written(&s);

        q_assert(s.block->nr_free >= s.nr);
        s.block->nr_free = (uint16_t)(s.block->nr_free - s.nr);
        change_dirty(zone, s.block, -(int)written);
        if (written > 0)
            end = at + written_end(&s);
        fresh -= written;
    }
    note_missed(zone, fresh);
    return end;
}

void q_pageblock_cleaned(struct q_zone *zone, size_t pfn, size_t nr)
{
    struct span s = next_span(&pfn, &nr);
    unsigned written = count_written(&s);

    clear_written(&s);
    change_dirty(zone, s.block, -(int)written);
}

bool q_pageblock_next_dirty(size_t *pfn, size_t *nr)
{
    size_t per_block = (size_t)1 << q_pageblock_order();
    size_t end = q_align_down(*pfn, per_block) + per_block, at = *pfn;

    while (at < end) {
        struct q_page *page = q_pfn_to_page(at);

        /* A slab and a per-CPU block may change into each other meanwhile; both are skipped. */
        uint8_t type = q_page_type_of(page);

        if (type != Q_PAGE_BUDDY) {
            /* Skip what is in use: a block's head says its length; unused frames one by one. */
            size_t skip = type == Q_PAGE_RUN    ? page->nr
                          : type == Q_PAGE_SLAB ? (size_t)1 << q_slab_order()
                          : type == Q_PAGE_PCP
                              ? (size_t)1 << __atomic_load_n(&page->order, __ATOMIC_RELAXED)
                              : 1;
            at += skip > 0 ? skip : 1;
            continue;
        }
        size_t len = q_min((size_t)1 << page->order, end - at), from = at, rest = len;
        struct span s = next_span(&from, &rest);
        if (count_written(&s) > 0) {
            *pfn = at;
            *nr = len;
            return true;
        }
        at += len;
    }
    return false;
}

void q_zone_verify(struct q_zone *zone)
{
    size_t dirty = 0;

    q_buddy_verify(&zone->buddy);
    for (struct q_list *l = zone->dirty.next; l != NULL && l != &zone->dirty; l = l->next) {
        struct q_pageblock *block = q_container_of(l, struct q_pageblock, dirty);

        if (block->nr_dirty == 0 || block->nr_dirty > block->nr_free)
            q_die("zone %s of node %u: a pageblock counts %u dirty of %u free pages",
                  q_zone_names[zone->type], zone->nid, block->nr_dirty, block->nr_free);
        dirty += block->nr_dirty;
    }
    if (dirty != zone->nr_dirty)
        q_die("zone %s of node %u: %zu dirty pages counted, its blocks have %zu",
              q_zone_names[zone->type], zone->nid, zone->nr_dirty, dirty);
}
