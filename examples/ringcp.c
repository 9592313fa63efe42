/*
 * ringcp - cp(1) through io_uring with registered buffers.
 *
 *   ringcp [-v] FROM TO            -v: say what the kernel has registered
 *
 * Buffers lie in zone DMA (QUIRE_GFP_DMA): resident, locked, at one address for
 * as long as the ring knows them. Registering them once lets the kernel keep
 * hold of the pages, instead of looking them up for each request:
 *
 *   FROM --read_fixed--> [ buffer 0 ] --write_fixed--> TO
 *        --read_fixed--> [ buffer 1 ] --write_fixed-->
 *        ...                                       DEPTH at once, in any order
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <liburing.h>
#include <quire/page.h>

#define DEPTH 8
#define ORDER 4 /* 64 KiB at 4 KiB a page */
#define EXIT_NO_RING 77

/* One buffer and the piece of the file that is in it, or on its way. */
struct piece {
    char *buffer;
    off_t offset;
    size_t len, done; /* bytes read or written of it so far */
    bool writing;
};

static struct io_uring ring;
static struct piece piece[DEPTH];
static size_t piece_size;
static int from, to;

static void die(const char *what, int error)
{
    fprintf(stderr, "ringcp: %s: %s\n", what, strerror(error));
    exit(error == ENOSYS || error == EPERM ? EXIT_NO_RING : 1);
}

static void set_up(void)
{
    struct iovec part[DEPTH];
    int error = io_uring_queue_init(DEPTH, &ring, 0);

    if (error < 0)
        die("no ring", -error);
    for (int i = 0; i < DEPTH; i++) {
        piece[i].buffer = quire_get_free_pages(QUIRE_GFP_DMA, ORDER);
        if (piece[i].buffer == NULL)
            die("no locked memory (ulimit -l)", errno);
        part[i] = (struct iovec){piece[i].buffer, piece_size};
    }
    error = io_uring_register_buffers(&ring, part, DEPTH);
    if (error < 0)
        die("the buffers cannot be registered", -error);
}

/* What the kernel says of this ring: "UserBufs:" with the number of registered buffers. */
static void say_registered(void)
{
    char path[64], line[200];

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", ring.ring_fd);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL)
        if (strncmp(line, "UserBufs:", 9) == 0)
            fprintf(stderr, "registered buffers: %lu\n", strtoul(line + 9, NULL, 10));
    if (file != NULL)
        fclose(file);
}

/* Ask for what is still missing of a piece. */
static void submit(struct piece *p)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    unsigned left = (unsigned)(p->len - p->done);
    int index = (int)(p - piece);

    if (p->writing)
        io_uring_prep_write_fixed(sqe, to, p->buffer + p->done, left, p->offset + (off_t)p->done,
                                  index);
    else
        io_uring_prep_read_fixed(sqe, from, p->buffer + p->done, left, p->offset + (off_t)p->done,
                                 index);
    io_uring_sqe_set_data(sqe, p);
}

/* The next piece of the file into this buffer; false at its end. */
static bool next(struct piece *p, off_t *offset, off_t size)
{
    if (*offset >= size)
        return false;
    p->offset = *offset;
    p->len = (size_t)(size - *offset) < piece_size ? (size_t)(size - *offset) : piece_size;
    p->done = 0;
    p->writing = false;
    *offset += (off_t)p->len;
    submit(p);
    return true;
}

/* A request ended with result; true while the piece needs another one. */
static bool go_on(struct piece *p, int result)
{
    if (result == -EINTR || result == -EAGAIN)
        result = 0;
    else if (result < 0)
        die(p->writing ? "cannot write" : "cannot read", -result);
    else if (result == 0)
        die("the file became shorter", EIO);
    p->done += (size_t)result;
    if (p->done == p->len && p->writing)
        return false;
    if (p->done == p->len) {
        p->writing = true;
        p->done = 0;
    }
    submit(p);
    return true;
}

static void copy(off_t size)
{
    struct io_uring_cqe *cqe;
    off_t offset = 0;
    int busy = 0;

    for (int i = 0; i < DEPTH; i++)
        busy += next(&piece[i], &offset, size);
    while (busy > 0) {
        int error = io_uring_submit_and_wait(&ring, 1);

        if (error < 0 && error != -EINTR)
            die("the ring", -error);
        while (io_uring_peek_cqe(&ring, &cqe) == 0) {
            struct piece *p = io_uring_cqe_get_data(cqe);
            int result = cqe->res;

            io_uring_cqe_seen(&ring, cqe);
            if (!go_on(p, result) && !next(p, &offset, size))
                busy--;
        }
    }
}

int main(int argc, char **argv)
{
    bool say = argc == 4 && strcmp(argv[1], "-v") == 0;
    struct stat st;

    if (argc != 3 && !say)
        return 2;
    piece_size = (size_t)sysconf(_SC_PAGESIZE) << ORDER;
    from = open(argv[argc - 2], O_RDONLY | O_CLOEXEC);
    if (from < 0 || fstat(from, &st) != 0)
        die(argv[argc - 2], errno);
    to = open(argv[argc - 1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, st.st_mode & 0777);
    if (to < 0)
        die(argv[argc - 1], errno);
    set_up();
    if (say)
        say_registered();
    copy(st.st_size);
    io_uring_queue_exit(&ring); /* which lets go of the buffers */
    for (int i = 0; i < DEPTH; i++)
        quire_put_free_pages(piece[i].buffer, ORDER);
    if (close(to) != 0)
        die(argv[argc - 1], errno);
    return 0;
}
