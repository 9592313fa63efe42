/* memmap.c - the memory models: what is reserved, and address <-> pfn <-> struct page. */
#include <sys/mman.h>
#include <sys/resource.h>

#include "core.h"
#include "slab/slab.h"

/* A page of every run that is given out, both ways and back; its neighbours as well. */
static void check_round_trips(struct q_page *page, size_t nr)
{
    size_t pfn = q_page_to_pfn(page);
    char *start = q_page_address(page);

    must(q_pfn_to_page(pfn) == page);
    must_eq((uintptr_t)start & (q_page_size() - 1), 0);
    for (size_t i = 0; i < nr; i++) {
        char *p = start + (i << q_page_shift);

        must(q_pfn_to_virt(pfn + i) == (void *)p);
        must_eq(q_virt_to_pfn(p), pfn + i);
        must_eq(q_virt_to_pfn(p + q_page_size() - 1), pfn + i);
        must(q_virt_to_page(p) == page + i);
        must(q_virt_to_page(p + 1) == page + i);
    }
}

static int here;

static void check_foreign(void)
{
    int on_stack = 0;
    static const uintptr_t odd[] = {0,
                                    1,
                                    15,
                                    4096,
                                    (uintptr_t)1 << 40,
                                    (uintptr_t)1 << 47,
                                    (uintptr_t)1 << 63,
                                    ~(uintptr_t)0,
                                    ~(uintptr_t)0 - 4095};
    void *from_libc = malloc(100);
    char *mapped = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    must(q_virt_to_page(&on_stack) == NULL);
    must(q_virt_to_page(&here) == NULL);
    must(q_virt_to_page((void *)(uintptr_t)check_foreign) == NULL);
    must(q_virt_to_page(from_libc) == NULL);
    must(q_virt_to_page(mapped) == NULL && q_virt_to_page(mapped + 4097) == NULL);
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
        must(q_virt_to_page((void *)odd[i]) == NULL);
    must(q_virt_to_page(q_mem.mem_map) == NULL);
    must(q_virt_to_page(q_lookup.slabs) == NULL);
    free(from_libc);
    munmap(mapped, 1 << 20);
}

static void check_model(enum core_kind kind)
{
    struct q_page *pages[64];

    core_start(kind);
    check_foreign();
    for (size_t i = 0; i < 64; i++) {
        size_t nr = i % 4 == 3 ? (size_t)1 << Q_MAX_ORDER : 1 + i * 7;

        pages[i] = q_alloc_run(i % 2 ? Q_GFP_MOVABLE : Q_GFP_KERNEL, nr);
        must(pages[i] != NULL);
        must_eq(pages[i]->type, Q_PAGE_RUN);
        must_eq(pages[i]->nr, nr);
        check_round_trips(pages[i], nr);
        core_stamp(q_page_address(pages[i]), nr, i);
    }
    check_foreign();
    core_check();
    for (size_t i = 0; i < 64; i++) {
        must(core_stamped(q_page_address(pages[i]), pages[i]->nr, i));
        q_free_run(pages[i]);
    }
    core_check();
    must_eq(q_pages_in_use, 0);
}

Test(memmap, flat)
{
    check_model(CORE_FLAT);
    must_eq(q_topology.nr_nodes, 1);
    must_eq(q_mem.base & (q_mem.size - 1), 0);
    must(q_virt_to_page((void *)q_mem.base) != NULL);
    must(q_virt_to_page((void *)(q_mem.base - 1)) == NULL);
    must(q_virt_to_page((void *)(q_mem.base + q_mem.size)) == NULL);
    must(q_virt_to_page((void *)(q_mem.base + q_mem.size - 1)) == NULL); /* not online */
}

Test(memmap, discontiguous)
{
    check_model(CORE_NUMA);
    must_eq(q_topology.nr_nodes, 4);
    for (unsigned nid = 0; nid < 4; nid++) {
        const struct q_node *node = q_nodes[nid];

        must_eq(node->nid, nid);
        must_eq(node->node_start_pfn, nid * node->node_spanned_pages);
        must(node->node_mem_map == q_pfn_to_page(node->node_start_pfn));
        must_eq(node->zones[0].start_pfn, node->node_start_pfn);
        must_eq(node->zones[1].start_pfn, node->node_start_pfn + node->node_spanned_pages / 2);
        /* Nothing online behind what is present. */
        size_t behind = node->zones[1].start_pfn + node->zones[1].present_pages;
        must(!q_pfn_online(behind));
        must(q_virt_to_page(q_pfn_to_virt(behind)) == NULL);
    }
}

Test(memmap, sparse)
{
    check_model(CORE_SPARSE);
    must(q_mem.nr_sections > 10);
    size_t nr = 0;
    for (size_t s = 0; s < q_mem.end_section; s++) {
        char *at = (char *)q_section_addr(s);

        if (at == NULL) {
            must(!q_pfn_online(s << Q_SECTION_ORDER));
            continue;
        }
        nr++;
        must_eq(q_virt_to_pfn(at), s << Q_SECTION_ORDER);
        must_eq(q_virt_to_pfn(at + q_max_block_size() - 1), ((s + 1) << Q_SECTION_ORDER) - 1);
    }
    must_eq(nr, q_mem.nr_sections);
}

/* Where a section's number is taken, it goes elsewhere; none shares its descriptors. */
Test(memmap, sparse_sections_in_each_others_way)
{
    q_opt.window = 16 * q_max_block_size();
    core_start(CORE_SPARSE);
    size_t len = q_max_block_size(), n = 0, spoilt = 0;
    struct q_page *page;

    while ((page = q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER)) != NULL) {
        char *at = q_page_address(page);
        /* Leave the kernel to find places with only the number of this one. */
        for (size_t i = 1; i < 16 && n < 4; i++)
            spoilt += q_mmap(at - i * len, len, PROT_NONE, MAP_NORESERVE) == at - i * len;
        must_eq(q_virt_to_pfn(at), q_page_to_pfn(page));
        must_eq((size_t)((char *)q_slab_guess(at) - q_lookup.slabs),
                (q_virt_to_pfn(at) >> q_slab_order()) << Q_SLAB_DESC_SHIFT);
        n++;
    }
    must(spoilt > 0);
    must_eq(n, 16);
}

/* As many sections as the tables have room for; then NULL, and all of it found again. */
Test(memmap, sparse_up_to_its_last_section)
{
    q_opt.window = 64 * q_max_block_size();
    core_start(CORE_SPARSE);
    struct q_page *page[65];
    size_t n = 0;

    must_eq(q_mem.max_pages, (size_t)64 << Q_MAX_ORDER);
    while (n < 65 && (page[n] = q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER)) != NULL)
        n++;
    must_eq(n, 64);
    must_eq(q_pages_in_use, q_mem.max_pages);
    must(q_alloc_pages(Q_GFP_MOVABLE, 0) == NULL);
    for (size_t i = 0; i < n; i++) {
        check_round_trips(page[i], 1);
        q_free_run(page[i]);
    }
    must_eq(q_pages_in_use, 0);
    core_check();
    must(q_alloc_pages(Q_GFP_MOVABLE, Q_MAX_ORDER) != NULL);
}

Test(memmap, flat_up_to_its_last_page)
{
    q_opt.window = 64 * q_max_block_size();
    core_start(CORE_FLAT);
    size_t n = 0;

    must_eq(q_mem.size, 64 * q_max_block_size());
    while (q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER) != NULL)
        n++;
    must_eq(n, 64);
    must(q_alloc_pages(Q_GFP_MOVABLE, 0) == NULL);
    must_eq(q_pages_in_use, q_mem.max_pages);
    core_check();
}

/* Address space in use now, by /proc/self/statm. */
static size_t address_space(void)
{
    char text[256];

    must(q_read_file("/proc/self/statm", text, sizeof(text)) > 0);
    return strtoul(text, NULL, 10) << q_page_shift;
}

static void limit_address_space(size_t more)
{
    struct rlimit rl = {address_space() + more, RLIM_INFINITY};

    must(setrlimit(RLIMIT_AS, &rl) == 0);
}

/* Under ulimit -v: sparse by itself, most of the room usable, NULL at its end, and back again. */
Test(memmap, address_space_limit, .disabled = UNIT_SANITIZED)
{
    struct q_page *page[200];
    size_t n = 0;

    q_base_init();
    limit_address_space((size_t)256 << 20);
    must(q_mem_init());
    must(q_mem.sparse);
    while (n < 200 && (page[n] = q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER)) != NULL) {
        core_stamp(q_page_address(page[n]), (size_t)1 << Q_MAX_ORDER, n);
        n++;
    }
    cr_assert(n >= 40 && n < 64, "%zu blocks of 4 MiB under a limit of 256 MiB", n);
    must(q_alloc_pages(Q_GFP_MOVABLE, Q_MAX_ORDER) == NULL);
    for (size_t i = 0; i < n; i++) {
        must(core_stamped(q_page_address(page[i]), (size_t)1 << Q_MAX_ORDER, i));
        q_free_run(page[i]);
    }
    core_check();
    must_eq(q_pages_in_use, 0);
    must(q_alloc_pages(Q_GFP_MOVABLE, Q_MAX_ORDER) != NULL);
}

/* model:flat under a limit halves the window until it fits. */
Test(memmap, flat_window_halves_under_a_limit, .disabled = UNIT_SANITIZED)
{
    q_base_init();
    limit_address_space((size_t)3 << 30);
    q_opt.model = Q_MODEL_FLAT;
    must(q_mem_init());
    must(!q_mem.sparse);
    must(q_mem.size >= (size_t)512 << 20 && q_mem.size <= (size_t)2 << 30);
    must(q_alloc_pages(Q_GFP_KERNEL, Q_MAX_ORDER) != NULL);
    core_check();
}

/* Not even a little address space: false, and nothing crashes. */
Test(memmap, no_address_space_at_all, .disabled = UNIT_SANITIZED)
{
    q_base_init();
    limit_address_space((size_t)64 << 10);
    must(!q_mem_init());
}

Test(memmap, metadata_is_zero_and_apart)
{
    core_start(CORE_FLAT);
    char *last = NULL;
    size_t before = q_mem.meta_bytes;

    for (size_t n = 1; n < 2000; n += 13) {
        char *p = q_meta_alloc(n);

        must(p != NULL && ((uintptr_t)p & (2 * Q_CACHELINE - 1)) == 0);
        for (size_t i = 0; i < n; i++)
            must(p[i] == 0);
        for (size_t i = 0; i < n; i++)
            p[i] = 1;
        must(p != last && q_virt_to_page(p) == NULL);
        last = p;
    }
    char *big = q_meta_alloc((size_t)3 << 20);
    must(big != NULL && big[0] == 0 && big[((size_t)3 << 20) - 1] == 0);
    must(q_mem.meta_bytes >= before + ((size_t)3 << 20));
    must(q_meta_alloc((size_t)1 << 50) == NULL);
}
