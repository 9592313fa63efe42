/*
 * page.h - memory by pages, as the kernel's own code asks for it.
 *
 *   struct quire_page *page = quire_alloc_pages(QUIRE_GFP_ZERO, 2);    4 pages in a row
 *   char *text = quire_page_address(page);
 *   quire_get_page(page);                                              another holder
 *   quire_put_page(page);
 *   quire_put_page(page);                                              the last: freed
 *
 * Pages come from the same zones as malloc's memory and count against the same
 * limit, but are not objects of malloc's: free() and realloc() refuse them.
 *
 * Units. Sizes of memory are in bytes where they are called so; an order k
 * means 2^k pages, 0 to QUIRE_MAX_ORDER. A page is what sysconf(_SC_PAGESIZE)
 * says. A block of order k begins at a multiple of its own size. A frame
 * number (pfn) counts pages from an origin of quire's own; it says nothing
 * about physical memory. Node numbers are those of the kernel, as numactl
 * prints them; with numa_fake:N they are 0 to N-1.
 *
 * A block has one reference count, shared by all its pages; allocation sets it
 * to 1, and whoever takes it to 0 frees the block. Every function here that
 * takes a page takes any page of the block, except where it says "first page".
 *
 * Threads. All functions may be called by any thread at any time. A page may
 * be freed by another thread than allocated it. In a signal handler that
 * interrupted malloc or one of these functions, those that allocate fail with
 * EAGAIN; those that give back and look up work. A child of fork(2) has its
 * own copies, with the counts as they were.
 *
 * Wrong arguments to what allocates give NULL (or 0, or -1) and errno:
 *   EINVAL   an order above QUIRE_MAX_ORDER, a size of 0 or above that of the
 *            largest block, or a flag that does not exist, or that does not
 *            go with another (two zones; a zone and MOVABLE)
 *   ENXIO    the node does not exist, or quire may not use it
 *   ENOMEM   no memory, or the configured limit is reached
 *   EAGAIN   see above
 * errno is left alone otherwise.
 *
 * Wrong use of a page that is or was there (a second put, a free of malloc's
 * memory, a wrong order) is answered as a wrong free() is: one line that names
 * the function, the page and what it is, then abort(); with misuse:report, the
 * line, and nothing else happens. A page that was freed and handed out again
 * cannot be told from one that was never freed.
 */
#ifndef QUIRE_PAGE_H
#define QUIRE_PAGE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What quire knows of one page. Pointers to it are all there is to see. */
struct quire_page;

#define QUIRE_MAX_ORDER 10

/* A node argument: that of the CPU on which the caller runs. */
#define QUIRE_NODE_LOCAL (-1)

/* No frame. */
#define QUIRE_BAD_PFN ((size_t)-1)

/* How to allocate; the sum of any of these. */
typedef unsigned quire_gfp_t;
#define QUIRE_GFP_KERNEL 0u      /* nothing special; the content is undefined */
#define QUIRE_GFP_ZERO 1u        /* zeroed; costs nothing where the pages are fresh */
#define QUIRE_GFP_MOVABLE 2u     /* from zone MOVABLE first, with malloc's large blocks */
#define QUIRE_GFP_RECLAIMABLE 4u /* kept together with others of its kind */
#define QUIRE_GFP_THISNODE 8u    /* from no other node; else fail with ENOMEM */

/*
 * Zones that serve only who names them: at most one of these, with ZERO or
 * alone. What is near a node does not matter to them, and quire_page_to_nid()
 * does not know their pages (-1). Snapshots do not show them, and going back
 * leaves them as they are.
 *
 * DMA32: addresses below 4 GiB, which 32 bits hold. ENOMEM where nothing is
 * left there; there are at most about 4 GiB for all that the process has.
 *
 * DMA: locked (mlock(2)): resident from the start, never swapped, at one
 * address. Counts against RLIMIT_MEMLOCK, beyond which there is ENOMEM (EPERM
 * where the limit is 0). A child of fork has unlocked copies.
 */
#define QUIRE_GFP_DMA32 16u
#define QUIRE_GFP_DMA 32u

/*
 * HIGHMEM: pages without an address, mapped when they are needed (highmem.h),
 * always zeroed. By page only: the functions that return an address fail with
 * EINVAL. SECRET: the same, and not even the kernel can read them; EOPNOTSUPP
 * where it has no memfd_secret(2), ENOMEM beyond RLIMIT_MEMLOCK.
 */
#define QUIRE_GFP_HIGHMEM 64u
#define QUIRE_GFP_SECRET 128u

/* 2^order pages in a row. */
struct quire_page *quire_alloc_pages(quire_gfp_t gfp, unsigned order);

/* One page. */
struct quire_page *quire_alloc_page(quire_gfp_t gfp);

/* The same near a node: there, or on the next nearest that has memory (but see THISNODE). */
struct quire_page *quire_alloc_pages_node(int node, quire_gfp_t gfp, unsigned order);

/*
 * Drop a reference to 2^order pages as one of the three functions above gave
 * them; first page. With the last reference they are free. NULL does nothing.
 */
void quire_free_pages(struct quire_page *page, unsigned order);
void quire_free_page(struct quire_page *page);

/* The same by address instead of by page. */
void *quire_get_free_pages(quire_gfp_t gfp, unsigned order);
void *quire_get_free_page(quire_gfp_t gfp);
void *quire_get_zeroed_page(quire_gfp_t gfp);

/* Drop a reference to what they gave, by its address. NULL does nothing. */
void quire_put_free_pages(void *addr, unsigned order);
void quire_put_free_page(void *addr);

/*
 * As many whole pages as hold so many bytes, and no more; at most those of the
 * largest block. To be given back with the same number of bytes, or one that
 * takes as many pages.
 */
void *quire_alloc_pages_exact(size_t bytes, quire_gfp_t gfp);
void quire_free_pages_exact(void *addr, size_t bytes);

/*
 * Put a page of its own into every entry of pages[0..nr) that is NULL. Much
 * cheaper than one by one, and mostly they lie in a row. Returns how many
 * entries hold a page now; where that is less than nr, errno says why.
 */
size_t quire_alloc_pages_bulk(quire_gfp_t gfp, size_t nr, struct quire_page **pages);

/* Drop a reference to every page in pages[0..nr) that is not NULL, and make the entries NULL. */
void quire_free_pages_bulk(size_t nr, struct quire_page **pages);

/* References. Only who holds one may take another: for itself or to hand on. */
void quire_get_page(struct quire_page *page);
void quire_put_page(struct quire_page *page);

/* How many there are; 0 for a page that this interface has not given out. */
unsigned quire_page_count(const struct quire_page *page);

/*
 * Make a block of 2^order pages into as many blocks of one page, each with one
 * reference; first page. For the only holder: 0, or -1 with errno
 *   EINVAL    the block has another order
 *   EBUSY     there are other references
 */
int quire_split_page(struct quire_page *page, unsigned order);

/*
 * The first page of the block that holds page, and how many pages the block
 * has. NULL and 0 where this interface has not given it out.
 */
struct quire_page *quire_compound_head(struct quire_page *page);
size_t quire_compound_nr(const struct quire_page *page);

/* The smallest order whose blocks hold so many bytes; above QUIRE_MAX_ORDER where none does. */
unsigned quire_get_order(size_t bytes);

/*
 * Where the page's memory is; NULL for HIGHMEM that is not mapped by quire_kmap(). NULL, and a
 * complaint, where page is no page at all.
 */
void *quire_page_address(const struct quire_page *page);

/*
 * The page at an address: any of quire's zones, so also under objects of
 * malloc's up to the largest block. NULL for any other address.
 */
struct quire_page *quire_virt_to_page(const void *addr);

/* Frame numbers. QUIRE_BAD_PFN (with a complaint), or NULL, where there is no such page. */
size_t quire_page_to_pfn(const struct quire_page *page);
struct quire_page *quire_pfn_to_page(size_t pfn);
size_t quire_virt_to_pfn(const void *addr);
void *quire_pfn_to_virt(size_t pfn);

/* 1 where there is memory behind this frame number, else 0. */
int quire_pfn_valid(size_t pfn);

/*
 * The node whose memory the page was set up on; -1 for zones that serve only by name, and, with a
 * complaint, where page is no page.
 */
int quire_page_to_nid(const struct quire_page *page);

#ifdef __cplusplus
}
#endif

#endif
