/*
 * highmem.c - the files behind zones HIGHMEM and SECRET, and showing their pages.
 *
 * HIGHMEM is one memfd that grows by a section at a time. Its memory is asked
 * for when pages are given out (fallocate), so that a full machine is ENOMEM
 * then and not a signal later, and punched out when they are freed. SECRET is
 * a memfd_secret for each section, because the length of such a file is set
 * once; it has no holes, so its pages are cleared through a window.
 *
 * Programs close numbers that they never opened (daemons close them all), and
 * the number may then be another file's. So the file is looked at before
 * anything is done to it.
 */
#include "zone/highmem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC 1u
#endif

#define CLEAR_PAGES 16u /* at a time: windows onto secrets count as locked memory */
#define PIECE_PAGES 16u /* between two signals */

static bool identify(int fd, uint64_t *dev, uint64_t *inode)
{
    struct stat st;

    if (q_fstatat(fd, "", &st, AT_EMPTY_PATH) != 0)
        return false;
    *dev = st.st_dev;
    *inode = st.st_ino;
    return true;
}

bool q_file_is_ours(const struct q_section *s)
{
    uint64_t dev, inode;

    return identify(s->fd, &dev, &inode) && dev == s->dev && inode == s->inode;
}

static uint64_t file_offset(const struct q_section *s, size_t first)
{
    return s->offset + ((uint64_t)first << q_page_shift);
}

static int resize(int fd, uint64_t bytes)
{
    return (int)q_ftruncate(fd, bytes);
}

/* Remember a new file, or say why there is none. */
static int open_file(struct q_section *file, long fd)
{
    if (q_sys_failed(fd))
        return (int)fd;
    *file = (struct q_section){.fd = (int)fd};
    identify(file->fd, &file->dev, &file->inode);
    return 0;
}

static void describe(struct q_section *s, const struct q_section *file)
{
    s->fd = file->fd;
    s->dev = file->dev;
    s->inode = file->inode;
    s->offset = file->offset;
}

static int grow_file(struct q_special_zone *zone, struct q_section *s)
{
    struct q_section *file = &zone->file;
    int error = 0;

    if (file->inode == 0)
        error = open_file(file, q_arch_syscall6(SYS_memfd_create, (long)"quire-highmem",
                                                MFD_CLOEXEC, 0, 0, 0, 0));
    else if (!q_file_is_ours(file))
        error = -EBADF;
    if (error == 0)
        error = resize(file->fd, file->offset + q_max_block_size());
    if (error != 0)
        return error == -EINVAL || error == -EFBIG ? -ENOMEM : error;
    describe(s, file);
    file->offset += q_max_block_size();
    return 0;
}

static int grow_secret(struct q_special_zone *zone, struct q_section *s)
{
    struct q_section *file = &zone->file;
    int error = open_file(file, q_arch_syscall6(SYS_memfd_secret, O_CLOEXEC, 0, 0, 0, 0, 0));

    if (error == -ENOSYS || error == -EPERM || error == -EACCES)
        return -EOPNOTSUPP; /* an old kernel, or one without the option, or a filter */
    if (error == 0 && (error = resize(file->fd, q_max_block_size())) != 0)
        q_arch_syscall6(SYS_close, file->fd, 0, 0, 0, 0, 0);
    if (error == 0)
        describe(s, file);
    return error;
}

static long ask_for(const struct q_section *s, size_t first, size_t nr)
{
    return q_fallocate(s->fd, 0, file_offset(s, first), nr << q_page_shift);
}

static int fetch(const struct q_section *s, size_t first, size_t nr)
{
    if (!q_file_is_ours(s))
        return -EBADF;
    long ret = ask_for(s, first, nr);
    size_t at = 0;
    /* Older kernels give up at any signal, and give back what they had: in pieces, then. */
    while (ret == -EINTR || (at > 0 && at < nr && ret == 0)) {
        size_t n = q_min(nr - at, PIECE_PAGES);

        ret = ask_for(s, first + at, n);
        at += ret == 0 ? n : 0;
    }
    return ret == -ENOSPC ? -ENOMEM : (int)ret;
}

static bool punch(const struct q_section *s, size_t first, size_t nr)
{
    q_kmap_forget(s->pages + first, nr);
    if (s->inherited || !q_file_is_ours(s))
        return false;
    return q_fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, file_offset(s, first),
                       nr << q_page_shift) == 0;
}

static bool clear_part(const struct q_section *s, size_t first, size_t nr)
{
    size_t bytes = nr << q_page_shift;
    long at =
        q_mmap_file(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, file_offset(s, first));

    if (q_sys_failed(at))
        return false;
    memset((void *)at, 0, bytes);
    q_munmap((void *)at, bytes);
    return true;
}

static bool clear(const struct q_section *s, size_t first, size_t nr)
{
    q_kmap_forget(s->pages + first, nr);
    if (s->inherited || !q_file_is_ours(s))
        return false;
    for (size_t at = 0; at < nr; at += CLEAR_PAGES)
        if (!clear_part(s, first + at, q_min(nr - at, CLEAR_PAGES)))
            return false;
    return true;
}

int q_window_map(void *at, const struct q_page *page, size_t nr)
{
    const struct q_section *s = q_special_section(page);

    if (!q_file_is_ours(s))
        return -EBADF;
    long ret = q_mmap_file((void *)at, nr << q_page_shift, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_FIXED | MAP_POPULATE, s->fd,
                           file_offset(s, (size_t)(page - s->pages)));
    return q_sys_failed(ret) ? -ENOMEM : 0;
}

bool q_window_unmap(void *at, size_t nr)
{
    return q_mmap(at, nr << q_page_shift, PROT_NONE, MAP_FIXED | MAP_NORESERVE) != NULL;
}

const struct q_special_ops q_highmem_ops = {
    .name = "HighMem",
    .grow = grow_file,
    .ready = fetch,
    .clean = punch,
};

const struct q_special_ops q_secret_ops = {
    .name = "Secret",
    .grow = grow_secret,
    .clean = clear,
};
