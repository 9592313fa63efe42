/*
 * pages.h - what the files of the page interface share: telling pages from
 * what only looks like them, and complaining.
 */
#ifndef Q_MALLOC_PAGES_H
#define Q_MALLOC_PAGES_H

#include "quire/page.h"
#include "zone/page_ref.h"
#include "zone/special.h"

Q_INLINE struct quire_page *q_page_out(struct q_page *page)
{
    return (struct quire_page *)page;
}

/* Address and page, in any zone; NULL where there is none. Not what windows show. */
Q_INLINE void *q_any_address(const struct q_page *page)
{
    return q_page_is_special(page) ? q_special_address(page) : q_page_address(page);
}

Q_INLINE struct q_page *q_any_page(const void *addr)
{
    struct q_page *page = q_virt_to_page(addr);

    if (page == NULL)
        page = q_special_virt_to_page(addr);
    return page;
}

/* The frame number of a page in any zone. */
Q_INLINE size_t q_any_pfn(const struct q_page *page)
{
    return q_page_is_special(page) ? q_special_pfn(page) : q_page_to_pfn(page);
}

/* The struct page behind a program's pointer; NULL after complaining where it is none. */
struct q_page *q_page_in(const char *caller, const struct quire_page *page);

/* The counted head for a program's page; NULL after complaining. */
struct q_page *q_page_head_of(const char *caller, const struct quire_page *page);

/* Drop a reference; with the last the run is free. Keeps errno. */
void q_page_drop(const char *caller, struct q_page *head);

/* The same for what a window held, by any page; the program may have dropped that, too. */
void q_page_let_go(const char *caller, struct q_page *page);

/*
 * Say that `caller` was given this struct page and what is wrong with it;
 * then abort() or, with misuse:report, return. No lock is taken.
 */
void q_misuse_page(const char *caller, const struct q_page *page);

/* The same where the block is right but has other than `nr` pages. */
void q_misuse_page_nr(const char *caller, const struct q_page *head, size_t nr);

/* The same in words of the caller's, for any pointer. */
void q_misuse_text(const char *caller, const void *p, const char *text);

/* The same for an address at which no area of quire_vmalloc() or quire_vmap() begins, or not such a one. */
void q_misuse_area(const char *caller, const void *p);

/* The same for a pointer that points to no struct page. */
void q_misuse_no_page(const char *caller, const void *page);

#endif
