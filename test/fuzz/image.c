/*
 * image.c - the fuzz target: whatever a file says, loading it ends with an error or with a snapshot
 * that can be read, verified, saved, mapped and released.
 */
#include "image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cow/crc32c.h"
#include "cow/image.h"
#include "cow/map.h"

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define SAVE_MAX ((uint64_t)8 << 20)
#define READS 64u

static int file_of(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    MUST(fd >= 0 && write(fd, data, size) == (ssize_t)size && lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

void fuzz_repair(uint8_t *image, size_t size)
{
    struct q_image_header h;
    struct q_image_record r;
    size_t at = sizeof(h), page = q_page_size();

    if (size < sizeof(h))
        return;
    memcpy(&h, image, sizeof(h));
    memcpy(h.magic, Q_IMAGE_MAGIC, sizeof(h.magic));
    size_t ranges = h.nr_ranges * sizeof(struct q_range),
           blocks = h.nr_blocks * sizeof(struct q_block);
    if (h.nr_ranges <= size && at + ranges <= size)
        h.ranges_crc = q_crc32c(0, image + at, ranges);
    if (h.nr_ranges <= size && h.nr_blocks <= size && at + ranges + blocks <= size)
        h.blocks_crc = q_crc32c(0, image + at + ranges, blocks);
    h.crc = q_crc32c(0, &h, offsetof(struct q_image_header, crc));
    memcpy(image, &h, sizeof(h));
    if (h.nr_ranges > size || h.nr_blocks > size)
        return;
    at = q_align_up(at + ranges + blocks, page);
    while (at + sizeof(r) <= size) {
        memcpy(&r, image + at, sizeof(r));
        size_t data = at + q_image_record_bytes(), end = data + (size_t)r.nr * page;

        for (size_t i = 0; i < r.nr && i < Q_IMAGE_BATCH && data + (i + 1) * page <= size; i++)
            r.page_crc[i] = q_crc32c(0, image + data + i * page, page);
        r.crc = q_crc32c(0, &r, offsetof(struct q_image_record, crc));
        memcpy(image + at, &r, sizeof(r));
        if (r.nr > Q_IMAGE_BATCH || end > size)
            return;
        at = end;
    }
}

/* The first and last bytes of some stretches. */
static void read_some(quire_snapshot_t *s)
{
    struct quire_snapshot_range r;
    char buf[100];

    for (size_t i = 0; i < READS && quire_snapshot_range(s, i, &r) == 0; i++) {
        MUST(r.size > 0);
        size_t n = r.size < sizeof(buf) ? r.size : sizeof(buf);
        ssize_t got = quire_snapshot_read(s, r.start, buf, n);
        MUST(got == (ssize_t)n || (got == -1 && (errno == EIO || errno == ENOMEM)));
        got = quire_snapshot_read(s, (char *)r.start + r.size - 1, buf, sizeof(buf));
        MUST(got >= 1 || (got == -1 && (errno == EIO || errno == ENOMEM)));
    }
    MUST(quire_snapshot_read(s, (void *)1, buf, 1) == -1);
}

static uint64_t sum_of(quire_snapshot_t *s)
{
    static char buf[1 << 16];
    struct quire_snapshot_range r;
    uint64_t sum = 0;

    for (size_t i = 0; quire_snapshot_range(s, i, &r) == 0; i++)
        for (size_t at = 0; at < r.size; at += sizeof(buf)) {
            size_t n = q_min(sizeof(buf), r.size - at);
            if (quire_snapshot_read(s, (char *)r.start + at, buf, n) != (ssize_t)n)
                return 0;
            sum = sum * 31 + q_crc32c(0, buf, n);
        }
    return sum | 1;
}

/* What is saved of it is it. */
static void save_and_compare(quire_snapshot_t *s)
{
    struct quire_snapshot_stat st;

    MUST(quire_snapshot_stat(s, &st) == 0);
    uint64_t sum = st.bytes <= SAVE_MAX ? sum_of(s) : 0;
    if (sum == 0)
        return;
    int fd = memfd_create("again", MFD_CLOEXEC);
    MUST(quire_snapshot_save(s, fd, NULL, NULL) == 0 && lseek(fd, 0, SEEK_SET) == 0);
    quire_snapshot_t *again = quire_snapshot_load(fd);
    MUST(again != NULL && quire_snapshot_verify(again) == 0 && sum_of(again) == sum);
    MUST(quire_snapshot_root(again) == quire_snapshot_root(s));
    quire_snapshot_release(again);
    close(fd);
}

/* In a child: the addresses are the file's choice, and the memory stays. */
static void map_it(quire_snapshot_t *s)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        struct quire_snapshot_range r;

        s->pid = (int)getpid(); /* it lets a child do what is refused to it otherwise */
        for (struct quire_snapshot *b = s->base; b != NULL; b = b->base)
            b->pid = (int)getpid();
        if (quire_snapshot_map(s) != 0)
            _exit(0);
        for (size_t i = 0; i < READS && quire_snapshot_range(s, i, &r) == 0; i++) {
            /* A page past the end of a file that was cut later would raise SIGBUS; none is. */
            ++*(volatile char *)r.start;
            ++*((volatile char *)r.start + r.size - 1);
            size_t size = q_mapped_size(r.start);
            MUST(size == 0 || q_mapped_free(r.start));
            MUST(size <= r.size && q_mapped_holds((char *)r.start + r.size / 2));
        }
        _exit(0);
    }
    MUST(pid > 0 && waitpid(pid, &status, 0) == pid);
    MUST(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void try_it(quire_snapshot_t *s, unsigned flags)
{
    struct quire_snapshot_stat st;

    MUST(quire_snapshot_stat(s, &st) == 0 && st.ranges > 0 && st.bytes > 0);
    read_some(s);
    bool good = quire_snapshot_verify(s) == 0;
    MUST(good || errno == EBADMSG || errno == ENOMEM);
    if (good && (flags & FUZZ_SAVE) != 0)
        save_and_compare(s);
    if ((flags & FUZZ_MAP) != 0)
        map_it(s);
}

static quire_snapshot_t *load(quire_snapshot_t *base, uint8_t *image, size_t size, unsigned flags)
{
    if ((flags & FUZZ_REPAIR) != 0)
        fuzz_repair(image, size);
    int fd = file_of(image, size);
    errno = 0;
    quire_snapshot_t *s =
        base != NULL ? quire_snapshot_load_onto(base, fd) : quire_snapshot_load(fd);
    MUST(s != NULL || errno == EBADMSG || errno == ENOTSUP || errno == ENODATA || errno == EXDEV ||
         errno == EINVAL || errno == ENOMEM);
    close(fd);
    return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t len;

    q_base_init();
    if (size < FUZZ_HEAD)
        return 0;
    memcpy(&len, data + 1, sizeof(len));
    len = (uint32_t)q_min(len, size - FUZZ_HEAD);
    uint8_t *copy = malloc(size);
    MUST(copy != NULL);
    memcpy(copy, data, size);
    quire_snapshot_t *base = load(NULL, copy + FUZZ_HEAD, len, data[0]), *more = NULL;
    if (base != NULL)
        try_it(base, data[0]);
    if (base != NULL && size > FUZZ_HEAD + len) {
        more = load(base, copy + FUZZ_HEAD + len, size - FUZZ_HEAD - len, data[0]);
        if (more != NULL) {
            try_it(more, data[0]);
            MUST(quire_snapshot_release(base) == -1 && errno == EBUSY);
            MUST(quire_snapshot_release(more) == 0);
        }
    }
    MUST(base == NULL || quire_snapshot_release(base) == 0);
    free(copy);
    return 0;
}
