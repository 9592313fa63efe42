/* save.c - writing an image. See image.h. */
#include <string.h>
#include <sys/uio.h>

#include "cow/crc32c.h"
#include "cow/image.h"

#define BYTES_PER_REPORT ((size_t)4 << 20)

struct writer {
    struct quire_snapshot *s;
    int fd;
    char *pages; /* a batch of them; a mapping, so that no heap memory is written */
    struct q_image_record record;
    uint64_t nr_records, nr_pages;
    size_t done, reported;
    int (*progress)(void *arg, size_t done, size_t total);
    void *arg;
};

static int put(int fd, const void *data, size_t len)
{
    const char *p = data;

    while (len > 0) {
        long n = q_arch_syscall6(SYS_write, fd, (long)p, (long)len, 0, 0, 0);

        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? EIO : (int)-n;
        p += n;
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
    struct q_image_record *r = &w->record;

    *r = (struct q_image_record){
        .magic = Q_IMAGE_RECORD, .nr = nr, .addr = addr, .pages_before = w->nr_pages};
    for (unsigned i = 0; i < nr; i++)
        r->page_crc[i] = q_crc32c(0, pages + ((size_t)i << q_page_shift), q_page_size());
    r->crc = q_crc32c(0, r, offsetof(struct q_image_record, crc));
    w->nr_records++;
    w->nr_pages += nr;
    int error = put(w->fd, r, sizeof(*r));
    return error != 0 ? error : put(w->fd, pages, (size_t)nr << q_page_shift);
}

/* A batch of pages: those that are not zero, run by run. */
static int put_batch(struct writer *w, uintptr_t addr, unsigned nr)
{
    if (w->s->method == QUIRE_SNAPSHOT_BY_PROTECTION)
        q_store_populate();
    int error = q_snapshot_copy(w->s, addr, w->pages, (size_t)nr << q_page_shift);

    for (unsigned i = 0; i < nr && error == 0;) {
        unsigned from = i;

        while (i < nr && !all_zero(w->pages + ((size_t)i << q_page_shift)))
            i++;
        if (i > from)
            error = put_record(w, addr + ((uintptr_t)from << q_page_shift),
                               w->pages + ((size_t)from << q_page_shift), i - from);
        else
            i++;
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

static int put_header(struct writer *w)
{
    const struct q_ranges *r = &w->s->ranges;
    struct q_image_header h = {
        .version = Q_IMAGE_VERSION,
        .page_shift = q_page_shift,
        .nr_ranges = r->nr,
        .bytes = r->bytes,
        .ranges_crc = q_crc32c(0, r->at, r->nr * sizeof(*r->at)),
    };

    memcpy(h.magic, Q_IMAGE_MAGIC, sizeof(h.magic));
    h.crc = q_crc32c(0, &h, offsetof(struct q_image_header, crc));
    int error = put(w->fd, &h, sizeof(h));
    return error != 0 ? error : put(w->fd, r->at, r->nr * sizeof(*r->at));
}

static int put_all(struct writer *w)
{
    size_t batch = (size_t)Q_IMAGE_BATCH << q_page_shift;
    int error = put_header(w);

    for (size_t i = 0; i < w->s->ranges.nr && error == 0; i++) {
        uintptr_t at = w->s->ranges.at[i].start, end = w->s->ranges.at[i].end;

        while (at < end && error == 0) {
            size_t len = q_min(batch, end - at);

            error = put_batch(w, at, (unsigned)(len >> q_page_shift));
            at += len;
            w->done += len;
            if (error == 0)
                error = report(w);
        }
    }
    if (error != 0)
        return error;
    w->record = (struct q_image_record){
        .magic = Q_IMAGE_END, .addr = w->nr_records, .pages_before = w->nr_pages};
    w->record.crc = q_crc32c(0, &w->record, offsetof(struct q_image_record, crc));
    return put(w->fd, &w->record, sizeof(w->record));
}

Q_PUBLIC int quire_snapshot_save(quire_snapshot_t *s, int fd,
                                 int (*progress)(void *arg, size_t done, size_t total), void *arg)
{
    struct writer w = {.s = s, .fd = fd, .progress = progress, .arg = arg};
    size_t bytes = (size_t)Q_IMAGE_BATCH << q_page_shift;
    int error = q_snapshot_check(s);

    if (error == 0) {
        w.pages = q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);
        error = w.pages != NULL ? put_all(&w) : ENOMEM;
        if (w.pages != NULL)
            q_munmap(w.pages, bytes);
    }
    if (error == 0)
        return 0;
    errno = error;
    return -1;
}
