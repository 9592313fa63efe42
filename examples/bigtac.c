/*
 * bigtac - tac(1) for more input than a process may have addresses.
 *
 *   producer | bigtac [-s] > reversed       -s: nobody else may read it, not even the kernel
 *
 * Lines of standard input come out last first. All of it has to be kept until
 * the end; here in pages without addresses (QUIRE_GFP_HIGHMEM), so that no
 * `ulimit -v` is in the way, of which one block at a time is mapped:
 *
 *   blocks in memory   [ab\nc][d\nef][gh\ni]      a window onto one of them
 *   output             i gh  ef..cd  ab
 *
 * A line that begins in one block and ends in a later one is put together
 * from the pieces, which wait in a buffer.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quire/highmem.h>

#define ORDER 4 /* 64 KiB at 4 KiB a page */

struct block {
    struct quire_page *page;
    size_t len;
};

static struct block *blocks;
static size_t nr_blocks, room, page_size;

/* The end of a line, found before its beginning: kept at the end of the buffer. */
static struct {
    char *at;
    size_t len, size;
} tail;

static void die(const char *what)
{
    fprintf(stderr, "bigtac: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Fill a page from standard input, as far as it goes. */
static size_t read_page(struct quire_page *page)
{
    size_t len = 0;
    char *p = quire_kmap_local(page);
    ssize_t n;

    if (p == NULL)
        die("no window");
    while (len < page_size && (n = read(0, p + len, page_size - len)) != 0) {
        if (n < 0 && errno != EINTR)
            die("standard input");
        len += n > 0 ? (size_t)n : 0;
    }
    quire_kunmap_local(p);
    return len;
}

static struct quire_page *page_of(const struct block *b, size_t i)
{
    return quire_pfn_to_page(quire_page_to_pfn(b->page) + i);
}

static bool read_block(quire_gfp_t zone)
{
    struct block b = {.page = quire_alloc_pages(zone, ORDER)};

    if (b.page == NULL)
        die("no memory for the input");
    for (size_t i = 0; i < 1 << ORDER; i++) {
        size_t n = read_page(page_of(&b, i));

        b.len += n;
        if (n < page_size)
            break;
    }
    if (nr_blocks == room) {
        room = room > 0 ? 2 * room : 64;
        if ((blocks = realloc(blocks, room * sizeof(*blocks))) == NULL)
            die("no memory for the list of blocks");
    }
    blocks[nr_blocks++] = b;
    return b.len == page_size << ORDER;
}

/* Put a piece before what is kept. */
static void keep(const char *piece, size_t len)
{
    if (len > tail.size - tail.len) {
        size_t size = 2 * (tail.len + len);
        char *at = malloc(size);

        if (at == NULL)
            die("no memory for a line");
        memcpy(at + size - tail.len, tail.at + tail.size - tail.len, tail.len);
        free(tail.at);
        tail.at = at;
        tail.size = size;
    }
    tail.len += len;
    memcpy(tail.at + tail.size - tail.len, piece, len);
}

static void put(const char *piece, size_t len)
{
    if (fwrite(piece, 1, len, stdout) != len ||
        fwrite(tail.at + tail.size - tail.len, 1, tail.len, stdout) != tail.len)
        die("standard output");
    tail.len = 0;
}

/* The lines that begin in p[0..len), last first; what stands before the first of them is kept. */
static void write_lines(const char *p, size_t len)
{
    size_t end = len;

    while (end > 0) {
        const char *newline = memrchr(p, '\n', end);
        size_t start = newline != NULL ? (size_t)(newline - p) + 1 : 0;

        if (newline == NULL)
            break;
        /* What follows the newline is a line, unless it is the very end of the input. */
        if (end > start || tail.len > 0)
            put(p + start, end - start);
        keep("\n", 1);
        end = start - 1;
    }
    keep(p, end);
}

static void write_block(const struct block *b)
{
    for (size_t i = 1 << ORDER; i-- > 0;) {
        size_t len = b->len > i * page_size ? b->len - i * page_size : 0;

        if (len == 0)
            continue;
        const char *p = quire_kmap_local(page_of(b, i));
        if (p == NULL)
            die("no window");
        write_lines(p, len < page_size ? len : page_size);
        quire_kunmap_local(p);
    }
    quire_free_pages(b->page, ORDER);
}

int main(int argc, char **argv)
{
    quire_gfp_t zone = QUIRE_GFP_HIGHMEM;

    if (argc == 2 && strcmp(argv[1], "-s") == 0)
        zone = QUIRE_GFP_SECRET;
    else if (argc > 1)
        return 2;
    page_size = (size_t)sysconf(_SC_PAGESIZE);
    while (read_block(zone))
        ;
    while (nr_blocks > 0)
        write_block(&blocks[--nr_blocks]);
    put("", 0);
    return fflush(stdout) != 0;
}
