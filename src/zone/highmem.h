/*
 * highmem.h - pages that exist in a file and have no address, and windows onto them.
 *
 *   memfd   | page | page | page | ...
 *               \_____________
 *   addresses  | guard | window | guard | window | guard |
 *
 * A window is a place in the address space at which one page, or some in a
 * row, can be made to appear; a guard stands on both sides of it, always.
 * What lies at a window's place while nothing is mapped there faults.
 *
 *   kmap        512 windows of one page, counted, shared by all threads; a
 *               page stays mapped after its last kunmap until the window is
 *               wanted for another, or the page is freed
 *   kmap_local  16 for each thread, used as a stack
 *   fixmap      32 by number, whose addresses never change
 *   vmap        as long as need be (area.h)
 *
 * The pages of windows are held by reference by whoever maps them (above this
 * layer), so a page is never freed while one shows it.
 *
 * Lock: q_kmap_lock guards the tables of windows; innermost but for
 * q_mem_lock.
 */
#ifndef Q_ZONE_HIGHMEM_H
#define Q_ZONE_HIGHMEM_H

#include "zone/special.h"

#define Q_NR_KMAP 512u
#define Q_NR_LOCAL 16u
#define Q_NR_FIXMAP 32u

/* Whether a page has no address by nature. */
Q_INLINE bool q_page_is_high(const struct q_page *page)
{
    const struct q_section *s = q_page_is_special(page) ? q_special_section(page) : NULL;

    return s != NULL && s->addr == 0;
}

/* Let nr pages in a row, all of one section, appear at `at`. 0 or a negative errno. */
int q_window_map(void *at, const struct q_page *page, size_t nr);

/* Let nothing be there, for so many pages. False where the kernel refuses even that. */
bool q_window_unmap(void *at, size_t nr);

/* Whether the section's file is still the one it was. */
bool q_file_is_ours(const struct q_section *s);

/*
 * Map a page, or count one more user of its window. NULL with *error: EBUSY
 * where all windows are in use, ENOMEM, EBADF where the file was closed.
 */
void *q_kmap(struct q_page *page, int *error);

/* One user less; false where there was none. */
bool q_kunmap(struct q_page *page);

/* Where a kmap shows it, for whoever has one; else NULL. Takes no lock, and nor does the next. */
void *q_kmap_address(const struct q_page *page);

/* The page that a kmap shows at p; NULL. */
struct q_page *q_kmap_page(const void *p);

/* nr pages from page on are being freed: no window is left behind. */
void q_kmap_forget(struct q_page *page, size_t nr);

/* A thread's stack of windows. Its owner alone touches it. */
struct q_local {
    char *base;    /* window i at base + i * 2 pages */
    uint64_t life; /* of the heap's owners, which one this is */
    unsigned depth;
    struct q_page *page[Q_NR_LOCAL]; /* below depth: in use; above: what was last there */
};

/* The stack that goes with heap `id`, made if need be; NULL: no memory. */
struct q_local *q_local_get(unsigned id);

/* Whether p lies in a window of some thread's; *mine: in one of l (which may be NULL). */
bool q_local_holds(const struct q_local *l, const void *p, bool *mine);

Q_INLINE char *q_local_window(const struct q_local *l, unsigned i)
{
    return l->base + ((size_t)2 * i << q_page_shift);
}

/* Window `slot` of the fixmap: its address, NULL without address space. */
char *q_fixmap_address(unsigned slot);

/*
 * Let page appear there, or nothing (NULL). *before: what appears there no
 * longer, also where it fails. 0 or a negative errno.
 */
int q_fixmap_set(unsigned slot, struct q_page *page, struct q_page **before);

extern struct q_lock q_kmap_lock;
void q_kmap_fork_child(void);

#endif
