/*
 * firstseen - pass each line on the first time it comes; for streams without end.
 *
 *   tail -f log | QUIRE_CONF=limit:64M firstseen [-s]     -s: say what was forgotten
 *
 * What awk '!seen[$0]++' does until memory is used up. Here the lines seen are
 * a cache: before an allocation fails, quire asks the shrinker below, which
 * forgets those seen longest ago. So the program takes what it may take (the
 * option limit, or cgroup:auto in a container), never fails, and a line comes
 * twice only where it was forgotten.
 *
 *   table[hash] -> entry -> entry        oldest <-> ... <-> newest
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quire/shrinker.h>

#define BUCKETS (1u << 16)

struct entry {
    struct entry *next;          /* in the bucket */
    struct entry *older, *newer; /* by when it was last seen */
    size_t len;
    char text[];
};

static struct entry *table[BUCKETS], *oldest, *newest;
static size_t kept, forgotten;

static size_t bytes_of(const struct entry *e)
{
    return sizeof(*e) + e->len;
}

static struct entry **bucket_of(const char *text, size_t len)
{
    uint64_t h = len;

    for (size_t i = 0; i < len; i++)
        h = (h + (unsigned char)text[i]) * 0x9e3779b97f4a7c15u;
    return &table[h >> 48];
}

static void unlink_age(struct entry *e)
{
    *(e->older != NULL ? &e->older->newer : &oldest) = e->newer;
    *(e->newer != NULL ? &e->newer->older : &newest) = e->older;
}

static void link_newest(struct entry *e)
{
    e->older = newest;
    e->newer = NULL;
    *(newest != NULL ? &newest->newer : &oldest) = e;
    newest = e;
}

static void forget(struct entry *e)
{
    struct entry **link = bucket_of(e->text, e->len);

    while (*link != e)
        link = &(*link)->next;
    *link = e->next;
    unlink_age(e);
    kept -= bytes_of(e);
    forgotten++;
    free(e);
}

/* The program has one thread, and allocates only where its lists are whole: no lock is needed. */
static size_t count(void *arg)
{
    (void)arg;
    return kept;
}

static size_t scan(void *arg, size_t bytes)
{
    size_t before = kept;

    (void)arg;
    while (oldest != NULL && before - kept < bytes)
        forget(oldest);
    return before - kept;
}

/* True where the line was not seen, or was forgotten. */
static bool is_new(const char *text, size_t len)
{
    struct entry *e = *bucket_of(text, len);

    while (e != NULL && (e->len != len || memcmp(e->text, text, len) != 0))
        e = e->next;
    if (e != NULL) {
        unlink_age(e);
        link_newest(e);
        return false;
    }
    e = malloc(sizeof(*e) + len);
    if (e == NULL)
        return true; /* too long to be remembered at all */
    struct entry **bucket = bucket_of(text, len);
    e->len = len;
    memcpy(e->text, text, len);
    e->next = *bucket;
    *bucket = e;
    link_newest(e);
    kept += bytes_of(e);
    return true;
}

int main(int argc, char **argv)
{
    bool say = argc == 2 && strcmp(argv[1], "-s") == 0;
    char *line = NULL;
    size_t room = 0;
    ssize_t len;

    if (argc > 1 && !say)
        return 2;
    if (quire_shrinker_register("lines seen", count, scan, NULL) == NULL)
        return 1;
    while ((len = getline(&line, &room, stdin)) > 0)
        if (is_new(line, (size_t)len))
            fwrite(line, 1, (size_t)len, stdout);
    if (say)
        fprintf(stderr, "%zu lines forgotten, %zu bytes kept\n", forgotten, kept);
    free(line);
    return fflush(stdout) != 0;
}
