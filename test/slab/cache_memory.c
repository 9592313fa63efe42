/*
 * cache_memory.c - object caches and memory: how much they hold and give back, what they say of it,
 * the limit, how many there may be, and their end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "quire/quire.h"

/* Empty slabs go back without being asked; those of a typesafe cache only when asked. */
static void case_memory_comes_back(void)
{
    static void *p[20000];

    for (int typesafe = 0; typesafe < 2; typesafe++) {
        struct quire_cache *c = make(512, 0, typesafe ? QUIRE_CACHE_TYPESAFE : 0);
        struct quire_cache_stat st;

        REQUIRE(quire_cache_alloc_bulk(c, 20000, p) == 1);
        quire_cache_stat(c, &st);
        CHECK(st.slabs >= 20000 / 128 && st.bytes == st.slabs * 65536, "%zu slabs", st.slabs);
        for (int i = 0; i < 20000; i++)
            memset(p[i], i, 512);
        quire_cache_free_bulk(c, 20000, p);
        quire_cache_stat(c, &st);
        if (typesafe) {
            CHECK(st.slabs >= 20000 / 128, "%zu slabs", st.slabs);
            for (int i = 0; i < 20000; i++)
                CHECK(*(unsigned char *)p[i] == (unsigned char)i, "object %d changed", i);
        } else {
            CHECK(st.slabs <= 4, "%zu slabs", st.slabs);
        }
        CHECK(quire_cache_shrink(c) > 0);
        quire_cache_stat(c, &st);
        CHECK(st.slabs == 0 && st.cached == 0, "%zu slabs, %zu cached", st.slabs, st.cached);
        end(c);
    }
}

static void case_trim(void)
{
    struct quire_cache *c = make(512, 0, 0);
    struct quire_cache_stat st;

    quire_cache_free(c, quire_cache_alloc(c));
    quire_trim(0);
    quire_cache_stat(c, &st);
    CHECK(st.slabs == 0);
    end(c);
}

/* destroy says what was not freed, and leaves the cache as it was. */
static void case_leaks(void)
{
    struct quire_cache *c = make(48, 0, 0);
    char text[2000], first[40];
    int fd[2], saved = dup(2);
    void *p[20];

    REQUIRE(quire_cache_alloc_bulk(c, 20, p) == 1 && pipe(fd) == 0);
    dup2(fd[1], 2);
    errno = 0;
    int result = quire_cache_destroy(c), error = errno;
    dup2(saved, 2);
    close(fd[1]);
    ssize_t n = read(fd[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    snprintf(first, sizeof(first), "%p", p[0]);
    CHECK(result == -1 && error == EBUSY);
    CHECK(strstr(text, "quire_cache_destroy(") != NULL && strstr(text, "\"test\"") != NULL &&
              strstr(text, "20 objects are not free") != NULL && strstr(text, " ...\n") != NULL,
          "said '%s'", text);
    CHECK(strstr(text, first) != NULL, "%s is not in '%s'", first, text);
    CHECK(live_of(c) == 20);
    quire_cache_free_bulk(c, 20, p);
    end(c);
    CHECK(quire_cache_destroy(NULL) == 0);
}

/* As many as there may be, and their numbers are used again. */
static void case_many_caches(void)
{
    static struct quire_cache *c[3000];
    size_t n = 0;

    while (n < 3000 && (c[n] = quire_cache_create("many", 32, 0, 0, NULL)) != NULL)
        n++;
    CHECK(n == 2048 && errno == ENOSPC, "%zu, errno %d", n, errno);
    for (size_t i = 0; i < n; i++) {
        void *p = quire_cache_alloc(c[i]);
        REQUIRE(p != NULL);
        CHECK(quire_cache_owns(c[i], p) && !quire_cache_owns(c[(i + 1) % n], p));
        quire_cache_free(c[i], p);
        quire_cache_shrink(c[i]); /* 64 KiB each are a lot under a limit */
    }
    for (size_t i = 0; i < n; i++)
        end(c[i]);
    for (int i = 0; i < 5000; i++) {
        struct quire_cache *one = make(16 + below(100), 0, 0);
        void *p = quire_cache_alloc(one);
        REQUIRE(p != NULL);
        quire_cache_free(one, p);
        end(one);
    }
}

/* slabinfo names the cache, and counts it. */
static void case_slabinfo(void)
{
    static char text[1 << 16];
    struct quire_cache *c = quire_cache_create("conn-table", 100, 0, 0, NULL);
    void *p[100];
    unsigned live = 0, all = 0, size = 0;

    REQUIRE(c != NULL && quire_cache_alloc_bulk(c, 100, p) == 1);
    REQUIRE(quire_procfs("slabinfo", 0, text, sizeof(text)) > 0);
    const char *line = strstr(text, "\nconn-table ");
    REQUIRE(line != NULL);
    CHECK(sscanf(line, " conn-table %u %u %u", &live, &all, &size) == 3);
    CHECK(live == 100 && all >= 100 && size == 104, "%u of %u, size %u", live, all, size);
    REQUIRE(quire_procfs("slabinfo", QUIRE_PROCFS_JSON, text, sizeof(text)) > 0);
    CHECK(strstr(text, "{\"name\":\"conn-table\",\"active_objs\":100,") != NULL);
    quire_cache_free_bulk(c, 100, p);
    end(c);
    REQUIRE(quire_procfs("slabinfo", 0, text, sizeof(text)) > 0);
    CHECK(strstr(text, "conn-table") == NULL);
}

/* Under a limit (QUIRE_CONF=limit:...): ENOMEM at the end of it, bulk gives all or nothing. */
static void case_limit(void)
{
    static void *p[100000];
    struct quire_cache *c = make(4096, 0, 0);
    size_t n = 0;

    if (!conform_has_option("limit:"))
        conform_skip("no limit is set");
    errno = 0;
    while (n < 100000 && (p[n] = quire_cache_alloc(c)) != NULL)
        n++;
    CHECK(n > 10000 && n < 20000 && errno == ENOMEM, "%zu objects, errno %d", n, errno);
    for (size_t i = 0; i < 100; i++)
        quire_cache_free(c, p[--n]);
    errno = 0;
    CHECK(quire_cache_alloc_bulk(c, 1000, p + n) == 0 && errno == ENOMEM && p[n] == NULL);
    CHECK(live_of(c) == n, "%zu live, not %zu", live_of(c), n);
    quire_cache_free_bulk(c, n, p);
    end(c);
}

static const struct conform_case cases[] = {
    {"memory comes back", case_memory_comes_back, 0},
    {"trim", case_trim, 0},
    {"leaks are named", case_leaks, 0},
    {"as many caches as there may be", case_many_caches, 0},
    {"slabinfo", case_slabinfo, 0},
    {"a limit ends in ENOMEM", case_limit, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
