/*
 * image.c - opening an image. See image.h.
 *
 * Loading reads headers only, 2 KiB for each 2 MiB. Nothing in them is
 * believed: whatever a file says, the worst that comes of it is EBADMSG.
 */
#include "cow/image.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cow/crc32c.h"

#define LOWEST ((uintptr_t)1 << 16) /* the kernel keeps the first pages to itself */
#define HIGHEST (Q_WIDE_LONG ? UINTPTR_MAX / 2 : UINTPTR_MAX) /* and half of what there is */

struct reader {
    int fd;
    uint64_t at; /* where in the file */
    struct quire_snapshot *s;
    struct q_image *image;
    uint64_t nr_pages;
};

bool q_grow_array(void **array, size_t *room, size_t need, size_t size)
{
    size_t bytes = q_align_up(q_max(2 * *room, need) * size, q_page_size());
    void *now;

    if (need <= *room)
        return true;
    if (need > SIZE_MAX / 4 / size)
        return false;
    if (*array == NULL)
        now = q_mmap(NULL, bytes, PROT_READ | PROT_WRITE, 0);
    else
        now = q_mremap(*array, q_align_up(*room * size, q_page_size()), bytes, MREMAP_MAYMOVE);
    if (now == NULL)
        return false;
    *array = now;
    *room = bytes / size;
    return true;
}

/* 0; EBADMSG where the file ends; or an errno. */
int q_image_get(int fd, void *buf, size_t len, uint64_t at)
{
    char *p = buf;

    while (len > 0) {
        long n = q_cow_pread(fd, p, len, at);

        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n == 0 ? EBADMSG : (int)-n;
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static int get(struct reader *r, void *buf, size_t len)
{
    int error = q_image_get(r->fd, buf, len, r->at);

    r->at += len;
    return error;
}

/* What fills up a page is zero, so that no byte of a file is without meaning. */
static int get_padding(struct reader *r)
{
    uint64_t end = r->image->start + q_align_up(r->at - r->image->start, q_page_size());
    char some[2048]; /* what is left of a page after a record, at once */
    int error = 0;

    while (r->at < end && error == 0) {
        size_t n = q_min(sizeof(some), end - r->at);

        error = get(r, some, n);
        for (size_t i = 0; i < n && error == 0; i++)
            error = some[i] != 0 ? EBADMSG : 0;
    }
    return error;
}

static int get_header(struct reader *r, struct q_image_header *h)
{
    int error = get(r, h, sizeof(*h));

    if (error != 0)
        return error;
    if (memcmp(h->magic, Q_IMAGE_MAGIC, sizeof(h->magic)) != 0 ||
        h->crc != q_crc32c(0, h, offsetof(struct q_image_header, crc)))
        return EBADMSG;
    if (h->version != Q_IMAGE_VERSION || h->page_shift != q_page_shift ||
        (h->flags & Q_IMAGE_NARROW) != Q_IMAGE_OURS)
        return ENOTSUP;
    bool sane = h->nr_ranges > 0 && h->nr_ranges <= Q_IMAGE_MAX_RANGES &&
                h->nr_blocks <= Q_IMAGE_MAX_BLOCKS && (h->id[0] | h->id[1]) != 0 &&
                ((h->flags & Q_IMAGE_SIZED) != 0 || h->nr_blocks == 0);
    return sane ? 0 : EBADMSG;
}

/* An array of nr entries, whole in the file: memory is asked for as it is read. */
static int get_array(struct reader *r, void **array, size_t *room, uint64_t nr, size_t size)
{
    size_t step = ((size_t)1 << 20) / size, done = 0;
    int error = nr <= SIZE_MAX / size ? 0 : ENOMEM;

    while (done < nr && error == 0) {
        size_t n = q_min(step, nr - done);

        error = q_grow_array(array, room, done + n, size) ? 0 : ENOMEM;
        if (error == 0)
            error = get(r, (char *)*array + done * size, n * size);
        done += n;
    }
    return error;
}

/* The stretches must be what q_ranges_collect() makes: ascending, apart, whole pages, in user space. */
static bool ranges_make_sense(const struct q_ranges *r, uint64_t bytes)
{
    uintptr_t last = LOWEST;
    uint64_t sum = 0;

    for (size_t i = 0; i < r->nr; i++) {
        const struct q_range *at = &r->at[i];

        if (at->start < last || at->end <= at->start || at->end > HIGHEST ||
            ((at->start | at->end) & (q_page_size() - 1)) != 0)
            return false;
        last = at->end;
        sum += at->end - at->start;
    }
    return sum == bytes;
}

static int get_ranges(struct reader *r, const struct q_image_header *h)
{
    struct q_ranges *ranges = &r->s->ranges;

    int error =
        get_array(r, (void **)&ranges->at, &ranges->room, h->nr_ranges, sizeof(*ranges->at));
    if (error != 0)
        return error;
    ranges->nr = h->nr_ranges;
    ranges->bytes = h->bytes;
    if (h->ranges_crc != q_crc32c(0, ranges->at, ranges->nr * sizeof(*ranges->at)))
        return EBADMSG;
    return ranges_make_sense(ranges, h->bytes) ? 0 : EBADMSG;
}

static int get_blocks(struct reader *r, const struct q_image_header *h)
{
    struct q_blocks *b = &r->s->blocks;
    int error = get_array(r, (void **)&b->at, &b->room, h->nr_blocks, sizeof(*b->at));

    if (error != 0)
        return error;
    b->nr = h->nr_blocks;
    r->s->sized = (h->flags & Q_IMAGE_SIZED) != 0;
    if (h->blocks_crc != q_crc32c(0, b->at, b->nr * sizeof(*b->at)))
        return EBADMSG;
    return q_blocks_make_sense(b, &r->s->ranges) ? 0 : EBADMSG;
}

/* Does it lie where the stretches are, behind the one before? */
static bool record_makes_sense(const struct reader *r, const struct q_image_record *rec)
{
    const struct q_image *m = r->image;
    uintptr_t len = (uintptr_t)rec->nr << q_page_shift;

    if (rec->nr == 0 || len > q_image_batch() || rec->addr > HIGHEST ||
        (rec->addr & (q_page_size() - 1)) != 0 || rec->pages_before != r->nr_pages)
        return false;
    const struct q_range *in = q_ranges_find(&r->s->ranges, rec->addr);
    if (in == NULL || in->end - rec->addr < len)
        return false;
    if (m->nr == 0)
        return true;
    const struct q_image_run *last = &m->run[m->nr - 1];
    return rec->addr >= last->addr + ((uintptr_t)last->nr << q_page_shift);
}

static int add_record(struct reader *r, const struct q_image_record *rec)
{
    struct q_image *m = r->image;

    if (!record_makes_sense(r, rec))
        return EBADMSG;
    if (!q_grow_array((void **)&m->run, &m->room, m->nr + 1, sizeof(*m->run)) ||
        !q_grow_array((void **)&m->crc, &m->room_crc, m->nr_crc + rec->nr, sizeof(*m->crc)))
        return ENOMEM;
    m->run[m->nr++] = (struct q_image_run){
        .addr = rec->addr, .nr = rec->nr, .first_crc = m->nr_crc, .offset = r->at};
    memcpy(m->crc + m->nr_crc, rec->page_crc, rec->nr * sizeof(*m->crc));
    m->nr_crc += rec->nr;
    r->nr_pages += rec->nr;
    r->at += (uint64_t)rec->nr << q_page_shift;
    return 0;
}

static int get_record(struct reader *r, struct q_image_record *rec)
{
    int error = get(r, rec, sizeof(*rec));

    if (error == 0 && rec->crc != q_crc32c(0, rec, offsetof(struct q_image_record, crc)))
        error = EBADMSG;
    return error != 0 ? error : get_padding(r);
}

static int get_records(struct reader *r)
{
    struct q_image_record rec;
    int error = get_padding(r);

    while (error == 0) {
        error = get_record(r, &rec);
        if (error == 0 && rec.magic == Q_IMAGE_END)
            return rec.addr == r->image->nr && rec.pages_before == r->nr_pages ? 0 : EBADMSG;
        if (error == 0)
            error = rec.magic == Q_IMAGE_RECORD ? add_record(r, &rec) : EBADMSG;
    }
    return error;
}

/* An increment wants its base, and no other; a whole image none. */
static int base_fits(const struct quire_snapshot *base, const struct q_image_header *h)
{
    bool increment = (h->flags & Q_IMAGE_INCREMENT) != 0;

    if (increment != (base != NULL))
        return increment ? ENODATA : EINVAL;
    return base == NULL || (base->id[0] == h->base[0] && base->id[1] == h->base[1]) ? 0 : EXDEV;
}

static int load(int fd, struct quire_snapshot *s, const struct quire_snapshot *base)
{
    struct q_image_header h;
    int64_t at = q_arch_tell(fd);
    long own = q_arch_syscall6(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3, 0, 0, 0);

    if (own < 0 || at < 0) {
        if (own >= 0)
            q_arch_syscall6(SYS_close, own, 0, 0, 0, 0, 0);
        return own < 0 ? (int)-own : (int)-at;
    }
    q_file_is(&s->image->file, (int)own);
    s->image->start = (uint64_t)at;
    struct reader r = {.fd = (int)own, .at = (uint64_t)at, .s = s, .image = s->image};
    int error = get_header(&r, &h);
    if (error == 0)
        error = base_fits(base, &h);
    if (error == 0)
        error = get_ranges(&r, &h);
    if (error == 0)
        error = get_blocks(&r, &h);
    if (error != 0)
        return error;
    memcpy(s->id, h.id, sizeof(s->id));
    s->root = h.root;
    return get_records(&r);
}

/* Where a base is given, api_lock is held. */
static struct quire_snapshot *open_image(int fd, const struct quire_snapshot *base, int *error)
{
    struct quire_snapshot *s = q_snapshot_new(QUIRE_SNAPSHOT_BY_IMAGE);

    *error = ENOMEM;
    if (s != NULL) {
        s->why_not = "read from an image";
        s->image = q_mmap(NULL, q_page_size(), PROT_READ | PROT_WRITE, 0);
    }
    if (s != NULL && s->image != NULL) {
        s->image->file.fd = -1;
        *error = load(fd, s, base);
    }
    if (*error == 0)
        return s;
    if (s != NULL) {
        q_image_close(s);
        q_snapshot_free(s);
    }
    return NULL;
}

Q_PUBLIC quire_snapshot_t *quire_snapshot_load(int fd)
{
    int error;
    struct quire_snapshot *s = open_image(fd, NULL, &error);

    if (s == NULL)
        errno = error;
    return s;
}

Q_PUBLIC quire_snapshot_t *quire_snapshot_load_onto(quire_snapshot_t *base, int fd)
{
    struct quire_snapshot *s = NULL;
    int error = q_snapshot_check(base);

    if (error == 0 && base->method != QUIRE_SNAPSHOT_BY_IMAGE)
        error = EINVAL;
    if (error == 0) {
        q_cow_lock_api();
        s = open_image(fd, base, &error);
        if (s != NULL) {
            s->base = base;
            base->increments++;
        }
        q_cow_unlock_api();
    }
    if (s == NULL)
        errno = error;
    return s;
}

void q_image_free(struct quire_snapshot *s)
{
    struct q_image *m = s->image;

    if (m == NULL)
        return;
    q_file_close(&m->file);
    if (m->run != NULL)
        q_munmap(m->run, q_align_up(m->room * sizeof(*m->run), q_page_size()));
    if (m->crc != NULL)
        q_munmap(m->crc, q_align_up(m->room_crc * sizeof(*m->crc), q_page_size()));
    q_munmap(m, q_page_size());
    s->image = NULL;
}

void q_image_close(struct quire_snapshot *s)
{
    if (s->base != NULL)
        s->base->increments--;
    q_image_free(s);
}
