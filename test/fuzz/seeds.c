/* seeds.c - small images, good ones, made by hand: where the fuzzer begins. */
#include <string.h>
#include <unistd.h>

#include "cow/crc32c.h"
#include "cow/image.h"
#include "image.h"

#define BASE                                                                                       \
    (UINTPTR_MAX > UINT32_MAX ? (uint64_t)0x123400000000 : (uint64_t)0x52340000) /* hardly in use */

struct maker {
    uint8_t *out;
    size_t len;
    uint64_t nr_records, nr_pages;
};

static void put(struct maker *m, const void *p, size_t n)
{
    memcpy(m->out + m->len, p, n);
    m->len += n;
}

static void pad(struct maker *m, size_t start)
{
    size_t end = start + q_align_up(m->len - start, q_page_size());

    memset(m->out + m->len, 0, end - m->len);
    m->len = end;
}

static void put_record(struct maker *m, size_t start, uint64_t page, unsigned nr, int fill)
{
    struct q_image_record r = {.magic = nr > 0 ? Q_IMAGE_RECORD : Q_IMAGE_END,
                               .nr = nr,
                               .addr = nr > 0 ? BASE + page * q_page_size() : m->nr_records,
                               .pages_before = m->nr_pages};

    put(m, &r, sizeof(r));
    pad(m, start);
    for (unsigned i = 0; i < nr; i++, m->len += q_page_size())
        memset(m->out + m->len, fill + (int)i, q_page_size());
    m->nr_records += nr > 0;
    m->nr_pages += nr;
}

/* Stretches of 40 and 3 pages; slabs, a run. */
static void put_image(struct maker *m, unsigned flags, uint64_t id, uint64_t base, int fill,
                      unsigned pages)
{
    size_t start = m->len, page = q_page_size();
    struct q_range at[2] = {{BASE, BASE + 40 * page}, {BASE + 100 * page, BASE + 103 * page}};
    struct q_block block[3] = {
        {BASE, 32 * page, 48}, {BASE + 32 * page, 8 * page, 0}, {BASE + 100 * page, 3 * page, 0}};
    bool sized = (flags & Q_IMAGE_SIZED) != 0;
    struct q_image_header h = {.version = Q_IMAGE_VERSION,
                               .page_shift = q_page_shift,
                               .flags = flags | Q_IMAGE_OURS,
                               .nr_ranges = 2,
                               .bytes = 43 * page,
                               .nr_blocks = sized ? 3 : 0,
                               .root = BASE + 96,
                               .id = {id, 1},
                               .base = {base, base != 0}};

    m->nr_records = m->nr_pages = 0;
    put(m, &h, sizeof(h));
    put(m, at, sizeof(at));
    if (sized)
        put(m, block, sizeof(block));
    pad(m, start);
    put_record(m, start, fill % 7, pages, fill);
    put_record(m, start, 101, 1, fill + 50);
    put_record(m, start, 0, 0, 0);
    fuzz_repair(m->out + start, m->len - start);
}

size_t fuzz_seed(unsigned k, uint8_t *out)
{
    static const uint8_t flags[FUZZ_SEEDS] = {0,
                                              FUZZ_REPAIR | FUZZ_SAVE,
                                              FUZZ_REPAIR | FUZZ_MAP,
                                              FUZZ_REPAIR | FUZZ_SAVE,
                                              FUZZ_REPAIR | FUZZ_MAP,
                                              FUZZ_REPAIR};
    struct maker m = {.out = out, .len = FUZZ_HEAD};
    unsigned pages = (flags[k] & FUZZ_MAP) != 0 ? 20 : 3; /* so many are mapped, fewer read */

    put_image(&m, k == 1 ? 0 : Q_IMAGE_SIZED, 5, 0, 1, pages);
    uint32_t len = (uint32_t)(m.len - FUZZ_HEAD);
    out[0] = flags[k];
    memcpy(out + 1, &len, sizeof(len));
    if (k >= 3)
        put_image(&m, Q_IMAGE_SIZED | Q_IMAGE_INCREMENT, 6, k == 5 ? 9 : 5, 4, pages);
    return m.len;
}
