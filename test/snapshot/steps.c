/* steps.c - see steps.h. */
#include "steps.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

quire_snapshot_t *take(unsigned flags)
{
    quire_snapshot_t *s = quire_snapshot_take(NULL, flags);

    REQUIRE(s != NULL, "errno %d", errno);
    return s;
}

int method(const quire_snapshot_t *s)
{
    struct quire_snapshot_stat st;

    REQUIRE(quire_snapshot_stat(s, &st) == 0);
    return st.method;
}

quire_snapshot_t *take_protected(void)
{
    quire_snapshot_t *s = take(0);

    if (method(s) != QUIRE_SNAPSHOT_BY_PROTECTION)
        conform_skip("no write protection here");
    return s;
}

quire_snapshot_t *take_to_go_back(struct quire_heap *heap)
{
    quire_snapshot_t *s = quire_snapshot_take(heap, QUIRE_SNAPSHOT_ROLLBACK);

    if (s == NULL && errno == ENOTSUP)
        conform_skip("no rollback here");
    REQUIRE(s != NULL, "errno %d", errno);
    return s;
}

void *outside(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    REQUIRE(p != MAP_FAILED);
    return p;
}

char **many_blocks(void)
{
    char **block = outside(MANY_BLOCKS * sizeof(*block));

    for (int i = 0; i < MANY_BLOCKS; i++) {
        block[i] = malloc(BLOCK);
        memset(block[i], i, BLOCK);
    }
    return block;
}

void check_many_blocks(char **block)
{
    for (int i = 0; i < MANY_BLOCKS; i++)
        CHECK(block[i][0] == (char)i && block[i][BLOCK - 1] == (char)i, "block %d", i);
}

void view_of_a_list(unsigned flags)
{
    ptrdiff_t distance;
    size_t size = 5u << 20;
    char **list = NULL, *large = malloc(size);

    conform_fill(large, size, 9);
    for (int i = 0; i < 10000; i++) { /* a list through the heap */
        char **node = malloc(24 + (size_t)i % 100);
        node[0] = (char *)list;
        node[1] = (char *)(intptr_t)i;
        list = node;
    }
    quire_snapshot_release(take_protected()); /* or nobody serves views */
    quire_snapshot_t *s = take(flags);
    for (char **n = list; n != NULL; n = (char **)n[0])
        n[1] = NULL;
    memset(large, 0, size);
    CHECK(quire_snapshot_view(s, &distance) == 0, "errno %d", errno);
    int want = 9999, bad = 0;
    for (char *const *n = (char *const *)list; n != NULL; n = (char *const *)n[0]) {
        n = quire_snapshot_ptr(s, n);
        bad += n == NULL || (intptr_t)n[1] != want--;
    }
    CHECK(bad == 0 && want == -1, "%d nodes differ", bad);
    CHECK(conform_intact(large + distance, size, 9));
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(quire_snapshot_view(s, &distance) == -1 && errno == ESTALE);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "child"));
    quire_snapshot_release(s);
}

static int count_calls(void *arg, size_t done, size_t total)
{
    CHECK(done <= total);
    ++*(int *)arg;
    return 0;
}

static int stop_at_once(void *arg, size_t done, size_t total)
{
    return 1;
}

void image_of(unsigned flags)
{
    char path[] = "/tmp/quire-image-XXXXXX", c;
    size_t size = 9u << 20;
    char *p = malloc(size), *copy = malloc(size), *empty = calloc(1, size);
    int fd = mkstemp(path), calls = 0;
    ptrdiff_t distance;

    REQUIRE(fd >= 0);
    unlink(path);
    CHECK(write(fd, "before", 6) == 6);
    conform_fill(p, size, 5);
    quire_snapshot_t *s = take(flags);
    memset(p, 1, size);
    CHECK(quire_snapshot_save(s, fd, stop_at_once, NULL) == -1 && errno == ECANCELED);
    CHECK(lseek(fd, 6, SEEK_SET) == 6 && ftruncate(fd, 6) == 0);
    CHECK(quire_snapshot_save(s, fd, count_calls, &calls) == 0, "errno %d", errno);
    CHECK(calls > 0);
    quire_snapshot_release(s);
    memset(p, 2, size);
    lseek(fd, 6, SEEK_SET);
    s = quire_snapshot_load(fd);
    REQUIRE(s != NULL, "errno %d", errno);
    CHECK(quire_snapshot_verify(s) == 0);
    CHECK(method(s) == QUIRE_SNAPSHOT_BY_IMAGE);
    CHECK(quire_snapshot_read(s, p, copy, size) == (ssize_t)size && conform_intact(copy, size, 5));
    CHECK(quire_snapshot_read(s, empty + 4000, copy, size - 4000) == (ssize_t)size - 4000 &&
          copy[0] == 0 && copy[size / 2] == 0);
    if (quire_snapshot_view(s, &distance) == 0) {
        CHECK(conform_intact(p + distance, size, 5), "by a view");
        CHECK(empty[distance + 12345] == 0);
    }
    CHECK(quire_snapshot_read(s, &c, &c, 1) == -1 && errno == EFAULT);
    quire_snapshot_release(s);
    close(fd);
}

void trim_while_held_by(unsigned flags)
{
    size_t size = 64u << 20;
    char *big = malloc(size), *small[64], *copy = malloc(size);

    conform_fill(big, size, 1);
    for (int i = 0; i < 64; i++) {
        small[i] = malloc(1u << 20);
        conform_fill(small[i], 1u << 20, 100 + (unsigned)i);
    }
    quire_snapshot_t *s = take(flags);
    size_t before = conform_resident();
    free(big);
    for (int i = 0; i < 64; i++)
        free(small[i]);
    quire_trim(0);
    CHECK(quire_snapshot_read(s, big, copy, size) == (ssize_t)size);
    CHECK(conform_intact(copy, size, 1), "a freed mapping");
    for (int i = 0; i < 64; i++) {
        CHECK(quire_snapshot_read(s, small[i], copy, 1u << 20) == 1 << 20);
        CHECK(conform_intact(copy, 1u << 20, 100 + (unsigned)i), "a freed run");
    }
    quire_snapshot_release(s);
    quire_trim(0);
    CHECK(conform_resident() + (100u << 20) < before + size, "memory did not go back: %zu, now %zu",
          before, conform_resident());
}
