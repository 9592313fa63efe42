/*
 * show.c - has known memory in use and prints every view, as text and as JSON, each after a line
 * with its name. For views.py. With an argument: only how quire_procfs() fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quire/page.h"
#include "quire/quire.h"

#define OBJECTS 5000
#define MAPPINGS 700 /* so many that the text outgrows its first room */

static void *objects[OBJECTS], *runs[40], *mappings[MAPPINGS];
static struct quire_page *pages[3000];

static void title(const char *name, const char *kind)
{
    char line[64];
    int n = snprintf(line, sizeof(line), "== %s %s\n", name, kind);

    if (write(1, line, (size_t)n) != n)
        exit(1);
}

static void fill(void)
{
    for (int i = 0; i < OBJECTS; i++)
        objects[i] = malloc(96);
    for (int i = 0; i < 40; i++)
        runs[i] = malloc(100000 + 10000 * (size_t)i);
    for (int i = 0; i < 40; i += 3)
        free(runs[i]);
    for (int i = 0; i < MAPPINGS; i++)
        mappings[i] = malloc((size_t)9 << 19);
    quire_alloc_pages_bulk(QUIRE_GFP_MOVABLE, 3000, pages);
    for (int i = 0; i < 3000; i += 2)
        quire_put_page(pages[i]);
}

static int expect(int right, const char *what)
{
    if (!right)
        fprintf(stderr, "%s: errno %d\n", what, errno);
    return !right;
}

static int failures(void)
{
    char small[8] = "xxxxxxx", exact[20000];
    ssize_t len = quire_procfs("slabinfo", 0, NULL, 0);
    int bad = 0, closed = open("/dev/null", O_RDONLY);

    bad += expect(len > 5000, "length alone");
    bad += expect(quire_procfs("slabinfo", 0, small, 5) == len, "length when cut");
    bad += expect(memcmp(small, "slab\0xx", 8) == 0, "cut, and nothing behind it");
    bad += expect(quire_procfs("slabinfo", 0, small, 1) == len && small[0] == '\0', "one byte");
    bad += expect((size_t)len < sizeof(exact) &&
                      quire_procfs("slabinfo", 0, exact, (size_t)len + 1) == len &&
                      strlen(exact) == (size_t)len && exact[len - 1] == '\n',
                  "exact room");
    errno = 0;
    bad += expect(quire_procfs("meminfo", 0, NULL, 0) == -1 && errno == ENOENT, "no such name");
    errno = 0;
    bad += expect(quire_procfs("", 0, NULL, 0) == -1 && errno == ENOENT, "empty name");
    errno = 0;
    bad += expect(quire_procfs(NULL, 0, NULL, 0) == -1 && errno == EINVAL, "no name");
    errno = 0;
    bad += expect(quire_procfs("slabinfo", 2, NULL, 0) == -1 && errno == EINVAL, "unknown flag");
    errno = 0;
    bad += expect(quire_procfs_print("slabinfo", 0, closed) == -1 && errno == EBADF, "read only");
    errno = 0;
    bad += expect(quire_procfs_print("buddyinfo", 0, -1) == -1 && errno == EBADF, "no file");
    bad += expect(quire_procfs_name(8) == NULL && quire_procfs_name(~0u) == NULL, "names end");
    return bad;
}

int main(int argc, char **argv)
{
    (void)argv;
    fill();
    if (argc > 1)
        return failures() != 0;
    for (unsigned i = 0; quire_procfs_name(i) != NULL; i++) {
        const char *name = quire_procfs_name(i);

        title(name, "text");
        if (quire_procfs_print(name, 0, 1) != 0)
            title(strerror(errno), "failed");
        title(name, "json");
        if (quire_procfs_print(name, QUIRE_PROCFS_JSON, 1) != 0)
            title(strerror(errno), "failed");
    }
    return 0;
}
