/*
 * save.c - writing an image. See image.h.
 *
 * A batch of 2 MiB is copied from the snapshot, and its pages that matter go
 * out, run by run: those that are not zero; of an increment, those that
 * differ from the older snapshot. Holes of a few pages are written, too,
 * because each run is a record, and a mapping for who maps the image back.
 * Draining drops each batch when it is written (drop.c).
 */
#include <string.h>
#include <sys/uio.h>

#include "cow/crc32c.h"
#include "cow/image.h"

#define BYTES_PER_REPORT ((size_t)4 << 20)

#define HOLE_MAX 16u /* pages */

struct writer {
    struct quire_snapshot *s;
    const struct quire_snapshot *since; /* NULL: all of it */
    int fd;
    bool drain;   /* drop what is written */
    char *pages;  /* a batch of them; a mapping, so that no heap memory is written */
    char *before; /* one page, as `since` shows it */
    struct q_image_record *record; /* with zeroes behind it up to a page; so are these mappings */
    uint64_t nr_records, nr_pages;
    size_t written, done, reported;
    int (*progress)(void *arg, size_t done, size_t total);
    void *arg;
};

static int put(struct writer *w, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        long n = q_arch_syscall6(SYS_write, w->fd, (long)p, (long)len, 0, 0, 0);

        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? EIO : (int)-n;
        p += n;
        w->written += (size_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static bool all_zero(const char *page)
{
    const uint64_t *w = (const uint64_t *)page;
    size_t nr = q_page_size() / sizeof(*w);

    for (size_t i = 0; i < nr; i += 8)
        if ((w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7]) !=
            0)
            return false;
    return true;
}

static int put_record(struct writer *w, uintptr_t addr, const char *pages, unsigned nr)
{
    struct q_image_record *r = w->record;

    *r = (struct q_image_record){
        .magic = Q_IMAGE_RECORD, .nr = nr, .addr = addr, .pages_before = w->nr_pages};
    for (unsigned i = 0; i < nr; i++)
        r->page_crc[i] = q_crc32c(0, pages + ((size_t)i << q_page_shift), q_page_size());
    r->crc = q_crc32c(0, r, offsetof(struct q_image_record, crc));
    w->nr_records++;
    w->nr_pages += nr;
    int error = put(w, r, q_image_record_bytes());
    return error != 0 ? error : put(w, pages, (size_t)nr << q_page_shift);
}

/* Whether a page has to be in an increment. */
static int differs(struct writer *w, uintptr_t addr, const char *page, bool *yes)
{
    const struct quire_snapshot *a = w->since, *b = w->s;

    *yes = true;
    if (q_ranges_find(&a->ranges, addr) == NULL) {
        *yes = !all_zero(page);
        return 0;
    }
    /* The same version, or the page itself for both: nobody wrote to it in between. */
    if (a->method == QUIRE_SNAPSHOT_BY_PROTECTION && b->method == QUIRE_SNAPSHOT_BY_PROTECTION &&
        q_store_find(addr, a->epoch) == q_store_find(addr, b->epoch)) {
        *yes = false;
        return q_snapshot_error_at(a, addr);
    }
    int error = q_snapshot_copy(a, addr, w->before, q_page_size());
    if (error == 0)
        *yes = memcmp(w->before, page, q_page_size()) != 0;
    return error;
}

static int matters(struct writer *w, uintptr_t addr, const char *page, bool *yes)
{
    if (w->since != NULL)
        return differs(w, addr, page, yes);
    *yes = !all_zero(page);
    return 0;
}

/* A batch of pages: those that matter, run by run, and small holes between them. */
static int put_batch(struct writer *w, uintptr_t addr, unsigned nr)
{
    unsigned hole_max = w->since == NULL ? HOLE_MAX : 0, from = 0, to = 0; /* the run so far */

    if (w->s->method == QUIRE_SNAPSHOT_BY_PROTECTION)
        q_store_populate();
    int error = q_snapshot_copy(w->s, addr, w->pages, (size_t)nr << q_page_shift);

    for (unsigned i = 0; i <= nr && error == 0; i++) {
        char *page = w->pages + ((size_t)i << q_page_shift);
        bool yes = false;

        if (i < nr)
            error = matters(w, addr + ((uintptr_t)i << q_page_shift), page, &yes);
        if (error == 0 && to > from && (i == nr || (yes && i - to > hole_max)))
            error = put_record(w, addr + ((uintptr_t)from << q_page_shift),
                               w->pages + ((size_t)from << q_page_shift), to - from);
        if (yes) {
            from = to > from && i - to <= hole_max ? from : i;
            to = i + 1;
        }
    }
    return error;
}

static int report(struct writer *w)
{
    if (w->progress == NULL ||
        (w->done - w->reported < BYTES_PER_REPORT && w->done < w->s->ranges.bytes))
        return 0;
    w->reported = w->done;
    return w->progress(w->arg, w->done, w->s->ranges.bytes) != 0 ? ECANCELED : 0;
}

/* Zeroes up to a multiple of a page. The record is not in use yet. */
static int put_padding(struct writer *w)
{
    size_t len = q_align_up(w->written, q_page_size()) - w->written;

    memset(w->record, 0, len);
    return put(w, w->record, len);
}

static int put_header(struct writer *w)
{
    const struct q_ranges *r = &w->s->ranges;
    const struct q_blocks *b = &w->s->blocks;
    struct q_image_header h = {
        .version = Q_IMAGE_VERSION,
        .page_shift = q_page_shift,
        .flags = (w->since != NULL ? Q_IMAGE_INCREMENT : 0) | (w->s->sized ? Q_IMAGE_SIZED : 0) |
                 Q_IMAGE_OURS,
        .nr_ranges = r->nr,
        .bytes = r->bytes,
        .nr_blocks = b->nr,
        .root = w->s->root,
        .id = {w->s->id[0], w->s->id[1]},
        .ranges_crc = q_crc32c(0, r->at, r->nr * sizeof(*r->at)),
        .blocks_crc = q_crc32c(0, b->at, b->nr * sizeof(*b->at)),
    };

    memcpy(h.magic, Q_IMAGE_MAGIC, sizeof(h.magic));
    if (w->since != NULL)
        memcpy(h.base, w->since->id, sizeof(h.base));
    h.crc = q_crc32c(0, &h, offsetof(struct q_image_header, crc));
    int error = put(w, &h, sizeof(h));
    if (error == 0)
        error = put(w, r->at, r->nr * sizeof(*r->at));
    if (error == 0)
        error = put(w, b->at, b->nr * sizeof(*b->at));
    return error == 0 ? put_padding(w) : error;
}

static int put_all(struct writer *w)
{
    size_t batch = q_image_batch();
    int error = put_header(w);

    for (size_t i = 0; i < w->s->ranges.nr && error == 0; i++) {
        uintptr_t at = w->s->ranges.at[i].start, end = w->s->ranges.at[i].end;

        while (at < end && error == 0) {
            size_t len = q_min(q_align_down(at, batch) + batch, end) - at;

            error = put_batch(w, at, (unsigned)(len >> q_page_shift));
            at += len;
            w->done += len;
            if (error == 0 && w->drain)
                error = q_snapshot_drop(w->s, at);
            if (error == 0)
                error = report(w);
        }
    }
    if (error != 0)
        return error;
    *w->record = (struct q_image_record){
        .magic = Q_IMAGE_END, .addr = w->nr_records, .pages_before = w->nr_pages};
    w->record->crc = q_crc32c(0, w->record, offsetof(struct q_image_record, crc));
    return put(w, w->record, q_image_record_bytes());
}

/* All images of a snapshot have its id: an increment may be made against any of them. */
static void name_it(struct quire_snapshot *s)
{
    q_cow_lock_api();
    if ((s->id[0] | s->id[1]) == 0 &&
        q_arch_syscall6(SYS_getrandom, (long)s->id, sizeof(s->id), 0, 0, 0, 0) != sizeof(s->id)) {
        s->id[0] = q_clock_fine() | 1;
        s->id[1] = (uint64_t)q_getpid() << 32 ^ (uintptr_t)s;
    }
    q_cow_unlock_api();
}

static int save(struct writer *w)
{
    size_t page = q_page_size(), bytes = q_image_batch() + page + q_image_record_bytes();
    char *m = q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);

    if (m == NULL)
        return ENOMEM;
    w->record = (struct q_image_record *)m;
    w->before = m + q_image_record_bytes();
    w->pages = w->before + page;
    name_it(w->s);
    int error = put_all(w);
    q_munmap(m, bytes);
    return error;
}

static int end(int error)
{
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}

Q_PUBLIC int quire_snapshot_save(quire_snapshot_t *s, int fd,
                                 int (*progress)(void *arg, size_t done, size_t total), void *arg)
{
    struct writer w = {.s = s, .fd = fd, .progress = progress, .arg = arg};
    int error = q_snapshot_check(s);

    return end(error == 0 ? save(&w) : error);
}

Q_PUBLIC int quire_snapshot_drain(quire_snapshot_t *s, int fd,
                                  int (*progress)(void *arg, size_t done, size_t total), void *arg)
{
    struct writer w = {.s = s, .fd = fd, .drain = true, .progress = progress, .arg = arg};
    int error = q_snapshot_may_drop(s); /* before anything is written */

    return end(error == 0 ? save(&w) : error);
}

Q_PUBLIC int quire_snapshot_save_since(quire_snapshot_t *s, quire_snapshot_t *older, int fd,
                                       int (*progress)(void *arg, size_t done, size_t total),
                                       void *arg)
{
    struct writer w = {.s = s, .since = older, .fd = fd, .progress = progress, .arg = arg};
    int error = q_snapshot_check(s);

    if (error == 0)
        error = q_snapshot_check(older);
    if (error == 0 && (s == older || (older->id[0] | older->id[1]) == 0 || q_cow_gone(older) != 0))
        error = EINVAL;
    return end(error == 0 ? save(&w) : error);
}

Q_PUBLIC int quire_snapshot_set_root(quire_snapshot_t *s, const void *root)
{
    int error = q_snapshot_check(s);

    if (error == 0) {
        s->root = (uintptr_t)root;
        return 0;
    }
    errno = error;
    return -1;
}

Q_PUBLIC void *quire_snapshot_root(const quire_snapshot_t *s)
{
    return q_snapshot_check(s) == 0 ? (void *)(uintptr_t)s->root : NULL;
}
