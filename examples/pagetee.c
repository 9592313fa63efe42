/*
 * pagetee - tee(1) with a thread per output, and each byte in memory once.
 *
 *   producer | pagetee FILE...
 *
 * Standard input goes to standard output and to every file. A slow output does
 * not hold up the others until it is RING blocks behind. Input is read into
 * blocks of pages; each output holds a reference while it has yet to write a
 * block, and whoever is last frees it:
 *
 *   reader  -> [block 7: 3 holders] [block 6: 1] ...
 *                |      |      |        |
 *             stdout  fast   slow     slow
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quire/page.h>

#define ORDER 4 /* 64 KiB at 4 KiB a page */
#define RING 64

struct piece {
    struct quire_page *page; /* NULL: the end */
    size_t len;
};

struct output {
    const char *name;
    int fd, error;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct piece ring[RING];
    unsigned head, tail; /* [head, tail) are to be written; under the lock */
};

static void push(struct output *out, struct piece piece)
{
    pthread_mutex_lock(&out->lock);
    while (out->tail - out->head == RING)
        pthread_cond_wait(&out->changed, &out->lock);
    out->ring[out->tail++ % RING] = piece;
    pthread_cond_signal(&out->changed);
    pthread_mutex_unlock(&out->lock);
}

static struct piece pop(struct output *out)
{
    pthread_mutex_lock(&out->lock);
    while (out->tail == out->head)
        pthread_cond_wait(&out->changed, &out->lock);
    struct piece piece = out->ring[out->head++ % RING];
    pthread_cond_signal(&out->changed);
    pthread_mutex_unlock(&out->lock);
    return piece;
}

static int write_all(int fd, const char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno != EINTR)
            return errno;
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* An output that failed goes on taking blocks, so that the others go on. */
static void *writer(void *arg)
{
    struct output *out = arg;
    struct piece piece;

    while ((piece = pop(out)).page != NULL) {
        if (out->error == 0)
            out->error = write_all(out->fd, quire_page_address(piece.page), piece.len);
        quire_put_page(piece.page);
    }
    return NULL;
}

/* Read until the block is full or the input pauses. */
static ssize_t fill(struct quire_page *page, size_t size)
{
    ssize_t n;

    do {
        n = read(0, quire_page_address(page), size);
    } while (n < 0 && errno == EINTR);
    return n;
}

static int distribute(struct output *out, unsigned nr)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE) << ORDER;

    for (;;) {
        struct quire_page *page = quire_alloc_pages(QUIRE_GFP_KERNEL, ORDER);
        ssize_t n = page != NULL ? fill(page, size) : -1;

        if (n <= 0) {
            int error = n < 0 ? errno : 0;
            quire_free_pages(page, ORDER);
            return error;
        }
        for (unsigned i = 0; i < nr; i++) {
            quire_get_page(page);
            push(&out[i], (struct piece){page, (size_t)n});
        }
        quire_put_page(page); /* ours: from here on it lives as long as somebody writes it */
    }
}

static void start(struct output *out, const char *name, int fd)
{
    out->name = name;
    out->fd = fd;
    pthread_mutex_init(&out->lock, NULL);
    pthread_cond_init(&out->changed, NULL);
    if (fd < 0 || pthread_create(&out->thread, NULL, writer, out) != 0) {
        fprintf(stderr, "pagetee: %s: %s\n", name, strerror(fd < 0 ? errno : EAGAIN));
        exit(1);
    }
}

int main(int argc, char **argv)
{
    unsigned nr = (unsigned)argc;
    struct output *out = calloc(nr, sizeof(*out));
    int failed = 0;

    if (out == NULL)
        return 1;
    start(&out[0], "standard output", 1);
    for (unsigned i = 1; i < nr; i++)
        start(&out[i], argv[i], open(argv[i], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    int error = distribute(out, nr);
    for (unsigned i = 0; i < nr; i++) {
        push(&out[i], (struct piece){NULL, 0});
        pthread_join(out[i].thread, NULL);
        if (out[i].error != 0)
            fprintf(stderr, "pagetee: %s: %s\n", out[i].name, strerror(out[i].error));
        failed |= out[i].error != 0;
    }
    if (error != 0)
        fprintf(stderr, "pagetee: input: %s\n", strerror(error));
    free(out);
    return failed || error != 0;
}
