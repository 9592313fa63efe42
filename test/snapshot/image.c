/* image.c - snapshots saved and loaded: whole, damaged, and where writing fails. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "steps.h"

static void image(void)
{
    image_of(0);
}

static void image_by_holder(void)
{
    image_of(QUIRE_SNAPSHOT_HOLDER);
}

static void loads_not(int fd, const char *what, size_t at)
{
    lseek(fd, 0, SEEK_SET);
    errno = 0;
    quire_snapshot_t *s = quire_snapshot_load(fd);
    if (s != NULL && quire_snapshot_verify(s) == 0)
        CHECK(false, "%s at %zu was not noticed", what, at);
    else
        CHECK(errno == EBADMSG || errno == ENOTSUP, "%s at %zu: errno %d", what, at, errno);
    if (s != NULL)
        quire_snapshot_release(s);
}

static void damaged_images(void)
{
    int fd = memfd_create("image", 0), bad = memfd_create("bad", 0);
    char *p = malloc(300000);
    uint64_t rng = 11;

    conform_fill(p, 300000, 3);
    quire_snapshot_t *s = take(0);
    REQUIRE(quire_snapshot_save(s, fd, NULL, NULL) == 0);
    quire_snapshot_release(s);
    size_t size = (size_t)lseek(fd, 0, SEEK_END);
    char *image = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    REQUIRE(image != MAP_FAILED);
    for (int i = 0; i < 300; i++) {
        size_t at = i < 100 ? (size_t)i * size / 100 : conform_random(&rng) % size;
        char c = (char)(image[at] ^ (1 << conform_random(&rng) % 8));

        if (i >= 200)
            at = conform_random(&rng) % 400, c = (char)~image[at];
        CHECK(ftruncate(bad, 0) == 0 && pwrite(bad, image, at, 0) == (ssize_t)at);
        loads_not(bad, "the end", at);
        CHECK(pwrite(bad, image, size, 0) == (ssize_t)size && pwrite(bad, &c, 1, (off_t)at) == 1);
        loads_not(bad, "another byte", at);
    }
    CHECK(ftruncate(bad, 0) == 0);
    loads_not(bad, "nothing", 0);
    int zero = open("/dev/zero", O_RDONLY);
    errno = 0;
    CHECK(quire_snapshot_load(zero) == NULL && errno != 0);
    int pipes[2];
    REQUIRE(pipe(pipes) == 0);
    errno = 0;
    CHECK(quire_snapshot_load(pipes[0]) == NULL && errno == ESPIPE);
    CHECK(quire_snapshot_load(-1) == NULL && errno == EBADF);
}

static void save_fails(void)
{
    quire_snapshot_t *s = take(0);
    int full = open("/dev/full", O_WRONLY);

    errno = 0;
    CHECK(quire_snapshot_save(s, full, NULL, NULL) == -1 && errno == ENOSPC, "errno %d", errno);
    errno = 0;
    CHECK(quire_snapshot_save(s, -1, NULL, NULL) == -1 && errno == EBADF);
    quire_snapshot_release(s);
}

static void *read_a_byte(void *s)
{
    struct quire_snapshot_range r;
    char c;

    REQUIRE(quire_snapshot_range(s, 0, &r) == 0);
    CHECK(quire_snapshot_read(s, r.start, &c, 1) == 1);
    return NULL;
}

/* Coroutines, for one, have little more. */
static void read_on_a_small_stack(void)
{
    int fd = memfd_create("image", 0);
    quire_snapshot_t *s = take(0);
    pthread_attr_t attr;
    pthread_t thread;

    REQUIRE(quire_snapshot_save(s, fd, NULL, NULL) == 0);
    quire_snapshot_release(s);
    REQUIRE(lseek(fd, 0, SEEK_SET) == 0 && (s = quire_snapshot_load(fd)) != NULL);
    pthread_attr_init(&attr);
    REQUIRE(pthread_attr_setstacksize(&attr, 32u << 10) == 0);
    REQUIRE(pthread_create(&thread, &attr, read_a_byte, s) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    quire_snapshot_release(s);
}

static const struct conform_case cases[] = {
    {"image", image, 30},
    {"image, by a holder process", image_by_holder, 30},
    {"damaged images", damaged_images, 60},
    {"save fails", save_fails, 30},
    {"read on a small stack", read_on_a_small_stack, 30},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
