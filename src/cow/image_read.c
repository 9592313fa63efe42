/*
 * image_read.c - what a loaded image shows.
 *
 * A page is read from the file, and its CRC compared, when somebody asks for
 * it. Of an increment: from the newest image of the chain that has the page,
 * as far down as all have the address.
 */
#include <string.h>

#include "cow/crc32c.h"
#include "cow/image.h"

/* The run that holds addr, or NULL. */
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

int q_image_read_page(const struct q_image *m, const struct q_image_run *run, uintptr_t page,
                      char *to)
{
    size_t k = (page - run->addr) >> q_page_shift;
    int error = q_image_get(m->file.fd, to, q_page_size(), run->offset + (k << q_page_shift));

    if (error != 0)
        return EIO;
    return q_crc32c(0, to, q_page_size()) == m->crc[run->first_crc + k] ? 0 : EIO;
}

static int read_page(const struct quire_snapshot *s, uintptr_t page, char *to)
{
    const struct q_image_run *run = NULL;

    while (s != NULL && q_ranges_find(&s->ranges, page) != NULL &&
           (run = find_run(s->image, page)) == NULL)
        s = s->base;
    if (run != NULL)
        return q_image_read_page(s->image, run, page, to);
    memset(to, 0, q_page_size());
    return 0;
}

/* Part of a page: its checksum wants all of it, and the caller's stack may be small. */
static int read_part(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len)
{
    uintptr_t start = q_align_down(addr, q_page_size());
    char *page = q_mmap(NULL, q_page_size(), PROT_READ | PROT_WRITE, 0);

    if (page == NULL)
        return ENOMEM;
    int error = read_page(s, start, page);
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

        error = n == q_page_size() ? read_page(s, addr, to) : read_part(s, addr, to, n);
        addr += n;
        to += n;
        len -= n;
    }
    return error;
}

static int verify_image(const struct q_image *m, char *page)
{
    int error = 0;

    for (size_t i = 0; error == 0 && i < m->nr; i++)
        for (size_t k = 0; error == 0 && k < m->run[i].nr; k++)
            error = q_image_read_page(m, &m->run[i], m->run[i].addr + (k << q_page_shift), page);
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
    for (; error == 0 && s != NULL; s = s->base)
        error = verify_image(s->image, page);
    if (page != NULL)
        q_munmap(page, q_page_size());
    if (error == 0)
        return 0;
    errno = error == EIO ? EBADMSG : error;
    return -1;
}
