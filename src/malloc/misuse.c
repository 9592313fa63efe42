/*
 * misuse.c - what to say about a pointer that no live object begins at.
 *
 *   quire: free(0x7f..40): inside a live object of size 48 at 0x7f..30 (offset 16)
 *   quire: free(0x7f..30): already free (object of size 48)
 *   quire: free(0x7f..60): never handed out (memory for objects of size 48)
 *   quire: free(0x7f..ff): not on an object boundary (memory for objects of size 48, never handed out)
 *   quire: free(0x55..10): not quire's (stack, static data, or from another allocator)
 *   quire: quire_put_page(0x7f..e0, frame 12 at 0x7f..00): already free
 */
#include "malloc/malloc.h"
#include "malloc/objcache.h"
#include "malloc/pages.h"

#include <stdlib.h>

#include "base/msg.h"
#include "base/opt.h"
#include "cow/map.h"
#include "zone/area.h"
#include "zone/vmalloc.h"

static void describe_in_slab(struct q_buf *b, struct q_slab *s, const char *p)
{
    size_t size = q_slab_class(s)->size, off = (size_t)(p - q_slab_start(s));
    const char *object = p - off % size;

    if (off / size >= s->carved && (off % size != 0 || off / size >= q_slab_class(s)->objs))
        q_buf_printf(b,
                     "not on an object boundary (memory for objects of size %zu, never handed out)",
                     size);
    else if (off / size >= s->carved)
        q_buf_printf(b, "never handed out (memory for objects of size %zu)", size);
    else if (q_slub_is_free(s, object) && object == p)
        q_buf_printf(b, "already free (object of size %zu)", size);
    else if (q_slub_is_free(s, object))
        q_buf_printf(
            b, "not on an object boundary: inside a free object of size %zu at %p (offset %zu)",
            size, (const void *)object, off % size);
    else
        q_buf_printf(b, "inside a live object of size %zu at %p (offset %zu)", size,
                     (const void *)object, off % size);
}

/* Walk back to the head of the block that holds the page; see q_page_head(). */
static const struct q_page *block_head(const struct q_page *page)
{
    uintptr_t first = q_align_down((uintptr_t)page, sizeof(*page) << Q_MAX_ORDER);

    while ((uintptr_t)page > first && q_page_type_of(page) == Q_PAGE_NONE)
        page--;
    return page;
}

static void describe_pages(struct q_buf *b, const struct q_page *page, const char *p)
{
    const struct q_page *head = block_head(page);
    const char *start = q_any_address(head);
    size_t size = (size_t)head->nr << q_page_shift, off = (size_t)(p - start);

    if (q_page_type_of(head) == Q_PAGE_RUN && off < size && q_page_is_owned(head))
        q_describe_owned(b, p);
    else if (q_page_type_of(head) == Q_PAGE_RUN && off < size && q_page_is_movable(head))
        q_buf_printf(b, "belongs to a handle of quire_movable_alloc()");
    else if (q_page_type_of(head) == Q_PAGE_RUN && off < size && q_page_is_counted(head))
        q_buf_printf(b, "in a live block of pages, not malloc's (%u pages at %p, offset %zu)",
                     head->nr, (const void *)start, off);
    else if (q_page_type_of(head) == Q_PAGE_RUN && off < size)
        q_buf_printf(b, "inside a live object of size %zu at %p (offset %zu)", size,
                     (const void *)start, off);
    else if (((uintptr_t)p & 15) != 0)
        q_buf_printf(b, "not on an object boundary, in memory that is free");
    else
        q_buf_printf(b, "already free (its pages are back in the page allocator)");
}

static void describe(struct q_buf *b, const void *p)
{
    struct q_slab *s = q_slab_of(p);
    struct q_page *page = q_any_page(p);
    void *start;
    size_t size;
    uintptr_t at;
    bool mapped;

    if (s != NULL)
        describe_in_slab(b, s, p);
    else if (page != NULL)
        describe_pages(b, page, p);
    else if (q_interrupted()) /* the lock of the mappings may be our own */
        q_buf_printf(b, "not quire's, or in a large block");
    else if (q_vfind(p, &start, &size))
        q_buf_printf(b, "inside a live object of size %zu at %p (offset %zu)", size, start,
                     (size_t)((const char *)p - (char *)start));
    else if (q_mapped_holds(p))
        q_buf_printf(b, "in a mapped image, where no block begins");
    else if (q_area_find(p, &at, &size, &mapped))
        q_buf_printf(b, "in an area of %s (%zu pages at %p)",
                     mapped ? "quire_vmap()" : "quire_vmalloc()", size, (void *)at);
    else if (q_vresting(p))
        q_buf_printf(b, "already free (a large block)");
    else
        q_buf_printf(b, "not quire's (stack, static data, another allocator, or a large block "
                        "already given back)");
}

void q_complain(const char *text)
{
    if (q_opt.misuse == Q_MISUSE_ABORT)
        q_die("%s", text);
    q_msg("%s", text);
}

void q_misuse(const char *caller, const void *p)
{
    char text[400];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "%s(%p): ", caller, p);
    describe(&b, p);
    q_complain(text);
}

void q_misuse_size(const char *caller, const void *p, size_t given, size_t holds)
{
    char text[400];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "%s(%p): wrong size %zu for an object of size %zu", caller, p, given, holds);
    q_complain(text);
}

/* What a struct page stands for that is not what the caller needs. */
static void describe_page(struct q_buf *b, const struct q_page *page)
{
    const struct q_page *head = block_head(page);
    size_t at = (size_t)(page - head);

    if (q_page_type_of(head) == Q_PAGE_SLAB && at < head->nr)
        q_buf_printf(b, "holds objects of malloc's");
    else if (q_page_type_of(head) != Q_PAGE_RUN || at >= head->nr)
        q_buf_printf(b, "already free");
    else if (q_page_is_owned(head))
        q_describe_owned(b, q_page_address(page));
    else if (q_page_is_movable(head))
        q_buf_printf(b, "belongs to a handle of quire_movable_alloc()");
    else if (!q_page_is_counted(head))
        q_buf_printf(b, "belongs to malloc (a block of %u pages at %p)", head->nr,
                     q_any_address(head));
    else if (q_page_count(head) == 0)
        q_buf_printf(b, "already free (being freed right now)");
    else if (q_page_count(head) == Q_PAGE_COUNT_MAX)
        q_buf_printf(b, "has as many references as can be counted");
    else
        q_buf_printf(b, "is page %zu of a live block of %u pages at %p", at, head->nr,
                     q_any_address(head));
}

static void name_page(struct q_buf *b, const char *caller, const struct q_page *page)
{
    q_buf_printf(b, "%s(%p, frame %zu at %p): ", caller, (const void *)page, q_any_pfn(page),
                 q_any_address(page));
}

void q_misuse_page(const char *caller, const struct q_page *page)
{
    char text[400];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    name_page(&b, caller, page);
    describe_page(&b, page);
    q_complain(text);
}

void q_misuse_page_nr(const char *caller, const struct q_page *head, size_t nr)
{
    char text[400];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    name_page(&b, caller, head);
    q_buf_printf(&b, "wrong length of %zu pages for a block of %u pages", nr, head->nr);
    q_complain(text);
}

void q_misuse_text(const char *caller, const void *p, const char *text)
{
    char line[400];
    struct q_buf b = {.at = line, .size = sizeof(line)};

    q_buf_printf(&b, "%s(%p): %s", caller, p, text);
    q_complain(line);
}

void q_misuse_area(const char *caller, const void *p)
{
    char text[200];
    struct q_buf b = {.at = text, .size = sizeof(text)};
    uintptr_t addr;
    size_t nr;
    bool mapped;

    if (q_interrupted())
        q_buf_printf(&b, "in a signal handler that interrupted the allocator");
    else if (q_area_find(p, &addr, &nr, &mapped))
        q_buf_printf(&b, "%s area of %s (%zu pages at %p)",
                     addr == (uintptr_t)p ? "that is an" : "not the start of the",
                     mapped ? "quire_vmap()" : "quire_vmalloc()", nr, (void *)addr);
    else
        q_buf_printf(&b, "no area begins there");
    q_misuse_text(caller, p, text);
}

void q_misuse_no_page(const char *caller, const void *page)
{
    char text[400];
    struct q_buf b = {.at = text, .size = sizeof(text)};

    q_buf_printf(&b, "%s(%p): not a page (those come from quire_alloc_pages() and its like)",
                 caller, page);
    q_complain(text);
}
