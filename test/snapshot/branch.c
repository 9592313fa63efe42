/*
 * branch.c - quire_branch(): several at once, written at random beside the heap, each against a
 * copy made by hand; released in any order; by threads and system calls; refused and lost.
 */
#include <pthread.h>
#include <quire/branch.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "steps.h"

enum { BLOCKS = 400, BRANCHES = 6 };

static size_t size_of(size_t i)
{
    return 16 + i * 37 % 9000 + (i % 50 == 7 ? 300000 : 0) + (i == 99 ? 5u << 20 : 0);
}

static char *block[BLOCKS];

static void make_blocks(void)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        block[i] = malloc(size_of(i));
        REQUIRE(block[i] != NULL);
        conform_fill(block[i], size_of(i), (unsigned)i);
    }
}

static quire_branch_t *branch_of(quire_snapshot_t *s)
{
    quire_branch_t *b = quire_branch(s);

    REQUIRE(b != NULL, "errno %d", errno);
    return b;
}

/* What a branch should hold, kept outside of the heap. */
struct model {
    quire_branch_t *branch;
    char *copy[BLOCKS];
};

static void model_make(struct model *m, quire_snapshot_t *s)
{
    m->branch = branch_of(s);
    for (size_t i = 0; i < BLOCKS; i++) {
        m->copy[i] = outside(size_of(i));
        CHECK(quire_snapshot_read(s, block[i], m->copy[i], size_of(i)) == (ssize_t)size_of(i));
    }
}

static void model_write(struct model *m, uint64_t *seed)
{
    size_t i = conform_random(seed) % BLOCKS, at = conform_random(seed) % size_of(i);
    char *p = quire_branch_ptr(m->branch, block[i]);

    REQUIRE(p != NULL);
    p[at] = m->copy[i][at] = (char)conform_random(seed);
}

static size_t model_differs(struct model *m)
{
    size_t bad = 0;

    for (size_t i = 0; i < BLOCKS; i++)
        bad += memcmp(quire_branch_ptr(m->branch, block[i]), m->copy[i], size_of(i)) != 0;
    return bad;
}

static void model_end(struct model *m)
{
    CHECK(model_differs(m) == 0);
    CHECK(quire_branch_error(m->branch) == 0);
    CHECK(quire_branch_release(m->branch) == 0);
    for (size_t i = 0; i < BLOCKS; i++)
        munmap(m->copy[i], size_of(i));
    m->branch = NULL;
}

static atomic_bool stop;

static void *write_the_heap(void *arg)
{
    uint64_t seed = 5;

    while (!stop) {
        size_t i = conform_random(&seed) % BLOCKS;
        block[i][conform_random(&seed) % size_of(i)]++;
        free(malloc(conform_random(&seed) % 100000));
    }
    return arg;
}

/* Branches of two snapshots come and go in any order, after their snapshots have gone, too. */
static void against_models(void)
{
    static struct model model[BRANCHES];
    pthread_t writer;
    uint64_t seed = 1;

    make_blocks();
    quire_snapshot_t *first = take_protected();
    REQUIRE(pthread_create(&writer, NULL, write_the_heap, NULL) == 0);
    for (int i = 0; i < BRANCHES / 2; i++)
        model_make(&model[i], first);
    for (int i = 0; i < 3000; i++)
        model_write(&model[conform_random(&seed) % (BRANCHES / 2)], &seed);
    quire_snapshot_t *second = take_protected();
    for (int i = BRANCHES / 2; i < BRANCHES; i++)
        model_make(&model[i], second);
    CHECK(quire_snapshot_release(first) == 0);
    CHECK(quire_snapshot_release(first) == -1 && errno == EINVAL);
    for (int i = 0; i < 3000; i++)
        model_write(&model[conform_random(&seed) % BRANCHES], &seed);
    model_end(&model[1]);
    model_end(&model[BRANCHES - 1]);
    CHECK(quire_snapshot_release(second) == 0);
    for (int i = 0; i < BRANCHES; i++)
        if (model[i].branch != NULL)
            model_end(&model[i]);
    stop = true;
    pthread_join(writer, NULL);
    /* Nothing is held any more. */
    quire_snapshot_t *s = take_protected();
    struct quire_snapshot_stat st;
    CHECK(quire_snapshot_stat(s, &st) == 0 && st.held_bytes == 0, "%llu bytes",
          (unsigned long long)st.held_bytes);
    quire_snapshot_release(s);
}

/* A list is changed in a branch, all through pointers of the heap. */
struct node {
    struct node *next;
    long value;
};

static void a_list(void)
{
    struct node *head = NULL;
    long sum = 0;

    for (long i = 0; i < 1000; i++) {
        struct node *n = malloc(sizeof(*n) + (size_t)i % 300);
        *n = (struct node){head, i};
        head = n;
    }
    quire_snapshot_t *s = take_protected();
    quire_branch_t *b = branch_of(s), *c = branch_of(s);
    CHECK(quire_branch_size(b) == 0);
    for (struct node *n = head; n != NULL; n = n->next)
        n->value = -1;
    for (struct node *n = quire_branch_ptr(b, head); n != NULL;
         n = n->next != NULL ? quire_branch_ptr(b, n->next) : NULL)
        n->value *= 2;
    for (struct node *n = head; n != NULL; n = n->next)
        sum += ((struct node *)quire_branch_ptr(b, n))->value -
               2 * ((struct node *)((char *)n + quire_branch_distance(c)))->value - n->value;
    CHECK(sum == 1000, "%ld", sum);
    CHECK(quire_branch_size(b) > 0 && quire_branch_size(b) < 4u << 20);
    CHECK(quire_branch_ptr(b, &sum) == NULL && errno == EFAULT);
    CHECK(quire_branch_release(b) == 0 && quire_branch_release(c) == 0);
    CHECK(quire_snapshot_release(s) == 0);
    CHECK(quire_branch_release(NULL) == -1 && errno == EINVAL);
    CHECK(quire_branch(NULL) == NULL && errno == EINVAL);
}

/* System calls write into pages of a branch that were never touched. */
static void calls_write(void)
{
    enum { SIZE = 1 << 20 };
    int ends[2];
    char *p = malloc(SIZE), *from = outside(SIZE);

    conform_fill(p, SIZE, 1);
    conform_fill(from, SIZE, 2);
    REQUIRE(pipe(ends) == 0);
    quire_snapshot_t *s = take_protected();
    quire_branch_t *b = branch_of(s);
    char *q = quire_branch_ptr(b, p);
    for (size_t done = 0; done < SIZE; done += 4096) {
        CHECK(write(ends[1], from + done, 4096) == 4096);
        CHECK(read(ends[0], q + done, 4096) == 4096);
    }
    CHECK(conform_intact(q, SIZE, 2) && conform_intact(p, SIZE, 1));
    quire_snapshot_release(s);
    quire_branch_release(b);
}

static void in_a_child(void)
{
    char *p = malloc(100000);

    conform_fill(p, 100000, 3);
    quire_snapshot_t *s = take_protected();
    quire_branch_t *b = branch_of(s);
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(quire_branch_ptr(b, p) == NULL && errno == ESTALE);
        CHECK(quire_branch_error(b) == ESTALE);
        CHECK(quire_branch_release(b) == 0);
        CHECK(quire_snapshot_release(s) == 0);
        quire_snapshot_t *own = take(0); /* and it has its own */
        quire_branch_t *c = method(own) == QUIRE_SNAPSHOT_BY_PROTECTION ? branch_of(own) : NULL;
        memset(p, 0, 100000);
        CHECK(c == NULL || conform_intact(quire_branch_ptr(c, p), 100000, 3));
        quire_snapshot_release(own);
        CHECK(c == NULL || quire_branch_release(c) == 0);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    CHECK(conform_intact(quire_branch_ptr(b, p), 100000, 3));
    quire_branch_release(b);
    quire_snapshot_release(s);
}

/* Of a loaded image. */
static void of_an_image(void)
{
    char path[] = "/tmp/quire-branch-XXXXXX", *p = malloc(300000);
    int fd = mkstemp(path);

    REQUIRE(fd >= 0);
    unlink(path);
    conform_fill(p, 300000, 4);
    quire_snapshot_t *s = take_protected();
    CHECK(quire_snapshot_save(s, fd, NULL, NULL) == 0);
    quire_snapshot_release(s);
    memset(p, 0, 300000);
    lseek(fd, 0, SEEK_SET);
    s = quire_snapshot_load(fd);
    REQUIRE(s != NULL, "errno %d", errno);
    quire_branch_t *b = branch_of(s), *c = branch_of(s);
    memset(quire_branch_ptr(b, p), 9, 300000);
    CHECK(quire_snapshot_release(s) == 0);
    CHECK(conform_intact(quire_branch_ptr(c, p), 300000, 4));
    CHECK(*(char *)quire_branch_ptr(b, p + 299999) == 9);
    CHECK(quire_branch_release(c) == 0 && quire_branch_release(b) == 0);
}

static sigjmp_buf before_touching;

static void jump_back(int sig)
{
    siglongjmp(before_touching, 1);
}

/* The budget is used up: what was touched before stays, the rest is lost, and says so. */
static void lost(void)
{
    enum { SIZE = 64 << 20 };

    CHECK(quire_snapshot_budget(8u << 20) == 0);
    char *p = malloc(SIZE), *q = malloc(5000);
    memset(p, 1, SIZE);
    conform_fill(q, 5000, 6);
    quire_snapshot_t *s = take_protected();
    quire_branch_t *b = branch_of(s);
    char *mine = quire_branch_ptr(b, q);
    CHECK(conform_intact(mine, 5000, 6));
    memset(p, 2, SIZE);
    CHECK(quire_branch_error(b) == ENOBUFS);
    CHECK(conform_intact(mine, 5000, 6));
    CHECK(quire_branch(s) == NULL && errno == ENOBUFS);
    char *gone = quire_branch_ptr(b, p + SIZE / 2);
    signal(SIGSEGV, jump_back);
    if (sigsetjmp(before_touching, 1) == 0) {
        *(volatile char *)gone = 1;
        CHECK(false, "a page that is lost was touched");
    }
    signal(SIGSEGV, SIG_DFL);
    CHECK(conform_intact(mine, 5000, 6));
    quire_branch_release(b);
    quire_snapshot_release(s);
}

static void not_there(void)
{
    quire_snapshot_t *s = take(QUIRE_SNAPSHOT_HOLDER);
    quire_branch_t *b = quire_branch(s);
    char *p = malloc(10);

    if (b == NULL) {
        CHECK(errno == ENOTSUP, "errno %d", errno);
    } else { /* of a holder's memory, as it does for views */
        CHECK(quire_branch_release(b) == 0);
    }
    free(p);
    quire_snapshot_release(s);
}

static const struct conform_case cases[] = {
    {"against models", against_models, 120}, {"a list", a_list, 60},
    {"system calls write", calls_write, 60}, {"in a child", in_a_child, 60},
    {"of an image", of_an_image, 60},        {"lost", lost, 60},
    {"of a holder", not_there, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
