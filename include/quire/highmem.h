/*
 * highmem.h - memory without addresses, and addresses for it as they are needed.
 *
 *   struct quire_page *page = quire_alloc_page(QUIRE_GFP_HIGHMEM);
 *   char *p = quire_kmap_local(page);
 *   memcpy(p, data, n);
 *   quire_kunmap_local(p);
 *
 * Pages of zone HIGHMEM exist in a file of the process's memory (memfd), and
 * take no address space. So a process can hold more of them than it may have
 * addresses (RLIMIT_AS), nobody reads them by following a wrong pointer, and
 * they can be shared with another process. Pages of zone SECRET are the same
 * in a file that the kernel itself cannot read (memfd_secret(2)); they count
 * against RLIMIT_MEMLOCK. Both read as zero when they are handed out, and
 * what was in them is gone when they are freed.
 *
 * A page is seen through a window, with a guard page on both sides. Whatever
 * maps a page holds a reference to it until it is unmapped, which
 * quire_page_count() counts. For pages of other zones, which have an address
 * anyhow, kmap and kmap_local give that address and unmapping does nothing.
 * quire_page_address() of a page is NULL but while a quire_kmap() shows it.
 *
 * Threads. kmap, vmap, fixmap and vmalloc may be used by any thread, and be
 * undone by another; a kmap_local belongs to its thread. In a signal handler
 * that interrupted malloc or one of these functions they fail with EAGAIN (a
 * kunmap then is a complaint). After fork(2) parent and child see the same
 * pages through their windows, and what the parent frees becomes zero for the
 * child; what the child allocates is its own.
 *
 * Errors, with NULL or -1:
 *   EINVAL   no pages, or a page of a zone that cannot be mapped like this
 *   EBUSY    every window of the kind is in use
 *   ENOMEM   no address space or no memory
 *   EBADF    the program has closed the zone's file
 *   EAGAIN   see above
 * Wrong use (unmapping what is not mapped, or out of order) is answered as in
 * page.h. errno is left alone otherwise.
 */
#ifndef QUIRE_HIGHMEM_H
#define QUIRE_HIGHMEM_H

#include <quire/page.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Show a page, for as long as need be: counted, and the same address for all
 * who map it meanwhile. There are QUIRE_NR_KMAP windows. kunmap takes the page.
 */
#define QUIRE_NR_KMAP 512
void *quire_kmap(struct quire_page *page);
void quire_kunmap(struct quire_page *page);

/*
 * Show a page to the calling thread for a moment. Windows form a stack, of at
 * most QUIRE_NR_KMAP_LOCAL for each thread: the last one mapped is the first
 * to be unmapped, by any address in it.
 */
#define QUIRE_NR_KMAP_LOCAL 16
void *quire_kmap_local(struct quire_page *page);
void quire_kunmap_local(const void *addr);

/*
 * Fixed windows, by number (0 to QUIRE_NR_FIXMAP - 1), whose addresses do not
 * change: let a page of zone HIGHMEM or SECRET appear at one, or nothing
 * (NULL). Returns its address. quire_fix_to_virt() gives it without a change.
 */
#define QUIRE_NR_FIXMAP 32
void *quire_set_fixmap(unsigned slot, struct quire_page *page);
void *quire_fix_to_virt(unsigned slot);

/*
 * Show nr pages of zones HIGHMEM and SECRET, from anywhere and in this order,
 * in a row. Of a block of several pages each is named by itself.
 */
void *quire_vmap(struct quire_page *const *pages, size_t nr);
void quire_vunmap(const void *addr);

/*
 * At least so many bytes of zeroed memory in a row, in whole pages, with guard
 * pages around: running over either end faults. For large tables, stacks,
 * rings. NULL frees nothing. ENOMEM, or EINVAL for 0 bytes.
 */
void *quire_vmalloc(size_t bytes);
void quire_vfree(const void *addr);

/*
 * The file behind a page of zone HIGHMEM or SECRET and where the page lies in
 * it, so that another process that is given the descriptor can map it. With
 * it that process can map all pages in the file. The descriptor stays
 * quire's. 0, or -1 with EINVAL for other pages.
 */
int quire_page_file(const struct quire_page *page, int *fd, off_t *offset);

#ifdef __cplusplus
}
#endif

#endif
