/*
 * image.c - reading an image. See image.h.
 *
 * Loading reads headers only, some hundred bytes for each 64 pages; a page is
 * read, and its CRC compared, when somebody asks for it.
 */
#include "cow/image.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cow/crc32c.h"

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
static int get_at(int fd, void *buf, size_t len, uint64_t at)
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
    int error = get_at(r->fd, buf, len, r->at);

    r->at += len;
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
    if (h->version != Q_IMAGE_VERSION || h->page_shift != q_page_shift)
        return ENOTSUP;
    return h->nr_ranges > 0 && h->nr_ranges <= Q_IMAGE_MAX_RANGES ? 0 : EBADMSG;
}

/* The stretches must be what q_ranges_collect() makes: ascending, apart, whole pages, in user space. */
static bool ranges_make_sense(const struct q_ranges *r, uint64_t bytes)
{
    uintptr_t last = 0;
    uint64_t sum = 0;

    for (size_t i = 0; i < r->nr; i++) {
        const struct q_range *at = &r->at[i];

        if (at->start < last || at->end <= at->start || at->end > (uintptr_t)INTPTR_MAX ||
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

    if (!q_ranges_reserve(ranges, h->nr_ranges))
        return ENOMEM;
    int error = get(r, ranges->at, h->nr_ranges * sizeof(*ranges->at));
    if (error != 0)
        return error;
    ranges->nr = h->nr_ranges;
    ranges->bytes = h->bytes;
    if (h->ranges_crc != q_crc32c(0, ranges->at, ranges->nr * sizeof(*ranges->at)))
        return EBADMSG;
    return ranges_make_sense(ranges, h->bytes) ? 0 : EBADMSG;
}

/* Does it lie where the stretches are, behind the one before? */
static bool record_makes_sense(const struct reader *r, const struct q_image_record *rec)
{
    const struct q_image *m = r->image;
    uintptr_t len = (uintptr_t)rec->nr << q_page_shift;

    if (rec->nr == 0 || rec->nr > Q_IMAGE_BATCH || (rec->addr & (q_page_size() - 1)) != 0 ||
        rec->pages_before != r->nr_pages)
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
        .addr = rec->addr, .nr = rec->nr, .first_crc = (uint32_t)m->nr_crc, .offset = r->at};
    memcpy(m->crc + m->nr_crc, rec->page_crc, rec->nr * sizeof(*m->crc));
    m->nr_crc += rec->nr;
    r->nr_pages += rec->nr;
    r->at += (uint64_t)rec->nr << q_page_shift;
    return 0;
}

static int get_records(struct reader *r)
{
    struct q_image_record rec;

    for (;;) {
        int error = get(r, &rec, sizeof(rec));

        if (error != 0)
            return error;
        if (rec.crc != q_crc32c(0, &rec, offsetof(struct q_image_record, crc)))
            return EBADMSG;
        if (rec.magic == Q_IMAGE_END)
            return rec.addr == r->image->nr && rec.pages_before == r->nr_pages ? 0 : EBADMSG;
        if (rec.magic != Q_IMAGE_RECORD)
            return EBADMSG;
        error = add_record(r, &rec);
        if (error != 0)
            return error;
    }
}

static int load(int fd, struct quire_snapshot *s)
{
    struct q_image_header h;
    long at = q_arch_syscall6(SYS_lseek, fd, 0, SEEK_CUR, 0, 0, 0);
    long own = q_arch_syscall6(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3, 0, 0, 0);

    if (own < 0 || at < 0) {
        if (own >= 0)
            q_arch_syscall6(SYS_close, own, 0, 0, 0, 0, 0);
        return own < 0 ? (int)-own : (int)-at;
    }
    s->image->fd = (int)own;
    struct reader r = {.fd = (int)own, .at = (uint64_t)at, .s = s, .image = s->image};
    int error = get_header(&r, &h);
    if (error == 0)
        error = get_ranges(&r, &h);
    return error == 0 ? get_records(&r) : error;
}

Q_PUBLIC quire_snapshot_t *quire_snapshot_load(int fd)
{
    struct quire_snapshot *s = q_snapshot_new(QUIRE_SNAPSHOT_BY_IMAGE);
    int error = ENOMEM;

    if (s != NULL) {
        s->why_not = "read from an image";
        s->image = q_mmap(NULL, q_page_size(), PROT_READ | PROT_WRITE, 0);
    }
    if (s != NULL && s->image != NULL) {
        s->image->fd = -1;
        error = load(fd, s);
    }
    if (error == 0)
        return s;
    if (s != NULL) {
        q_image_close(s);
        q_snapshot_free(s);
    }
    errno = error;
    return NULL;
}

/* The run that holds addr, or NULL: a page of zeroes. */
static const struct q_image_run *find_run(const struct q_image *m, uintptr_t addr)
{
    size_t lo = 0, hi = m->nr;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->run[mid].addr <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return NULL;
    const struct q_image_run *run = &m->run[lo - 1];
    return addr - run->addr < (uintptr_t)run->nr << q_page_shift ? run : NULL;
}

static int read_page(const struct q_image *m, uintptr_t page, char *to)
{
    const struct q_image_run *run = find_run(m, page);

    if (run == NULL) {
        memset(to, 0, q_page_size());
        return 0;
    }
    size_t k = (page - run->addr) >> q_page_shift;
    int error = get_at(m->fd, to, q_page_size(), run->offset + (k << q_page_shift));
    if (error != 0)
        return EIO;
    return q_crc32c(0, to, q_page_size()) == m->crc[run->first_crc + k] ? 0 : EIO;
}

/* Part of a page: its checksum wants all of it, and the caller's stack may be small. */
static int read_part(const struct q_image *m, uintptr_t addr, char *to, size_t len)
{
    uintptr_t start = q_align_down(addr, q_page_size());
    char *page = q_mmap(NULL, q_page_size(), PROT_READ | PROT_WRITE, 0);

    if (page == NULL)
        return ENOMEM;
    int error = read_page(m, start, page);
    if (error == 0)
        memcpy(to, page + (addr - start), len);
    q_munmap(page, q_page_size());
    return error;
}

int q_image_read(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len)
{
    int error = 0;

    while (len > 0 && error == 0) {
        size_t n = q_min(len, q_align_down(addr, q_page_size()) + q_page_size() - addr);

        error =
            n == q_page_size() ? read_page(s->image, addr, to) : read_part(s->image, addr, to, n);
        addr += n;
        to += n;
        len -= n;
    }
    return error;
}

Q_PUBLIC int quire_snapshot_verify(quire_snapshot_t *s)
{
    int error = q_snapshot_check(s);
    char *page = NULL;

    if (error == 0 && s->method != QUIRE_SNAPSHOT_BY_IMAGE)
        error = EINVAL;
    if (error == 0 && (page = q_mmap(NULL, q_page_size(), PROT_READ | PROT_WRITE, 0)) == NULL)
        error = ENOMEM;
    for (size_t i = 0; error == 0 && i < s->image->nr; i++)
        for (size_t k = 0; error == 0 && k < s->image->run[i].nr; k++)
            error = read_page(s->image, s->image->run[i].addr + (k << q_page_shift), page);
    if (page != NULL)
        q_munmap(page, q_page_size());
    if (error == 0)
        return 0;
    errno = error == EIO ? EBADMSG : error;
    return -1;
}

void q_image_close(struct quire_snapshot *s)
{
    struct q_image *m = s->image;

    if (m == NULL)
        return;
    if (m->fd >= 0)
        q_arch_syscall6(SYS_close, m->fd, 0, 0, 0, 0, 0);
    if (m->run != NULL)
        q_munmap(m->run, q_align_up(m->room * sizeof(*m->run), q_page_size()));
    if (m->crc != NULL)
        q_munmap(m->crc, q_align_up(m->room_crc * sizeof(*m->crc), q_page_size()));
    q_munmap(m, q_page_size());
    s->image = NULL;
}
