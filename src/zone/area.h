/*
 * area.h - addresses in a row between guard pages: the kernel's vmalloc area.
 *
 *   | guard |  pages, in a row  | guard | ... | guard | ... | guard |
 *
 * What lies behind is either memory of the area's own, as scattered as the
 * kernel likes (q_area_alloc), or pages of zones HIGHMEM and SECRET, each from
 * anywhere (q_area_map). The first address finds the area, by a hash.
 *
 * Not to be taken for zone/vmalloc.h, where malloc's large blocks live: those
 * have no guards, grow, and are cached.
 *
 * Lock: q_area_lock guards the hash and the spare structures; innermost but
 * for q_mem_lock. No system call is made under it.
 */
#ifndef Q_ZONE_AREA_H
#define Q_ZONE_AREA_H

#include "zone/special.h"

struct quire_page;

struct q_area {
    struct q_area *next; /* in the hash, or spare */
    uintptr_t addr;
    size_t nr;             /* pages */
    struct q_page **pages; /* what is mapped, or NULL: memory of its own */
};

/* bytes of zeroed memory, in whole pages. NULL with *error: ENOMEM. */
void *q_area_alloc(size_t bytes, int *error);

/* pages[0..nr), which the caller holds, in a row. NULL with *error: ENOMEM, EBADF. */
void *q_area_map(struct quire_page *const *pages, size_t nr, int *error);

/*
 * Remove the area that begins at p, of one kind; NULL where none does. The
 * caller drops the references to a->pages, then passes it to q_area_done().
 */
struct q_area *q_area_remove(const void *p, bool mapped);
void q_area_done(struct q_area *a);

/* Some area that holds p, guards included, for messages. */
bool q_area_find(const void *p, uintptr_t *addr, size_t *nr, bool *mapped);

/* Call fn for every area; q_area_lock is held meanwhile. */
void q_area_each(void (*fn)(void *arg, const struct q_area *a), void *arg);

extern struct q_lock q_area_lock;

#endif
