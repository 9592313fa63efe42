/*
 * map.c - an image becomes memory again, where it was, page by page on first touch.
 *
 *   file     | header ... | record | pages       | record | pages      | ...
 *                                    |                       |
 *   memory   [ stretch:  zeroes | mapped  | zeroes | mapped  | zeroes ]   [ stretch ...
 *
 * Each stretch is mapped without content first, which also finds out whether
 * its addresses are free; then the pages of the file are mapped over it,
 * private and writable. Of an increment the pages lie scattered: pieces below
 * MAP_MIN are read instead, so that there are few mappings (the kernel allows
 * 65,530 to a process).
 *
 * A page of a chain of images comes from the newest that has it, unless one
 * in between lacks the address: there it was free, and what came later is new.
 *
 * The memory stays until the process ends. Its blocks are found by an index
 * that came with the image, so free() and realloc() know them; they never go
 * back to the zones, which do not know these addresses.
 */
#include "cow/map.h"

#include <string.h>

#include "cow/image.h"
#include "zone/hold.h"
#include "zone/vmalloc.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

#define MAP_MIN ((size_t)64 << 10)

struct q_mapped *_Atomic q_mapped_list;

static long map_at(uintptr_t addr, size_t len, int flags, int fd, uint64_t offset)
{
    return q_mmap_file((void *)addr, len, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_NORESERVE | flags, fd, offset);
}

static void unmap_ranges(const struct q_ranges *r, size_t nr)
{
    for (size_t i = 0; i < nr; i++)
        q_munmap((void *)r->at[i].start, r->at[i].end - r->at[i].start);
}

/* Memory of zeroes at exactly these addresses. */
static int claim_ranges(const struct q_ranges *r)
{
    for (size_t i = 0; i < r->nr; i++) {
        size_t len = r->at[i].end - r->at[i].start;
        long at = map_at(r->at[i].start, len, MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

        if ((uintptr_t)at == r->at[i].start)
            continue;
        /* Before Linux 4.17 the address is a wish only. */
        if (!q_sys_failed(at))
            q_munmap((void *)at, len);
        unmap_ranges(r, i);
        return q_sys_failed(at) && at != -EEXIST ? (int)-at : EEXIST;
    }
    return 0;
}

static int read_pages(const struct q_image *m, const struct q_image_run *run, uintptr_t at,
                      uintptr_t end)
{
    int error = 0;

    for (; at < end && error == 0; at += q_page_size())
        error = q_image_read_page(m, run, at, (char *)at);
    return error;
}

static int place(const struct q_image *m, const struct q_image_run *run, uintptr_t at,
                 uintptr_t end)
{
    if (end - at < MAP_MIN)
        return read_pages(m, run, at, end);
    long ret =
        map_at(at, end - at, MAP_FIXED, m->file.fd, run->offset + (uint64_t)(at - run->addr));
    return q_sys_failed(ret) ? (int)-ret : 0;
}

/* Whether all newer images than `from` have addr; *end: up to where that is so. */
static bool shows(const struct quire_snapshot *top, const struct quire_snapshot *from,
                  uintptr_t addr, uintptr_t *end)
{
    bool all = true;

    for (const struct quire_snapshot *s = top; s != from; s = s->base) {
        size_t i = q_ranges_after(&s->ranges, addr);

        if (i == s->ranges.nr) {
            all = false;
        } else if (s->ranges.at[i].start <= addr) {
            *end = q_min(*end, s->ranges.at[i].end);
        } else {
            *end = q_min(*end, s->ranges.at[i].start);
            all = false;
        }
    }
    return all;
}

static int place_image(const struct quire_snapshot *top, const struct quire_snapshot *s)
{
    int error = 0;

    for (size_t i = 0; i < s->image->nr && error == 0; i++) {
        const struct q_image_run *run = &s->image->run[i];
        uintptr_t at = run->addr, end = at + ((uintptr_t)run->nr << q_page_shift), to;

        for (; at < end && error == 0; at = to) {
            to = end;
            if (shows(top, s, at, &to))
                error = place(s->image, run, at, to);
        }
    }
    return error;
}

/* The base first, and what is newer over it. */
static int place_all(const struct quire_snapshot *top)
{
    const struct quire_snapshot *done = NULL;
    int error = 0;

    while (done != top && error == 0) {
        const struct quire_snapshot *s = top;

        while (s->base != done)
            s = s->base;
        error = place_image(top, s);
        done = s;
    }
    return error;
}

static int can_be_mapped(const struct quire_snapshot *s)
{
    int error = q_snapshot_check(s);

    if (error != 0)
        return error;
    if (s->method != QUIRE_SNAPSHOT_BY_IMAGE)
        return EINVAL;
    if (!s->sized)
        return ENOTSUP;
    for (; s != NULL; s = s->base)
        if ((s->image->start & (q_page_size() - 1)) != 0)
            return EINVAL;
    return 0;
}

static struct q_mapped *make_entry(const struct quire_snapshot *s)
{
    struct q_mapped *m =
        q_mmap(NULL, q_align_up(sizeof(*m), q_page_size()), PROT_READ | PROT_WRITE, 0);

    if (m == NULL)
        return NULL;
    if (!q_ranges_reserve(&m->ranges, s->ranges.nr) ||
        (s->blocks.nr > 0 && !q_grow_array((void **)&m->blocks.at, &m->blocks.room, s->blocks.nr,
                                           sizeof(*m->blocks.at)))) {
        q_ranges_free(&m->ranges);
        q_munmap(m, q_align_up(sizeof(*m), q_page_size()));
        return NULL;
    }
    memcpy(m->ranges.at, s->ranges.at, s->ranges.nr * sizeof(*s->ranges.at));
    m->ranges.nr = s->ranges.nr;
    m->ranges.bytes = s->ranges.bytes;
    if (s->blocks.nr > 0)
        memcpy(m->blocks.at, s->blocks.at, s->blocks.nr * sizeof(*s->blocks.at));
    m->blocks.nr = s->blocks.nr;
    return m;
}

/* api_lock held. */
static int map_image(const struct quire_snapshot *s)
{
    struct q_mapped *m = make_entry(s);
    int error = m != NULL ? claim_ranges(&s->ranges) : ENOMEM;

    if (error == 0) {
        error = place_all(s);
        if (error != 0)
            unmap_ranges(&s->ranges, s->ranges.nr);
    }
    if (error == 0) {
        m->next = atomic_load_explicit(&q_mapped_list, memory_order_relaxed);
        /* Release: see q_mapped_first(). */
        atomic_store_explicit(&q_mapped_list, m, memory_order_release);
    } else if (m != NULL) {
        q_ranges_free(&m->ranges);
        q_blocks_free(&m->blocks);
        q_munmap(m, q_align_up(sizeof(*m), q_page_size()));
    }
    return error;
}

Q_PUBLIC int quire_snapshot_map(quire_snapshot_t *s)
{
    int error = can_be_mapped(s);

    if (error == 0) {
        q_cow_lock_api();
        error = map_image(s);
        q_cow_unlock_api();
    }
    if (error == 0)
        return 0;
    errno = error == EBADMSG ? EIO : error;
    return -1;
}

static const struct q_mapped *find(const void *p)
{
    const struct q_mapped *m = q_mapped_first();

    while (m != NULL && q_ranges_find(&m->ranges, (uintptr_t)p) == NULL)
        m = m->next;
    return m;
}

bool q_mapped_holds(const void *p)
{
    return find(p) != NULL;
}

size_t q_mapped_size(const void *p)
{
    const struct q_mapped *m = find(p);

    return m != NULL ? q_blocks_size(&m->blocks, (uintptr_t)p) : 0;
}

bool q_mapped_free(void *p)
{
    size_t bytes = q_mapped_size(p), whole = q_align_down(bytes, q_page_size());

    if (bytes == 0)
        return false;
    if (((uintptr_t)p & (q_page_size() - 1)) != 0 || whole == 0)
        return true;
    /* Pages as the file has them cost nothing. The lock keeps a cut away: see hold.h. */
    q_lock(&q_vm_lock);
    if (!q_held(p, whole))
        q_madvise(p, whole, MADV_DONTNEED);
    q_unlock(&q_vm_lock);
    return true;
}
