/*
 * map.c - images mapped back as memory in another process, and increments.
 *
 * The cases start this program anew: `map --build FILE` makes a heap and saves it, `map --check FILE`
 * maps it back and looks at every byte. Address space is laid out at random, so a start may find
 * the addresses in use (EEXIST); it is made again then.
 */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "steps.h"

#define NR 20000u
#define TAKEN 42 /* exit status: the addresses are in use */
#define STARTS 40

struct item {
    struct item *next;
    size_t size; /* bytes of data */
    unsigned seed;
    char *data;
};

struct world {
    char word[8];
    struct item *items;
    unsigned nr;
    char *zeroes;
    size_t nr_zeroes;
};

static size_t size_of(unsigned i)
{
    if (i % 5000 == 77)
        return (9u << 20) + i; /* a mapping */
    if (i % 500 == 3)
        return 70000 + i; /* a run of pages */
    return 1 + i * 37 % 3000;
}

static void add_item(struct world *w, unsigned seed)
{
    struct item *item = malloc(sizeof(*item));

    *item = (struct item){.next = w->items, .size = size_of(seed), .seed = seed};
    item->data = malloc(item->size);
    REQUIRE(item->data != NULL);
    conform_fill(item->data, item->size, seed);
    w->items = item;
    w->nr++;
}

static struct world *new_world(void)
{
    struct world *w = calloc(1, sizeof(*w));

    memcpy(w->word, "a world", 8);
    for (unsigned i = 0; i < NR; i++)
        add_item(w, i);
    w->nr_zeroes = 20u << 20;
    w->zeroes = calloc(1, w->nr_zeroes);
    w->zeroes[12345678] = 1;
    return w;
}

static void check_world(const struct world *w, unsigned nr)
{
    unsigned bad = 0, seen = 0;

    REQUIRE(w != NULL && memcmp(w->word, "a world", 8) == 0);
    for (const struct item *item = w->items; item != NULL; item = item->next, seen++) {
        bad += !conform_intact(item->data, item->size, item->seed);
        bad += malloc_usable_size(item->data) < item->size || !quire_owns(item);
        bad += malloc_usable_size((void *)item) != (sizeof(*item) + 15) / 16 * 16;
    }
    CHECK(bad == 0 && seen == nr && w->nr == nr, "%u items of %u are wrong, %u wanted", bad, seen,
          nr);
    CHECK(w->zeroes[12345678] == 1 && w->zeroes[12345677] == 0 && w->zeroes[19u << 20] == 0);
}

static void save_to(const char *path, quire_snapshot_t *s, quire_snapshot_t *since)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

    REQUIRE(fd >= 0);
    int ret = since != NULL ? quire_snapshot_save_since(s, since, fd, NULL, NULL)
                            : quire_snapshot_save(s, fd, NULL, NULL);
    REQUIRE(ret == 0, "errno %d", errno);
    close(fd);
}

static quire_snapshot_t *load_from(const char *path, quire_snapshot_t *base)
{
    int fd = open(path, O_RDONLY);

    REQUIRE(fd >= 0);
    quire_snapshot_t *s =
        base != NULL ? quire_snapshot_load_onto(base, fd) : quire_snapshot_load(fd);
    REQUIRE(s != NULL, "errno %d", errno);
    close(fd);
    return s;
}

static quire_snapshot_t *take_world(const struct world *w, unsigned flags)
{
    quire_snapshot_t *s = take(flags | QUIRE_SNAPSHOT_SIZES);

    CHECK(quire_snapshot_set_root(s, w) == 0 && quire_snapshot_root(s) == w);
    return s;
}

static void build(const char *path)
{
    quire_snapshot_t *s = take_world(new_world(), 0);

    save_to(path, s, NULL);
    CHECK(quire_snapshot_release(s) == 0);
}

static size_t count_maps(void)
{
    FILE *f = fopen("/proc/self/maps", "r");
    size_t nr = 0;

    for (int c; f != NULL && (c = getc(f)) != EOF;)
        nr += c == '\n';
    if (f != NULL)
        fclose(f);
    return nr;
}

/* Load, map and hand over; ends the process where the addresses are in use. */
static struct world *map_back(quire_snapshot_t *s)
{
    if (quire_snapshot_map(s) != 0) {
        if (errno == EEXIST)
            _exit(TAKEN);
        REQUIRE(false, "errno %d", errno);
    }
    return quire_snapshot_root(s);
}

/* Everything a program does with blocks of its own. */
static void use_world(struct world *w)
{
    unsigned bad = 0, k = 0;

    for (struct item *item = w->items; item != NULL; item = item->next, k++) {
        char *before = item->data;
        size_t grown = item->size + 1 + item->size / 2;

        if (k % 3 == 0) {
            item->data = realloc(item->data, grown);
            bad += item->data == NULL || !conform_intact(item->data, item->size, item->seed);
            item->size = item->data != before ? grown : item->size;
            conform_fill(item->data, item->size, item->seed);
        } else if (k % 3 == 1) {
            free(item->data);
            item->size = size_of(item->seed) / 2 + 1;
            item->data = malloc(item->size);
            conform_fill(item->data, item->size, item->seed);
        }
    }
    CHECK(bad == 0, "%u blocks lost their content", bad);
    for (unsigned i = 0; i < 1000; i++) {
        struct item *gone = w->items;

        w->items = gone->next;
        w->nr--;
        free(gone->data);
        free(gone);
    }
}

/* Map, use, save again to FILE.2; FILE.2 is mapped by a third process. */
static void check(const char *path, const char *again)
{
    size_t maps = count_maps();
    quire_snapshot_t *s = load_from(path, NULL);
    struct world *w = map_back(s);

    CHECK(quire_snapshot_release(s) == 0);
    CHECK(count_maps() < maps + 200, "%zu mappings, %zu before", count_maps(), maps);
    check_world(w, NR);
    use_world(w);
    check_world(w, NR - 1000);
    s = take_world(w, 0);
    for (struct item *item = w->items; item != NULL; item = item->next)
        memset(item->data, 1, item->size);
    save_to(again, s, NULL);
    CHECK(quire_snapshot_release(s) == 0);
}

static void check_again(const char *path)
{
    struct world *w = map_back(load_from(path, NULL));

    check_world(w, NR - 1000);
    use_world(w);
    check_world(w, NR - 2000);
}

static void check_chain(const char *a, const char *b, const char *c)
{
    quire_snapshot_t *s = load_from(c, load_from(b, load_from(a, NULL)));

    CHECK(quire_snapshot_verify(s) == 0);
    struct world *w = map_back(s);
    check_world(w, NR + 4000);
    use_world(w);
    check_world(w, NR + 3000);
}

/* This program once more, until it finds the addresses free. */
static void start(const char *what, const char *a, const char *b, const char *c)
{
    int status = TAKEN << 8;

    for (int i = 0; i < STARTS && WIFEXITED(status) && WEXITSTATUS(status) == TAKEN; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            execl("/proc/self/exe", "map", what, a, b, c, NULL);
            _exit(127);
        }
        REQUIRE(waitpid(pid, &status, 0) == pid);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s ended with status %x", what, status);
}

static char folder[] = "/tmp/quire-map-XXXXXX";

static const char *in_folder(const char *name)
{
    char *path = malloc(200);

    snprintf(path, 200, "%s/%s", folder, name);
    return path;
}

static void enter_folder(void)
{
    REQUIRE(mkdtemp(folder) != NULL);
}

static void leave_folder(void)
{
    static const char *const names[] = {"a", "b", "c"};

    for (unsigned i = 0; i < COUNT_OF(names); i++)
        unlink(in_folder(names[i]));
    CHECK(rmdir(folder) == 0);
}

static void map_and_resume(void)
{
    enter_folder();
    start("--build", in_folder("a"), NULL, NULL);
    start("--check", in_folder("a"), in_folder("b"), NULL);
    start("--again", in_folder("b"), NULL, NULL);
    leave_folder();
}

/* In memory: then snapshots of what was mapped can be made by protection, too. */
static void map_in_memory(void)
{
    char a[40], b[40];

    snprintf(a, sizeof(a), "/proc/self/fd/%d", memfd_create("a", 0));
    snprintf(b, sizeof(b), "/proc/self/fd/%d", memfd_create("b", 0));
    start("--build", a, NULL, NULL);
    start("--check", a, b, NULL);
    start("--again", b, NULL, NULL);
}

static void change_world(struct world *w, unsigned round)
{
    unsigned i = 0;

    for (struct item *item = w->items; item != NULL; item = item->next, i++)
        if (i % 1000 == round) {
            free(item->data);
            item->seed += 100000;
            item->size = size_of(item->seed);
            item->data = malloc(item->size);
            conform_fill(item->data, item->size, item->seed);
        }
    for (i = 0; i < 2000; i++)
        add_item(w, NR * round + i);
}

/* Byte by byte: what two snapshots show. */
static void same_content(quire_snapshot_t *a, quire_snapshot_t *b)
{
    struct quire_snapshot_range r, q;
    size_t bad = 0, step = 1u << 20;
    char *x = outside(step), *y = outside(step);

    for (size_t i = 0; quire_snapshot_range(a, i, &r) == 0; i++) {
        REQUIRE(quire_snapshot_range(b, i, &q) == 0 && q.start == r.start && q.size == r.size);
        for (size_t at = 0; at < r.size; at += step) {
            size_t n = r.size - at < step ? r.size - at : step;

            REQUIRE(quire_snapshot_read(a, (char *)r.start + at, x, n) == (ssize_t)n);
            REQUIRE(quire_snapshot_read(b, (char *)r.start + at, y, n) == (ssize_t)n);
            bad += memcmp(x, y, n) != 0;
        }
    }
    CHECK(bad == 0, "%zu pieces differ", bad);
    munmap(x, step);
    munmap(y, step);
}

static off_t length(const char *path)
{
    int fd = open(path, O_RDONLY);
    off_t n = lseek(fd, 0, SEEK_END);

    close(fd);
    return n;
}

static void chain_of(unsigned flags)
{
    enter_folder();
    const char *a = in_folder("a"), *b = in_folder("b"), *c = in_folder("c");
    struct world *w = new_world();

    quire_snapshot_t *s1 = take_world(w, flags), *s2, *s3;
    save_to(a, s1, NULL);
    change_world(w, 1);
    free(w->zeroes); /* what comes in its place later is new */
    s2 = take_world(w, flags);
    save_to(b, s2, s1);
    w->zeroes = calloc(1, w->nr_zeroes);
    w->zeroes[12345678] = 1;
    change_world(w, 2);
    s3 = take_world(w, flags);
    change_world(w, 3);
    save_to(c, s3, s2);
    CHECK(length(b) < length(a) / 2, "%lld of %lld bytes", (long long)length(b),
          (long long)length(a));
    quire_snapshot_t *la = load_from(a, NULL), *lb = load_from(b, la), *lc = load_from(c, lb);
    CHECK(quire_snapshot_root(lc) == w);
    same_content(s1, la);
    same_content(s2, lb);
    same_content(s3, lc);
    CHECK(quire_snapshot_release(la) == -1 && errno == EBUSY);
    CHECK(quire_snapshot_release(lc) == 0 && quire_snapshot_release(lb) == 0);
    CHECK(quire_snapshot_release(la) == 0);
    CHECK(quire_snapshot_release(s2) == 0 && quire_snapshot_release(s1) == 0);
    CHECK(quire_snapshot_release(s3) == 0);
    start("--chain", a, b, c);
    leave_folder();
}

static void chain(void)
{
    chain_of(0);
}

static void chain_by_holder(void)
{
    chain_of(QUIRE_SNAPSHOT_HOLDER);
}

static void refusals(void)
{
    int whole = memfd_create("whole", 0), more = memfd_create("more", 0);
    int other = memfd_create("other", 0), plain = memfd_create("plain", 0);
    char *p = malloc(100000);

    conform_fill(p, 100000, 1);
    quire_snapshot_t *s1 = take(QUIRE_SNAPSHOT_SIZES), *s2, *s3;
    p[5000] ^= 1;
    s2 = take(QUIRE_SNAPSHOT_SIZES);
    CHECK(quire_snapshot_save_since(s2, s1, more, NULL, NULL) == -1 && errno == EINVAL);
    CHECK(quire_snapshot_save(s1, whole, NULL, NULL) == 0);
    CHECK(quire_snapshot_save_since(s2, s1, more, NULL, NULL) == 0);
    CHECK(quire_snapshot_save_since(s1, s1, other, NULL, NULL) == -1 && errno == EINVAL);
    s3 = take(0);
    CHECK(quire_snapshot_save(s3, plain, NULL, NULL) == 0);
    CHECK(quire_snapshot_save(s2, other, NULL, NULL) == 0);
    for (int i = 0; i < 4; i++)
        lseek((int[]){whole, more, other, plain}[i], 0, SEEK_SET);
    quire_snapshot_t *base = quire_snapshot_load(whole), *foreign = quire_snapshot_load(other);
    quire_snapshot_t *unsized = quire_snapshot_load(plain);
    REQUIRE(base != NULL && foreign != NULL && unsized != NULL);
    errno = 0;
    CHECK(quire_snapshot_load(more) == NULL && errno == ENODATA, "errno %d", errno);
    lseek(more, 0, SEEK_SET);
    CHECK(quire_snapshot_load_onto(foreign, more) == NULL && errno == EXDEV, "errno %d", errno);
    lseek(more, 0, SEEK_SET);
    CHECK(quire_snapshot_load_onto(s1, more) == NULL && errno == EINVAL);
    lseek(whole, 0, SEEK_SET);
    CHECK(quire_snapshot_load_onto(base, whole) == NULL && errno == EINVAL);
    CHECK(quire_snapshot_map(base) == -1 && errno == EEXIST, "errno %d", errno);
    CHECK(quire_snapshot_map(unsized) == -1 && errno == ENOTSUP);
    CHECK(quire_snapshot_map(s1) == -1 && errno == EINVAL);
    p[5000] ^= 1;
    CHECK(conform_intact(p, 100000, 1), "the heap is as it was");
    quire_snapshot_t *all[] = {s1, s2, s3, base, foreign, unsized};
    for (unsigned i = 0; i < COUNT_OF(all); i++)
        CHECK(quire_snapshot_release(all[i]) == 0);
}

static const struct conform_case cases[] = {
    {"map and resume", map_and_resume, 120},
    {"map in memory", map_in_memory, 120},
    {"chain", chain, 120},
    {"chain, by a holder process", chain_by_holder, 120},
    {"refusals", refusals, 30},
};

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[1] : "";

    if (strncmp(what, "--", 2) != 0)
        return conform_run(cases, COUNT_OF(cases), argc, argv);
    if (strcmp(what, "--build") == 0)
        build(argv[2]);
    else if (strcmp(what, "--check") == 0 && argc > 3)
        check(argv[2], argv[3]);
    else if (strcmp(what, "--again") == 0)
        check_again(argv[2]);
    else if (strcmp(what, "--chain") == 0 && argc > 4)
        check_chain(argv[2], argv[3], argv[4]);
    conform_end();
}
