/*
 * lineat - print lines of a large file by number, as they are asked for.
 *
 *   lineat [-s] FILE < NUMBERS      -s: say how the cache did
 *
 * The file is read in blocks of 256 KiB, which are kept in discardable memory
 * (QUIRE_MOVABLE_DISCARDABLE): as many as there is room for. Where memory is
 * short (QUIRE_CONF=limit:32M) quire drops those that were not used for long,
 * instead of letting anything fail; the next pin says so, and the block is
 * read again. The program never decides what to keep.
 *
 *   line 1 at block 0, line 4711 at block 3, ...      found by bisection
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <quire/movable.h>

#define BLOCK ((size_t)256 << 10)

struct block {
    quire_movable_t *memory; /* NULL: never read */
    uint64_t lines_before;   /* newlines in the blocks before this one */
};

static struct block *blocks;
static size_t nr_blocks, file_size;
static int fd;
static size_t asked, reads, dropped;

static void die(const char *what)
{
    fprintf(stderr, "lineat: %s: %s\n", what, strerror(errno));
    exit(1);
}

static size_t length(size_t i)
{
    return i + 1 < nr_blocks ? BLOCK : file_size - i * BLOCK;
}

static void fill(char *p, size_t i)
{
    for (size_t n = 0, len = length(i); n < len;) {
        ssize_t got = pread(fd, p + n, len - n, (off_t)(i * BLOCK + n));

        if (got == 0)
            errno = EIO;
        if (got <= 0 && errno != EINTR)
            die("cannot read the file");
        n += got > 0 ? (size_t)got : 0;
    }
    reads++;
}

/* The content of a block, until done(). */
static const char *look(size_t i)
{
    struct block *b = &blocks[i];
    bool fresh = b->memory == NULL;
    int lost;

    if (fresh)
        b->memory = quire_movable_alloc(BLOCK, QUIRE_MOVABLE_DISCARDABLE);
    char *p = b->memory != NULL ? quire_movable_pin(b->memory, &lost) : NULL;
    if (p == NULL)
        die("no memory for a single block");
    if (fresh || lost)
        fill(p, i);
    dropped += !fresh && lost;
    asked++;
    return p;
}

static void done(size_t i)
{
    quire_movable_unpin(blocks[i].memory);
}

static void count_lines(void)
{
    uint64_t lines = 0;

    for (size_t i = 0; i < nr_blocks; i++) {
        const char *p = look(i), *end = p + length(i);

        blocks[i].lines_before = lines;
        while ((p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
            lines++;
            p++;
        }
        done(i);
    }
}

/* The last block with fewer than n newlines before it: there line n + 1 begins, or the one before. */
static size_t block_of(uint64_t n)
{
    size_t low = 0, high = nr_blocks;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;

        if (blocks[middle].lines_before < n)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Print line n, from 1 on, with its newline; false where there is none. */
static bool print_line(uint64_t n)
{
    size_t i = block_of(n - 1), start = 0;
    uint64_t skip = n - 1 - blocks[i].lines_before;
    bool found = false;

    for (; i < nr_blocks; i++, start = 0) {
        const char *p = look(i), *newline = NULL;

        for (; skip > 0; skip--) {
            newline = memchr(p + start, '\n', length(i) - start);
            if (newline == NULL)
                break;
            start = (size_t)(newline - p) + 1;
        }
        size_t len = skip == 0 ? length(i) - start : 0;
        newline = len > 0 ? memchr(p + start, '\n', len) : NULL;
        if (newline != NULL)
            len = (size_t)(newline - (p + start)) + 1;
        found |= len > 0;
        fwrite(p + start, 1, len, stdout);
        done(i);
        if (newline != NULL)
            break;
    }
    return found;
}

int main(int argc, char **argv)
{
    bool say = argc == 3 && strcmp(argv[1], "-s") == 0;
    struct stat st;
    uint64_t n;

    if (argc != 2 && !say)
        return 2;
    fd = open(argv[argc - 1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0)
        die(argv[argc - 1]);
    file_size = (size_t)st.st_size;
    nr_blocks = (file_size + BLOCK - 1) / BLOCK;
    blocks = calloc(nr_blocks + 1, sizeof(*blocks));
    if (blocks == NULL)
        die("no memory for the index");
    count_lines();
    while (scanf("%" SCNu64, &n) == 1)
        if (n == 0 || nr_blocks == 0 || !print_line(n))
            fprintf(stderr, "lineat: there is no line %" PRIu64 "\n", n);
    if (say)
        fprintf(stderr, "%zu blocks, looked at %zu times, read %zu times, %zu dropped in between\n",
                nr_blocks, asked, reads, dropped);
    return fflush(stdout) != 0;
}
