/*
 * read.c - what a snapshot shows.
 *
 * A page that is not saved yet is read where it lies, and then the store is
 * asked again: the handler publishes the saved page before it un-protects
 * the page itself, so who finds none afterwards has copied an unchanged page.
 * The same holds for the snapshot's error, which is set before un-protecting.
 */
#include <string.h>
#include <sys/uio.h>

#include "cow/cow.h"
#include "cow/sigbus.h"

#define BATCH 64
#define TRIES 100

bool q_copy_carefully(void *to, const void *from, size_t len)
{
    struct iovec dst = {to, len}, src = {(void *)from, len};
    long n = -ENOMEM;

    for (int i = 0; i < TRIES && n == -ENOMEM; i++)
        n = q_arch_syscall6(SYS_process_vm_readv, q_getpid(), (long)&dst, 1, (long)&src, 1, 0);
    if (n == -ENOSYS || n == -EPERM) { /* a seccomp filter: then without the care */
        memcpy(to, from, len);
        return true;
    }
    return n == (long)len;
}

/* Up to BATCH pages; all of [addr, addr + len) is in one stretch. */
static int copy_batch(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len)
{
    uint32_t slot[BATCH + 1];
    uintptr_t first = q_align_down(addr, q_page_size()), end = addr + len;
    size_t nr = (q_align_up(end, q_page_size()) - first) >> q_page_shift;
    bool readable = true;

    for (size_t i = 0; i < nr; i++)
        slot[i] = q_store_find(first + (i << q_page_shift), s->epoch);
    for (size_t i = 0; i < nr;) {
        size_t from = i;
        while (i < nr && slot[i] == 0)
            i++;
        if (i == from) {
            i++;
            continue;
        }
        uintptr_t lo = q_max(first + (from << q_page_shift), addr);
        uintptr_t hi = q_min(first + (i << q_page_shift), end);
        readable &= q_copy_carefully(to + (lo - addr), (const void *)lo, hi - lo);
    }
    atomic_thread_fence(memory_order_acquire); /* what was copied was read before what follows */
    for (size_t i = 0; i < nr; i++) {
        uintptr_t page = first + (i << q_page_shift), lo = q_max(page, addr);
        uintptr_t hi = q_min(page + q_page_size(), end);

        if (slot[i] == 0)
            slot[i] = q_store_find(page, s->epoch);
        if (slot[i] != 0)
            memcpy(to + (lo - addr), (char *)q_store_page(slot[i]) + (lo - page), hi - lo);
    }
    /* Saved pages were read before the error is: once it is lost or dropped they are used anew. */
    atomic_thread_fence(memory_order_acquire);
    int error = q_snapshot_error_at(s, addr);
    return error == 0 && !readable ? EFAULT : error;
}

int q_snapshot_error_at(const struct quire_snapshot *s, uintptr_t addr)
{
    int error = q_cow_error(s);

    return error == 0 && addr < q_cow_gone(s) ? EFAULT : error;
}

int q_snapshot_copy(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len)
{
    int error = q_snapshot_error_at(s, addr);

    if (error != 0)
        return error;
    if (s->method == QUIRE_SNAPSHOT_BY_HOLDER)
        return q_holder_read(s, addr, to, len);
    if (s->method == QUIRE_SNAPSHOT_BY_IMAGE)
        return q_image_read(s, addr, to, len);
    while (len > 0 && error == 0) {
        size_t n = q_min(len, (BATCH << q_page_shift) - (addr & (q_page_size() - 1)));

        error = copy_batch(s, addr, to, n);
        addr += n;
        to += n;
        len -= n;
    }
    return error == 0 && q_bus_gone() ? EIO : error;
}

Q_PUBLIC ssize_t quire_snapshot_read(const quire_snapshot_t *s, const void *from, void *buf,
                                     size_t size)
{
    uintptr_t addr = (uintptr_t)from;
    int error = q_snapshot_check(s);
    size_t done = 0;

    if (error == 0)
        quire_snapshot_touch(buf, size); /* it is written by a system call */
    while (error == 0 && done < size) {
        const struct q_range *r = q_ranges_find(&s->ranges, addr + done);
        size_t n = r != NULL ? q_min(size - done, r->end - (addr + done)) : 0;

        if (r == NULL && done > 0)
            break;
        if (s->method == QUIRE_SNAPSHOT_BY_PROTECTION)
            q_store_populate();
        error = r != NULL ? q_snapshot_copy(s, addr + done, (char *)buf + done, n) : EFAULT;
        done += n;
    }
    if (error == 0)
        return (ssize_t)done;
    errno = error;
    return -1;
}

Q_PUBLIC int quire_snapshot_range(const quire_snapshot_t *s, size_t index,
                                  struct quire_snapshot_range *range)
{
    int error = q_snapshot_check(s);

    if (error == 0 && index >= s->ranges.nr)
        error = ENOENT;
    if (error != 0) {
        errno = error;
        return -1;
    }
    const struct q_range *r = &s->ranges.at[index];
    *range = (struct quire_snapshot_range){(void *)r->start, r->end - r->start};
    return 0;
}
