/*
 * rollback.c - fuzz a stateful program: every input starts from the same, costly state.
 *
 *   rollback [RUNS]
 *
 * The target is a small store of counters by name, with commands SET, ADD, COPY, DEL and RENAME. Its
 * state takes a while to build (10000 names). Each input is a few random commands, which allocate,
 * free and leak as they like; afterwards one call undoes all of it. The store has a bug: after some
 * sequences its count of names is wrong. Inputs that show it are kept, made as short as possible
 * by leaving commands out, and shown, once each.
 *
 * Everything that must outlive going back is static or on the stack; stdout gets its buffer first.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "quire/snapshot.h"

enum { NAMES = 10000, BUCKETS = 1 << 12, COMMANDS = 8 };

/* --- the target: all of its state is on the heap --------------------------------------------- */

struct entry {
    struct entry *next;
    long value;
    char name[];
};

struct store {
    size_t count;
    struct entry *bucket[BUCKETS];
};

static struct entry **find(struct store *st, const char *name)
{
    size_t h = 5381;

    for (const char *c = name; *c != '\0'; c++)
        h = h * 33 + (unsigned char)*c;
    struct entry **e = &st->bucket[h % BUCKETS];
    while (*e != NULL && strcmp((*e)->name, name) != 0)
        e = &(*e)->next;
    return e;
}

static void set(struct store *st, const char *name, long value)
{
    struct entry **e = find(st, name);

    if (*e == NULL) {
        *e = calloc(1, sizeof(**e) + strlen(name) + 1);
        if (*e == NULL)
            exit(1);
        strcpy((*e)->name, name);
        st->count++;
    }
    (*e)->value = value;
}

static void del(struct store *st, const char *name)
{
    struct entry **e = find(st, name), *gone = *e;

    if (gone == NULL)
        return;
    *e = gone->next;
    free(gone);
    st->count--;
}

static void rename_to(struct store *st, const char *from, const char *to)
{
    struct entry *e = *find(st, from);

    if (e == NULL)
        return;
    long value = e->value;
    if (*find(st, to) != NULL)
        st->count--; /* the bug: del() below counts the name that is gone already */
    set(st, to, value);
    del(st, from);
}

/* What the count should be. */
static size_t recount(const struct store *st)
{
    size_t n = 0;

    for (size_t i = 0; i < BUCKETS; i++)
        for (const struct entry *e = st->bucket[i]; e != NULL; e = e->next)
            n++;
    return n;
}

/* --- inputs ---------------------------------------------------------------------------------- */

struct command {
    unsigned what, a, b;
};

struct input {
    unsigned nr;
    struct command c[COMMANDS];
};

static const char *const verbs[] = {"SET", "ADD", "COPY", "DEL", "RENAME"};

static void run(struct store *st, const struct input *in)
{
    for (unsigned i = 0; i < in->nr; i++) {
        char a[32], b[32];

        snprintf(a, sizeof(a), "name%u", in->c[i].a);
        snprintf(b, sizeof(b), "name%u", in->c[i].b);
        struct entry *e = *find(st, a);
        switch (in->c[i].what) {
        case 0:
            set(st, a, (long)in->c[i].b);
            break;
        case 1:
            set(st, a, (e != NULL ? e->value : 0) + 1);
            break;
        case 2:
            set(st, b, e != NULL ? e->value : 0);
            break;
        case 3:
            del(st, a);
            break;
        default:
            rename_to(st, a, b);
        }
    }
}

static uint64_t rng = 88172645463325252u;

static unsigned below(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)(rng >> 33) % n;
}

static void make(struct input *in)
{
    in->nr = 1 + below(COMMANDS);
    for (unsigned i = 0; i < in->nr; i++)
        in->c[i] = (struct command){below(5), below(2 * NAMES), below(20 * NAMES)};
}

/* Run it, look at what it did, undo it. */
static bool breaks(struct store *st, quire_snapshot_t *start, const struct input *in)
{
    run(st, in);
    bool broken = recount(st) != st->count;
    if (quire_snapshot_restore(start) != 0) {
        fprintf(stderr, "rollback: cannot go back: %s\n", strerror(errno));
        exit(1);
    }
    return broken;
}

static void shorten(struct store *st, quire_snapshot_t *start, struct input *in)
{
    for (unsigned i = 0; i < in->nr;) {
        struct input less = {.nr = in->nr - 1};

        memcpy(less.c, in->c, i * sizeof(less.c[0]));
        memcpy(less.c + i, in->c + i + 1, (less.nr - i) * sizeof(less.c[0]));
        if (breaks(st, start, &less))
            *in = less;
        else
            i++;
    }
}

static void show(const struct input *in)
{
    printf("breaks the count:");
    for (unsigned i = 0; i < in->nr; i++)
        printf(" %s name%u name%u;", verbs[in->c[i].what], in->c[i].a, in->c[i].b);
    printf("\n");
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char **argv)
{
    static char out[1 << 12];
    unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 20000, found = 0;
    struct store *st = calloc(1, sizeof(*st));
    char name[32];

    setvbuf(stdout, out, _IOLBF, sizeof(out));
    if (st == NULL)
        return 1;
    for (unsigned i = 0; i < NAMES; i++) {
        snprintf(name, sizeof(name), "name%u", i);
        set(st, name, (long)i);
    }
    quire_snapshot_t *start = quire_snapshot_take(NULL, QUIRE_SNAPSHOT_ROLLBACK);
    if (start == NULL) {
        fprintf(stderr, "rollback: no snapshot to go back to: %s\n", strerror(errno));
        return errno == ENOTSUP ? 77 : 1;
    }
    double t = now();
    for (unsigned long i = 0; i < runs; i++) {
        struct input in;

        make(&in);
        if (!breaks(st, start, &in))
            continue;
        shorten(st, start, &in);
        if (found++ < 3)
            show(&in);
    }
    t = now() - t;
    bool intact = st->count == NAMES && recount(st) == NAMES;
    printf("%lu runs, %.0f a second; %lu break it; the store is %s\n", runs, (double)runs / t,
           found, intact ? "as it was" : "CHANGED");
    quire_snapshot_release(start);
    return intact ? 0 : 1;
}
