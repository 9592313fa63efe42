/*
 * layers: what quire's own layers cost below malloc, linked from their sources, with nothing of
 * src/malloc but shrinkers: the program itself lives on libc's allocator. Blocks of pages are in
 * layers_zone.c, objects and heaps in layers_slab.c.
 *
 *     slab-pages-KEPT     KEPT blocks of a slab's order out and back: few stay in the per-CPU list
 *     pages-ORDER         one block out of the buddy lists and back
 *     pages-deep-ORDER    many blocks at once: larger ones are split, and merge again
 *     pages-zero-ORDER    one block, zeroed
 *     run-PAGES           an exact number of pages, the tail given back
 *     object-SIZE         a slab's object popped and freed, off the fast path of malloc()
 *     objects-SIZE        a thousand popped, then freed in the same order
 *     cache-SIZE          an object of a named cache and back: the fast paths
 *     caches-SIZE         a thousand taken, then freed in the same order: mostly the slow ones
 *     arena-SIZE          a block of a program's heap and back
 *     arenas-BLOCKS       a heap made, so many blocks of 16 to 527 bytes in it, and destroyed
 *     low-ORDER           one block of zone DMA32, written and back
 *     locked-ORDER        one block of zone DMA: locked, unlocked, given back to the kernel
 *     kmap-PAGES          show one of so many pages without addresses and write to it, in turn
 *     vmap-PAGES          so many of them in a row, from anywhere, and away again
 *     area-PAGES          memory between guard pages, written at its start, and back
 *     pin-PAGES           a movable run pinned and unpinned
 *     compact-PAGES       so many single pages moved out of half-empty pageblocks, per page
 *     reclaim-PAGES       so many pages written, freed and given back to the kernel, per page
 *     drop-PAGES          so many single discardable pages, written, and dropped by reclaim, per page
 *     shrinker-PAGES      a run of so many at the limit, where a shrinker frees older ones for it
 *     mapping-MIB         a block with a mapping of its own, out of the cache and back
 */
#include "layers.h"

#include "slab/slub.h"

void each(const char *habit, shim_function *function, const size_t *arguments, size_t unit)
{
    for (int i = 0; i == 0 || arguments[i]; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%s-%zu", habit, arguments[i]);
        shim_register(name, function, arguments[i], unit, 0);
    }
}

int main(int argc, char **argv)
{
    check(q_slub_init(), "no memory");
    register_zone();
    register_slab();
    return shim_main(argc, argv);
}
