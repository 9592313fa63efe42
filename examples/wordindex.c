/*
 * wordindex.c - an index of the words of a text that is built once and mapped back ever after.
 *
 *   wordindex IMAGE TEXT WORD...     in which lines of TEXT are these words?
 *
 * The first run reads TEXT, which takes seconds for a large one, and saves its heap as IMAGE. Later
 * runs map IMAGE back: a table with millions of entries is there at once, a page at a time as it is
 * looked at. Where TEXT has grown, only its new lines are read, and an increment is put beside the
 * image (IMAGE.1, IMAGE.2, ...). An image of another text, of an earlier version of this program, or
 * a damaged one is not used.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "quire/snapshot.h"

#define LAYOUT 1u       /* of the structures below: changes with them */
#define STARTS 20       /* tries to find the image's addresses free */
#define INCREMENTS 1000 /* of an image, at most */

struct entry {
    char *word; /* NULL: free */
    unsigned *line;
    unsigned nr, room;
};

/* The root: all else is found from here. */
struct index {
    unsigned layout;
    unsigned lines;
    size_t text_bytes;
    size_t nr, room; /* entries; room is a power of two */
    struct entry *table;
};

static void die(const char *what)
{
    fprintf(stderr, "wordindex: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *must(void *p)
{
    if (p == NULL)
        die("memory");
    return p;
}

/* --- the index -------------------------------------------------------------------------------- */

static size_t hash(const char *word)
{
    uint64_t h = 14695981039346656037u;

    for (; *word != '\0'; word++)
        h = (h ^ (unsigned char)*word) * 1099511628211u;
    return h ^ h >> 32;
}

static struct entry *find(struct entry *table, size_t room, const char *word)
{
    size_t at = hash(word) & (room - 1);

    while (table[at].word != NULL && strcmp(table[at].word, word) != 0)
        at = (at + 1) & (room - 1);
    return &table[at];
}

static void grow(struct index *x)
{
    size_t room = x->room > 0 ? 2 * x->room : 1024;
    struct entry *table = must(calloc(room, sizeof(*table)));

    for (size_t i = 0; i < x->room; i++)
        if (x->table[i].word != NULL)
            *find(table, room, x->table[i].word) = x->table[i];
    free(x->table);
    x->table = table;
    x->room = room;
}

static void add(struct index *x, const char *word, unsigned line)
{
    if (2 * x->nr >= x->room)
        grow(x);
    struct entry *e = find(x->table, x->room, word);
    if (e->word == NULL) {
        e->word = must(strdup(word));
        x->nr++;
    }
    if (e->nr > 0 && e->line[e->nr - 1] == line)
        return;
    if (e->nr == e->room) {
        e->room = e->room > 0 ? 2 * e->room : 2;
        e->line = must(realloc(e->line, e->room * sizeof(*e->line)));
    }
    e->line[e->nr++] = line;
}

/* Whole lines only: an unfinished last one comes with the next run. */
static void read_text(struct index *x, FILE *text)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t len;

    fseek(text, (long)x->text_bytes, SEEK_SET);
    while ((len = getline(&line, &room, text)) > 0 && line[len - 1] == '\n') {
        x->lines++;
        x->text_bytes += (size_t)len;
        for (char *at = line; *at != '\0';) {
            char *word = at;

            while (isalnum((unsigned char)*at)) {
                *at = (char)tolower((unsigned char)*at);
                at++;
            }
            if (at > word) {
                char after = *at;

                *at = '\0';
                add(x, word, x->lines);
                *at = after;
            }
            if (*at != '\0')
                at++;
        }
    }
    free(line);
}

/* --- the image -------------------------------------------------------------------------------- */

static void name_of(char *path, size_t size, const char *image, unsigned nr)
{
    if (nr == 0)
        snprintf(path, size, "%s", image);
    else
        snprintf(path, size, "%s.%u", image, nr);
}

/* The image with all its increments; NULL where there is none, or none that is good. */
static quire_snapshot_t *load(const char *image, unsigned *nr)
{
    quire_snapshot_t *s = NULL, *next;
    char path[4096];

    for (*nr = 0; *nr < INCREMENTS; ++*nr) {
        name_of(path, sizeof(path), image, *nr);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            break;
        next = s == NULL ? quire_snapshot_load(fd) : quire_snapshot_load_onto(s, fd);
        close(fd);
        if (next == NULL) {
            fprintf(stderr, "wordindex: %s is not used: %s\n", path, strerror(errno));
            break;
        }
        s = next;
    }
    return s;
}

/* The addresses may be in use in this process, but hardly in the next. */
static void start_again(char **argv)
{
    const char *before = getenv("WORDINDEX_STARTS");
    char starts[16];

    snprintf(starts, sizeof(starts), "%d", before != NULL ? atoi(before) + 1 : 1);
    if (atoi(starts) >= STARTS)
        return;
    setenv("WORDINDEX_STARTS", starts, 1);
    execv("/proc/self/exe", argv);
}

static struct index *map_back(quire_snapshot_t *s, size_t text_bytes, char **argv)
{
    if (quire_snapshot_map(s) != 0) {
        if (errno == EEXIST)
            start_again(argv);
        fprintf(stderr, "wordindex: the image is not used: %s\n", strerror(errno));
        return NULL;
    }
    struct index *x = quire_snapshot_root(s);
    return x != NULL && x->layout == LAYOUT && x->text_bytes <= text_bytes ? x : NULL;
}

/* The whole where `older` is NULL. Under another name first: a crash leaves no half image. */
static void save(struct index *x, const char *image, quire_snapshot_t *older, unsigned nr)
{
    char path[4096], part[4200];
    quire_snapshot_t *s = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_SIZES);

    if (s == NULL)
        die("quire_snapshot_take");
    name_of(path, sizeof(path), image, nr);
    snprintf(part, sizeof(part), "%s.part", path);
    int fd = open(part, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    quire_snapshot_set_root(s, x);
    if (fd < 0 || (older != NULL ? quire_snapshot_save_since(s, older, fd, NULL, NULL)
                                 : quire_snapshot_save(s, fd, NULL, NULL)) != 0)
        die(part);
    if (close(fd) != 0 || rename(part, path) != 0)
        die(path);
    quire_snapshot_release(s);
}

/* Increments of an image that is being replaced belong to no other. */
static void forget_increments(const char *image)
{
    char path[4096];

    for (unsigned nr = 1; nr < INCREMENTS; nr++) {
        name_of(path, sizeof(path), image, nr);
        if (unlink(path) != 0)
            return;
    }
}

static void answer(struct index *x, const char *word)
{
    const struct entry *e = find(x->table, x->room, word);

    printf("%s: %u lines", word, e->word != NULL ? e->nr : 0);
    for (unsigned i = 0; e->word != NULL && i < e->nr && i < 10; i++)
        printf(" %u", e->line[i]);
    printf("\n");
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    double start = now_ms();
    unsigned nr = 0;

    if (argc < 3) {
        fprintf(stderr, "usage: wordindex IMAGE TEXT WORD...\n");
        return 2;
    }
    FILE *text = fopen(argv[2], "r");
    if (text == NULL)
        die(argv[2]);
    fseek(text, 0, SEEK_END);
    quire_snapshot_t *older = load(argv[1], &nr);
    struct index *x = older != NULL ? map_back(older, (size_t)ftell(text), argv) : NULL;
    bool resumed = x != NULL;
    if (!resumed) {
        x = must(calloc(1, sizeof(*x)));
        x->layout = LAYOUT;
        grow(x);
    }
    size_t had = x->text_bytes;
    read_text(x, text);
    fprintf(stderr, "wordindex: %s: %zu words of %u lines, %zu bytes read, %.1f ms\n",
            resumed ? "resumed" : "built", x->nr, x->lines, x->text_bytes - had, now_ms() - start);
    if (!resumed)
        forget_increments(argv[1]);
    if (!resumed || x->text_bytes > had)
        save(x, argv[1], resumed ? older : NULL, resumed ? nr : 0);
    for (int i = 3; i < argc; i++)
        answer(x, argv[i]);
    return 0;
}
