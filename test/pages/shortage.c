/*
 * shortage.c - memory is short: at a limit, the process's own or that of its control group, the
 * program's caches are asked before an allocation fails, by every kind of it.
 *
 * Cases in parentheses are run by others, with options.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pieces.h"
#include "quire/heap.h"
#include "quire/highmem.h"
#include "quire/numa.h"
#include "quire/page.h"
#include "quire/quire.h"
#include "quire/slab.h"

/* More blocks of a heap than are left: the cache makes room. */
static void fill_heap(struct quire_heap *h, int nr, size_t size)
{
    fill_cache(400);
    unsigned before = cache.scans;
    for (int i = 0; i < nr; i++)
        REQUIRE(quire_heap_alloc(h, size) != NULL, "%d of %d in a heap", i, nr);
    CHECK(cache.scans > before && errno == 77);
    quire_heap_reset(h);
}

static void caches_and_heaps(void)
{
    enum { BIG = 100000, NR_BIG = 100, NR_SMALL = 4000, EACH = 3000 };
    static void *object[NR_SMALL];
    struct quire_cache *c = quire_cache_create("objects", EACH, 0, 0, NULL);
    struct quire_heap *h = quire_heap_create(NULL);
    char *p;

    fill_cache(400);
    unsigned before = cache.scans;
    for (int i = 0; i < NR_SMALL; i++)
        REQUIRE((object[i] = quire_cache_alloc(c)) != NULL, "%d of %d objects", i, NR_SMALL);
    CHECK(cache.scans > before && errno == 77);
    quire_cache_free_bulk(c, NR_SMALL, object);
    CHECK(quire_cache_destroy(c) == 0);
    fill_heap(h, NR_SMALL, EACH);
    fill_heap(h, NR_BIG, BIG);
    fill_cache(400);
    before = cache.scans;
    p = quire_heap_alloc(h, 1000);
    memset(p, 7, 1000);
    CHECK((p = quire_heap_realloc(h, p, 16 << 20)) != NULL && p[0] == 7 && p[999] == 7);
    CHECK(cache.scans > before && errno == 77);
    quire_heap_destroy(h);
    /* A limit of its own is nobody else's. */
    h = quire_heap_create(&(struct quire_heap_attr){.limit = 1 << 20});
    fill_cache(300);
    before = cache.scans;
    while (quire_heap_alloc(h, EACH) != NULL)
        ;
    CHECK(errno == ENOMEM && quire_heap_alloc(h, BIG) == NULL &&
          quire_heap_alloc(h, 8 << 20) == NULL);
    CHECK((p = quire_heap_alloc(h, 16)) == NULL || quire_heap_realloc(h, p, BIG) == NULL);
    CHECK(cache.scans == before);
    quire_heap_destroy(h);
    errno = 77;
}

static void bulk_and_node(void)
{
    enum { NR_PAGES = 3000, NR_SMALL = 4000, EACH = 3000 };
    static struct quire_page *page[NR_PAGES];
    static void *object[NR_SMALL];

    fill_cache(400);
    unsigned before = cache.scans;
    CHECK(quire_alloc_pages_bulk(0, NR_PAGES, page) == NR_PAGES);
    CHECK(cache.scans > before && errno == 77);
    quire_free_pages_bulk(NR_PAGES, page);
    fill_cache(400);
    before = cache.scans;
    for (int i = 0; i < NR_SMALL; i++)
        REQUIRE((object[i] = quire_node_alloc(EACH, 0)) != NULL, "%d of %d", i, NR_SMALL);
    CHECK(cache.scans > before && errno == 77);
    for (int i = 0; i < NR_SMALL; i++)
        free(object[i]);
}

static void under_limit(void)
{
    only_with("limit:32M");
    quire_shrinker_t *s = quire_shrinker_register("cache", count, scan, &cache);
    REQUIRE(s != NULL);
    fill_cache(400);
    CHECK(cache.scans == 0);
    /* More than is left, of every kind: the cache makes room. */
    char *large = malloc(16 << 20);
    CHECK(large != NULL && cache.scans > 0 && cache.given > 0);
    free(large);
    fill_cache(400);
    unsigned before = cache.scans;
    char *small[4000];
    for (int i = 0; i < 4000; i++)
        REQUIRE((small[i] = malloc(3000)) != NULL, "%d of 4000, errno %d", i, errno);
    CHECK(cache.scans > before);
    for (int i = 0; i < 4000; i++)
        free(small[i]);
    fill_cache(400);
    before = cache.scans;
    struct quire_page *page[600];
    errno = 77;
    for (int i = 0; i < 600; i++)
        REQUIRE((page[i] = quire_alloc_pages(0, 2)) != NULL, "%d of 600", i);
    CHECK(cache.scans > before && errno == 77);
    for (int i = 0; i < 600; i++)
        quire_free_pages(page[i], 2);
    fill_cache(400);
    before = cache.scans;
    large = quire_vmalloc(16 << 20);
    CHECK(large != NULL && cache.scans > before && errno == 77);
    quire_vfree(large);
    caches_and_heaps();
    bulk_and_node();
    /* Hopeless: nothing is given up for it. */
    fill_cache(300);
    before = cache.scans;
    unsigned held = cache.nr;
    errno = 0;
    CHECK(malloc(40 << 20) == NULL && errno == ENOMEM && cache.scans == before);
    CHECK(malloc(conform_opaque(SIZE_MAX)) == NULL && cache.scans == before && cache.nr == held);
    /* Without it, it fails as ever. */
    CHECK(quire_shrinker_unregister(s) == 0);
    errno = 0;
    CHECK(malloc(20 << 20) == NULL && errno == ENOMEM && cache.scans == before);
}

/* What is in use is below the limit all the time; what was freed before must not come on top. */
static void freed_under_limit(void)
{
    enum { RUNS = 200, OBJECTS = 400000 };
    static char *p[OBJECTS];

    only_with("limit:48M");
    size_t least = conform_resident() + sizeof(p);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < RUNS; i++)
            REQUIRE((p[i] = malloc(200000)) != NULL && memset(p[i], 1, 200000));
        for (int i = 0; i < RUNS; i++)
            free(p[i]);
        for (int i = 0; i < OBJECTS; i++)
            REQUIRE((p[i] = malloc(100)) != NULL && memset(p[i], 1, 100));
        CHECK(conform_resident() <= least + (51 << 20), "%zu, at first %zu", conform_resident(),
              least);
        for (int i = 0; i < OBJECTS; i++)
            free(p[i]);
        char *large = malloc(40 << 20);
        REQUIRE(large != NULL);
        memset(large, 1, 40 << 20);
        CHECK(conform_resident() <= least + (51 << 20), "%zu, at first %zu", conform_resident(),
              least);
        free(large);
    }
}

static _Atomic unsigned failed;

static void *allocate(void *arg)
{
    uint64_t state = (uintptr_t)arg;
    char *mine[40] = {NULL};

    for (int i = 0; i < 2000; i++) {
        unsigned at = (unsigned)(conform_random(&state) % 40);

        free(mine[at]);
        mine[at] = malloc(1000 + conform_random(&state) % 60000);
        /* Another thread may hold the cache for longer than anybody waits. */
        if (mine[at] == NULL)
            failed++;
        else
            memset(mine[at], (int)at, 1000);
        if (i % 8 == 0 && pthread_mutex_trylock(&cache.lock) == 0) {
            /* With the lock held: a callback that waited for it would wait for ever. */
            if (cache.nr < NR && (cache.piece[cache.nr] = malloc(PIECE)) != NULL)
                cache.nr++;
            pthread_mutex_unlock(&cache.lock);
        }
    }
    for (int i = 0; i < 40; i++)
        free(mine[i]);
    return NULL;
}

static void threads_under_limit(void)
{
    pthread_t thread[4];

    only_with("limit:32M");
    quire_shrinker_t *s = quire_shrinker_register("cache", count, scan, &cache);
    fill_cache(100);
    for (uintptr_t i = 0; i < 4; i++)
        REQUIRE(pthread_create(&thread[i], NULL, allocate, (void *)(i + 1)) == 0);
    for (int i = 0; i < 50; i++)
        quire_shrink(1);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    /* Nobody has to have found the lock free: what is said of the cache is for afterwards. */
    CHECK(cache.counts > 0 && failed < 4 * 1000, "%u of 8000 failed", (unsigned)failed);
    fill_cache(300);
    unsigned before = cache.scans;
    char *p = malloc(16 << 20);
    CHECK(p != NULL && cache.scans > before, "nobody holds the cache now");
    free(p);
    CHECK(quire_shrinker_unregister(s) == 0);
}

static void case_limit(void)
{
    run_with("limit:32M", "(under a limit)");
    run_with("limit:32M", "(threads under a limit)");
    run_with("limit:32M,model:sparse", "(under a limit)");
    run_with("limit:32M,numa_fake:2", "(under a limit)");
    run_with("limit:48M", "(freed under a limit)");
    run_with("limit:48M,model:sparse,numa_fake:2", "(freed under a limit)");
}

static char folder[] = "/tmp/quire-cgroup-XXXXXX";

static void write_in(const char *name, const char *text)
{
    char path[100];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static void remove_group(void)
{
    static const char *const names[] = {"group/memory.max",
                                        "group/memory.high",
                                        "group/memory.current",
                                        "group/memory.stat",
                                        "memory.max",
                                        "memory.high",
                                        "memory.current",
                                        "group",
                                        ""};
    char path[100];

    for (unsigned i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        if (remove(path) != 0)
            rmdir(path);
    }
}

/* A group of 64 MiB in one of 32: that counts, less a sixteenth. */
static void in_group(void)
{
    only_with("cgroup:");
    char *p = malloc(24 << 20);
    CHECK(p != NULL);
    errno = 0;
    CHECK(malloc(8 << 20) == NULL && errno == ENOMEM);
    free(p);
    p = malloc(28 << 20);
    CHECK(p != NULL);
}

/* memory.current is near memory.high, and stays there: the cache is asked again and again. */
static void pressed(void)
{
    only_with("cgroup:");
    only_with("kswapd:1");
    REQUIRE(quire_shrinker_register("cache", count, scan, &cache) != NULL);
    fill_cache(64);
    for (int i = 0; i < 2000 && cache.given < 10 * PIECE; i++)
        nap();
    CHECK(cache.given >= 10 * PIECE, "%zu bytes given", (size_t)cache.given);
}

/* What fills the group is pages of files: nobody is asked for anything. */
static void not_pressed(void)
{
    only_with("cgroup:");
    only_with("kswapd:1");
    REQUIRE(quire_shrinker_register("cache", count, scan, &cache) != NULL);
    fill_cache(64);
    for (int i = 0; i < 80; i++)
        nap();
    CHECK(cache.given == 0, "%zu bytes given", (size_t)cache.given);
}

static void case_group(void)
{
    char options[200], path[100];

    REQUIRE(mkdtemp(folder) != NULL);
    snprintf(path, sizeof(path), "%s/group", folder);
    REQUIRE(mkdir(path, 0700) == 0);
    write_in("memory.max", "33554432\n");
    write_in("group/memory.max", "67108864\n");
    snprintf(options, sizeof(options), "cgroup:%s", path);
    run_with(options, "(in a group)");
    write_in("group/memory.max", "max     \n");
    run_with(options, "(in a group)");
    write_in("group/memory.high", "30000000\n");
    write_in("group/memory.current", "29000000\n");
    snprintf(options, sizeof(options), "kswapd:1,cgroup:%s", path);
    run_with(options, "(pressed)");
    write_in("group/memory.stat", "anon 1000000\nfile 25000000\ninactive_anon 1000000\n"
                                  "inactive_file 24000000\nactive_file 1000000\n");
    run_with(options, "(not pressed)");
    write_in("memory.high", "20000000\n"); /* of the group above */
    write_in("memory.current", "19000000\n");
    run_with(options, "(pressed)");
    run_with("cgroup:/nowhere,limit:32M", "(under a limit)");
    run_with("cgroup:auto,limit:32M", "(under a limit)");
    remove_group();
}

static const struct conform_case cases[] = {
    {"before ENOMEM", case_limit, 120},
    {"control groups", case_group, 180},
    {"(under a limit)", under_limit, 0},
    {"(threads under a limit)", threads_under_limit, 0},
    {"(freed under a limit)", freed_under_limit, 0},
    {"(in a group)", in_group, 0},
    {"(pressed)", pressed, 0},
    {"(not pressed)", not_pressed, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
