/*
 * holes.c - a few objects that stay among many that are freed: the pages between them are given
 * back (slab/holes.h), and nothing else changes by it.
 *
 * `malloc_trim` does at once what otherwise takes a while, so most cases call it.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "conform.h"
#include "wrong.h"

enum { MIB = 1 << 20, HELD = 6 * MIB, TWICE = 2000 };

struct crowd {
    size_t size, nr;
    char **at;           /* NULL: freed */
    size_t before, full; /* bytes resident without and with them */
};

static void make(struct crowd *c, size_t size)
{
    c->size = size;
    c->nr = HELD / size;
    c->at = calloc(c->nr, sizeof(*c->at));
    REQUIRE(c->at != NULL);
    memset(c->at, 0xff, c->nr * sizeof(*c->at));
    c->before = conform_anonymous();
    for (size_t i = 0; i < c->nr; i++) {
        c->at[i] = malloc(size);
        REQUIRE(c->at[i] != NULL);
        conform_fill(c->at[i], size, (unsigned int)i);
    }
    c->full = conform_anonymous();
}

static void drop(struct crowd *c, size_t i)
{
    CHECK(conform_intact(c->at[i], c->size, (unsigned int)i), "block %zu of size %zu", i, c->size);
    free(c->at[i]);
    c->at[i] = NULL;
}

/* Neighbours go, some 20 KB at a time, and a fifth of what lies between: slabs and pages stay in part. */
static void thin_out(struct crowd *c, uint64_t seed)
{
    size_t stretch = 20480 / c->size + 1;

    for (size_t i = 0; i < c->nr; i++)
        if (c->at[i] != NULL && (i / stretch % 5 != 0 || conform_random(&seed) % 5 == 0))
            drop(c, i);
}

static void fill_up(struct crowd *c)
{
    for (size_t i = 0; i < c->nr; i++) {
        if (c->at[i] != NULL)
            continue;
        c->at[i] = malloc(c->size);
        REQUIRE(c->at[i] != NULL);
        conform_fill(c->at[i], c->size, (unsigned int)i);
    }
}

static void check(const struct crowd *c)
{
    for (size_t i = 0; i < c->nr; i++)
        if (c->at[i] != NULL)
            CHECK(conform_intact(c->at[i], c->size, (unsigned int)i), "block %zu of size %zu", i,
                  c->size);
}

static void drop_all(struct crowd *c)
{
    for (size_t i = 0; i < c->nr; i++)
        if (c->at[i] != NULL)
            drop(c, i);
    free(c->at);
}

static const size_t sizes[] = {16, 48, 100, 512, 1000, 2048, 3000, 5000, 9000, 20000, 32000};

/* All but one part in so many has gone. */
static bool gone(const struct crowd *c, size_t part)
{
    return conform_anonymous() < c->before + (c->full - c->before) / part;
}

static void must_be_gone(const struct crowd *c, size_t part)
{
    CHECK(gone(c, part), "size %zu: %zu, full %zu, now %zu", c->size, c->before, c->full,
          conform_anonymous());
}

static void case_trim(void)
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct crowd c;

        make(&c, sizes[i]);
        thin_out(&c, i);
        malloc_trim(0);
        /* Less than a fifth is live; what else stays is on pages with something live. */
        must_be_gone(&c, 2);
        check(&c);
        drop_all(&c);
    }
}

/* Without being asked, while the program does something else. */
static void case_by_itself(void)
{
    struct crowd c;

    make(&c, TWICE);
    thin_out(&c, 1);
    for (int i = 0; i < 20000 && !gone(&c, 2); i++) {
        void *p[64];

        for (size_t k = 0; k < COUNT_OF(p); k++)
            p[k] = malloc(16 + 24 * k);
        for (size_t k = 0; k < COUNT_OF(p); k++)
            free(p[k]);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    must_be_gone(&c, 2);
    check(&c);
    drop_all(&c);
}

/* What was given back is used again, by the same sizes, over and over. */
static void case_filled_again(void)
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct crowd c;
        size_t full = 0;

        make(&c, sizes[i]);
        for (unsigned int round = 0; round < 4; round++) {
            thin_out(&c, round);
            malloc_trim(0);
            if (round % 2 == 0) { /* and again, with holes there already */
                thin_out(&c, round + 100);
                malloc_trim(0);
            }
            fill_up(&c);
            check(&c);
            if (round == 0)
                full = conform_anonymous();
        }
        CHECK(conform_anonymous() < full + full / 8, "size %zu: grown from %zu to %zu", sizes[i],
              full, conform_anonymous());
        drop_all(&c);
    }
}

static void *drop_by_another(void *arg)
{
    struct crowd *c = arg;

    for (size_t i = 0; i < c->nr; i++)
        if (c->at[i] != NULL)
            drop(c, i);
    return NULL;
}

/* The last objects of slabs with holes are freed by a thread that does not own them: all goes. */
static void case_others_free(void)
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct crowd c;
        pthread_t thread;

        make(&c, sizes[i]);
        thin_out(&c, i);
        malloc_trim(0);
        REQUIRE(pthread_create(&thread, NULL, drop_by_another, &c) == 0);
        pthread_join(thread, NULL);
        malloc_trim(0);
        must_be_gone(&c, 16);
        free(c.at);
    }
}

static void *make_and_leave(void *arg)
{
    struct crowd *c = arg;

    make(c, c->size);
    thin_out(c, 3);
    malloc_trim(0);
    return NULL;
}

/* The thread that made them is gone; another one's takes them over, uses them, and they end. */
static void case_left_behind(void)
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct crowd c = {.size = sizes[i]};
        pthread_t thread;

        REQUIRE(pthread_create(&thread, NULL, make_and_leave, &c) == 0);
        pthread_join(thread, NULL);
        check(&c);
        fill_up(&c);
        check(&c);
        thin_out(&c, 4);
        malloc_trim(0);
        check(&c);
        drop_by_another(&c);
        malloc_trim(0);
        must_be_gone(&c, 16);
        free(c.at);
    }
}

static void case_forked(void)
{
    struct crowd c;

    make(&c, 1000);
    thin_out(&c, 5);
    malloc_trim(0);
    for (int i = 0; i < 4; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            check(&c);
            fill_up(&c);
            malloc_trim(0);
            drop_all(&c);
            conform_end();
        }
        CHECK(conform_child_ok(pid, "the child"));
        check(&c);
        thin_out(&c, 6);
    }
    fill_up(&c);
    drop_all(&c);
}

/* --- wrong use of what lies in a hole -------------------------------------------------------- */

static struct crowd watched;
static char *absent;

static bool unharmed(void)
{
    check(&watched);
    return true;
}

static void free_it(void)
{
    free(absent);
}

static void free_inside(void)
{
    free(absent + 16);
}

static void resize_it(void)
{
    free(realloc(absent, 4000));
}

static void *free_elsewhere(void *arg)
{
    free(arg);
    return NULL;
}

static void others_free_it(void)
{
    pthread_t thread;

    pthread_create(&thread, NULL, free_elsewhere, absent);
    pthread_join(thread, NULL);
}

static void ask_for_its_size(void)
{
    CHECK(malloc_usable_size(absent) == 0);
}

static void case_wrong(void)
{
    const struct wrong wrongs[] = {
        {"free", "free", "already free", free_it},
        {"free by another thread", "free", "already free", others_free_it},
        {"free inside", "free", "inside a free object", free_inside},
        {"realloc", "realloc", "already free", resize_it},
        {"malloc_usable_size", "malloc_usable_size", "already free", ask_for_its_size},
    };
    char *first[TWICE];

    for (size_t i = 0; i < COUNT_OF(first); i++)
        first[i] = malloc(1000);
    make(&watched, 1000);
    /* Of each slab nearly all goes. */
    for (size_t i = 0; i < COUNT_OF(first); i++)
        if (i % 61 != 0)
            free(first[i]);
    malloc_trim(0);
    for (size_t k = 500; k < 530; k++) {
        absent = first[k];
        if (k % 61 != 0)
            wrongs_are_named(wrongs, COUNT_OF(wrongs), unharmed);
    }
    drop_all(&watched);
}

static const struct conform_case cases[] = {
    {"trim", case_trim, 0},
    {"by_itself", case_by_itself, 0},
    {"filled_again", case_filled_again, 0},
    {"others_free", case_others_free, 0},
    {"left_behind", case_left_behind, 0},
    {"forked", case_forked, 0},
    {"wrong", case_wrong, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
