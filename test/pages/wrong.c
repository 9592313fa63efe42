/*
 * wrong.c - wrong use of pages: each is answered by one line that names the function and what the
 * page is (see ../conform/wrong.h).
 */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "../conform/wrong.h"
#include "quire/highmem.h"
#include "quire/movable.h"
#include "quire/page.h"
#include "quire/quire.h"

static struct quire_page *block; /* of 8 pages, live while anything wrong is done */
static struct quire_page *single;
static char *bytes;

static void double_put(void)
{
    quire_put_page(single);
    quire_put_page(single);
}

static void double_free(void)
{
    quire_free_page(single);
    quire_free_page(single);
}

static void double_free_by_address(void)
{
    char *p = quire_page_address(single);

    quire_put_free_page(p);
    quire_put_free_page(p);
}

static void get_after_free(void)
{
    quire_put_page(single);
    quire_get_page(single);
}

static void wrong_order(void)
{
    quire_free_pages(block, 2);
}

static void impossible_order(void)
{
    quire_free_pages(block, 40);
}

static void wrong_order_by_address(void)
{
    quire_put_free_pages(bytes, 4);
}

static void wrong_bytes(void)
{
    quire_free_pages_exact(bytes, 1);
}

static void free_of_a_tail(void)
{
    quire_free_pages(quire_virt_to_page(bytes + 3 * (size_t)sysconf(_SC_PAGESIZE)), 3);
}

static void interior_address(void)
{
    quire_put_free_pages(bytes + 40, 3);
}

static void put_of_no_page(void)
{
    quire_put_page((struct quire_page *)(uintptr_t)0x1234560);
}

static void put_between_pages(void)
{
    quire_put_page((struct quire_page *)((char *)block + 8));
}

static void put_of_null(void)
{
    quire_put_page(NULL);
}

static void put_of_an_address(void)
{
    quire_put_page((struct quire_page *)bytes);
}

static void address_of_no_page(void)
{
    quire_page_address((struct quire_page *)&block);
}

static void put_of_an_object(void)
{
    quire_put_page(quire_virt_to_page(malloc(50)));
}

static void put_of_a_run(void)
{
    quire_put_page(quire_virt_to_page(malloc(200000)));
}

static void object_by_address(void)
{
    quire_put_free_page(malloc(50));
}

static void foreign_address(void)
{
    quire_put_free_page(&block);
}

static void split_of_free(void)
{
    quire_put_page(single);
    quire_split_page(single, 0);
}

static void malloc_frees_pages(void)
{
    free(bytes);
}

static void realloc_of_pages(void)
{
    free(realloc(bytes, 3000000));
}

/* The same where the page is in a zone of its own; one without room below 4 GiB has it elsewhere. */
static struct quire_page *low_page(void)
{
    struct quire_page *page = quire_alloc_pages(QUIRE_GFP_DMA32, 1);

    return page != NULL ? page : quire_alloc_pages(0, 1);
}

static void double_put_low(void)
{
    struct quire_page *page = low_page();

    quire_put_page(page);
    quire_put_page(page);
}

static void malloc_frees_low_pages(void)
{
    free(quire_page_address(low_page()));
}

static void wrong_order_low(void)
{
    quire_put_free_pages(quire_page_address(low_page()), 3);
}

static struct quire_page *high_page(void)
{
    return quire_alloc_page(QUIRE_GFP_HIGHMEM);
}

static void double_put_high(void)
{
    struct quire_page *page = high_page();

    quire_put_page(page);
    quire_put_page(page);
}

static void kunmap_of_unmapped(void)
{
    struct quire_page *page = high_page();

    quire_kmap(page);
    quire_kunmap(page);
    quire_kunmap(page);
}

static void kunmap_of_freed(void)
{
    struct quire_page *page = high_page();

    quire_put_page(page);
    quire_kunmap(page);
}

/* What a window holds is put as well. */
static void put_too_often(struct quire_page *page)
{
    quire_put_page(page);
    quire_put_page(page);
}

static void kunmap_local_of_freed(void)
{
    struct quire_page *page = high_page();
    char *p = quire_kmap_local(page);

    put_too_often(page);
    quire_kunmap_local(p);
}

static void fixmap_of_freed(void)
{
    struct quire_page *page = high_page();

    quire_set_fixmap(0, page);
    put_too_often(page);
    quire_set_fixmap(0, NULL);
}

static void vunmap_of_freed(void)
{
    struct quire_page *page = high_page();
    char *p = quire_vmap(&page, 1);

    put_too_often(page);
    quire_vunmap(p);
}

static void out_of_order(void)
{
    char *first = quire_kmap_local(high_page()), *second = quire_kmap_local(high_page());

    quire_kunmap_local(first);
    quire_kunmap_local(second);
}

static void nothing_mapped(void)
{
    char *p = quire_kmap_local(high_page());

    quire_kunmap_local(p);
    quire_kunmap_local(p);
}

static char *elsewhere;

static void *map_elsewhere(void *arg)
{
    elsewhere = quire_kmap_local(arg);
    return NULL;
}

static void another_thread(void)
{
    struct quire_page *mine = high_page(), *others = high_page();
    pthread_t thread;

    quire_kmap_local(mine);
    pthread_create(&thread, NULL, map_elsewhere, others);
    pthread_join(thread, NULL);
    quire_kunmap_local(elsewhere);
}

static void no_window(void)
{
    quire_kunmap_local(&block);
}

static void vfree_twice(void)
{
    char *p = quire_vmalloc(1);

    quire_vfree(p);
    quire_vfree(p);
}

static void vfree_inside(void)
{
    quire_vfree((char *)quire_vmalloc(100000) + 1);
}

static void vunmap_of_vmalloc(void)
{
    quire_vunmap(quire_vmalloc(1));
}

static void vfree_of_vmap(void)
{
    struct quire_page *page = high_page();

    quire_vfree(quire_vmap(&page, 1));
}

static void free_of_vmalloc(void)
{
    free(quire_vmalloc(1));
}

static void unpin_too_often(void)
{
    quire_movable_t *h = quire_movable_alloc(1, 0);

    quire_movable_pin(h, NULL);
    quire_movable_unpin(h);
    quire_movable_unpin(h);
}

static void free_of_pinned(void)
{
    quire_movable_t *h = quire_movable_alloc(1, 0);

    quire_movable_pin(h, NULL);
    quire_movable_free(h);
}

static void free_handle_twice(void)
{
    quire_movable_t *h = quire_movable_alloc(1, 0);

    quire_movable_free(h);
    quire_movable_free(h);
}

static void pin_of_no_handle(void)
{
    quire_movable_pin((quire_movable_t *)&block, NULL);
}

static char *movable_address(void)
{
    return quire_movable_pin(quire_movable_alloc(1, 0), NULL);
}

static void free_of_movable(void)
{
    free(movable_address());
}

static void put_of_movable(void)
{
    quire_put_page(quire_virt_to_page(movable_address()));
}

static void bulk_twice(void)
{
    struct quire_page *pages[2] = {single, single};

    quire_free_pages_bulk(2, pages);
}

static const struct wrong wrongs[] = {
    {"double put", "quire_put_page(", "already free", double_put},
    {"double free", "quire_free_page(", "already free", double_free},
    {"double free by address", "quire_put_free_page(", "already free", double_free_by_address},
    {"get after free", "quire_get_page(", "already free", get_after_free},
    {"wrong order", "quire_free_pages(", "wrong length of 4 pages for a block of 8", wrong_order},
    {"impossible order", "quire_free_pages(", "wrong length of 0 pages", impossible_order},
    {"wrong order by address", "quire_put_free_pages(", "wrong length of 16 pages",
     wrong_order_by_address},
    {"wrong bytes", "quire_free_pages_exact(", "wrong length of 1 pages", wrong_bytes},
    {"free of a tail", "quire_free_pages(", "is page 3 of a live block of 8 pages", free_of_a_tail},
    {"interior address", "quire_put_free_pages(", "offset 40)", interior_address},
    {"put of no page", "quire_put_page(0x1234560)", "not a page", put_of_no_page},
    {"put between pages", "quire_put_page(", "not a page", put_between_pages},
    {"put of NULL", "quire_put_page(", "not a page", put_of_null},
    {"put of an address", "quire_put_page(", "not a page", put_of_an_address},
    {"address of no page", "quire_page_address(", "not a page", address_of_no_page},
    {"put of an object", "quire_put_page(", "holds objects of malloc's", put_of_an_object},
    {"put of malloc's block", "quire_put_page(", "belongs to malloc", put_of_a_run},
    {"object by address", "quire_put_free_page(", "inside a live object", object_by_address},
    {"foreign address", "quire_put_free_page(", "not quire's", foreign_address},
    {"split of a free page", "quire_split_page(", "already free", split_of_free},
    {"free() of pages", "free(", "in a live block of pages", malloc_frees_pages},
    {"realloc() of pages", "realloc(", "in a live block of pages", realloc_of_pages},
    {"double put, DMA32", "quire_put_page(", "already free", double_put_low},
    {"free() of low pages", "free(", "in a live block of pages", malloc_frees_low_pages},
    {"wrong order, DMA32", "quire_put_free_pages(", "wrong length of 8 pages for a block of 2",
     wrong_order_low},
    {"double put, HIGHMEM", "quire_put_page(", "already free", double_put_high},
    {"kunmap of what is not mapped", "quire_kunmap(", "not mapped by quire_kmap()",
     kunmap_of_unmapped},
    {"kunmap of a free page", "quire_kunmap(", "already free", kunmap_of_freed},
    {"kunmap_local of a free page", "quire_kunmap_local(", "already free", kunmap_local_of_freed},
    {"fixmap of a free page", "quire_set_fixmap(", "already free", fixmap_of_freed},
    {"vunmap of a free page", "quire_vunmap(", "already free", vunmap_of_freed},
    {"kunmap_local out of order", "quire_kunmap_local(", "out of order: the last one mapped is 0x",
     out_of_order},
    {"kunmap_local of nothing", "quire_kunmap_local(", "this thread has nothing mapped",
     nothing_mapped},
    {"kunmap_local for another thread", "quire_kunmap_local(", "in a window of another thread",
     another_thread},
    {"kunmap_local of no window", "quire_kunmap_local(", "not an address that", no_window},
    {"vfree twice", "quire_vfree(", "no area begins there", vfree_twice},
    {"vfree inside", "quire_vfree(", "not the start of the area of quire_vmalloc()", vfree_inside},
    {"vunmap of vmalloc", "quire_vunmap(", "that is an area of quire_vmalloc()", vunmap_of_vmalloc},
    {"vfree of vmap", "quire_vfree(", "that is an area of quire_vmap()", vfree_of_vmap},
    {"free() of vmalloc", "free(", "in an area of quire_vmalloc()", free_of_vmalloc},
    {"unpin once too often", "quire_movable_unpin(", "is not pinned", unpin_too_often},
    {"free of a pinned handle", "quire_movable_free(", "is pinned", free_of_pinned},
    {"free of a handle twice", "quire_movable_free(", "or already free", free_handle_twice},
    {"pin of no handle", "quire_movable_pin(", "not a handle", pin_of_no_handle},
    {"free() of movable memory", "free(", "belongs to a handle of quire_movable_alloc()",
     free_of_movable},
    {"put of movable memory", "quire_put_page(", "belongs to a handle of quire_movable_alloc()",
     put_of_movable},
    {"twice in a bulk", "quire_free_pages_bulk(", "already free", bulk_twice},
};

/* Nothing but what was done wrong has changed. */
static bool unharmed(void)
{
    bool ok = quire_page_count(block) == 1 && quire_compound_nr(block) == 8 &&
              conform_intact(bytes, 8 * (size_t)sysconf(_SC_PAGESIZE), 9);

    for (unsigned order = 0; order <= QUIRE_MAX_ORDER; order++) {
        struct quire_page *page = quire_alloc_pages(QUIRE_GFP_ZERO, order);
        ok = ok && page != NULL;
        quire_free_pages(page, order);
    }
    quire_put_page(block);
    return ok && quire_page_count(block) == 0;
}

static void prepare(void)
{
    block = quire_alloc_pages(0, 3);
    single = quire_alloc_page(0);
    REQUIRE(block != NULL && single != NULL);
    bytes = quire_page_address(block);
    conform_fill(bytes, 8 * (size_t)sysconf(_SC_PAGESIZE), 9);
}

static void case_all(void)
{
    prepare();
    wrongs_are_named(wrongs, COUNT_OF(wrongs), unharmed);
}

static const struct conform_case cases[] = {
    {"every wrong use is named", case_all, 120},
};

int main(int argc, char **argv)
{
    return conform_run(cases, 1, argc, argv);
}
