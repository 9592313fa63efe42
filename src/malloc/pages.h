/*
 * pages.h - what the files of the page interface share: telling pages from
 * what only looks like them, and complaining.
 */
#ifndef Q_MALLOC_PAGES_H
#define Q_MALLOC_PAGES_H

#include "quire/page.h"
#include "zone/page_ref.h"

Q_INLINE struct quire_page *q_page_out(struct q_page *page)
{
    return (struct quire_page *)page;
}

/* The struct page behind a program's pointer; NULL after complaining where it is none. */
struct q_page *q_page_in(const char *caller, const struct quire_page *page);

/*
 * Say that `caller` was given this struct page and what is wrong with it;
 * then abort() or, with misuse:report, return. No lock is taken.
 */
void q_misuse_page(const char *caller, const struct q_page *page);

/* The same where the block is right but has other than `nr` pages. */
void q_misuse_page_nr(const char *caller, const struct q_page *head, size_t nr);

/* The same for a pointer that points to no struct page. */
void q_misuse_no_page(const char *caller, const void *page);

#endif
