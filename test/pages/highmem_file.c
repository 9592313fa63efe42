/*
 * highmem_file.c - pages without addresses lie in a file: more of them than there are addresses, in
 * another process, in a child, and when the program closes it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "high.h"
#include "quire/quire.h"

/* Twice as much memory as there are addresses. */
static void case_more_than_addresses(void)
{
    struct rlimit limit;
    size_t used = 0, bytes = (size_t)96 << 20, nr = 2 * bytes / page_bytes() / 16;

    if (conform_has_option("limit:"))
        conform_skip("the limit is lower");
    quire_put_page(high(0));
    FILE *file = fopen("/proc/self/statm", "re");
    REQUIRE(file != NULL && fscanf(file, "%zu", &used) == 1);
    fclose(file);
    used *= page_bytes();
    limit.rlim_cur = limit.rlim_max = used + bytes;
    REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
    struct quire_page **pages = malloc(nr * sizeof(*pages));
    REQUIRE(pages != NULL);
    for (size_t i = 0; i < nr; i++) {
        pages[i] = quire_alloc_pages(QUIRE_GFP_HIGHMEM, 4);
        REQUIRE(pages[i] != NULL, "%zu of %zu, errno %d", i, nr, errno);
        size_t *p = quire_kmap_local(pages[i]);
        REQUIRE(p != NULL);
        *p = i;
        quire_kunmap_local(p);
    }
    for (size_t i = 0; i < nr; i++) {
        size_t *p = quire_kmap(pages[i]);
        REQUIRE(p != NULL);
        CHECK(*p == i);
        quire_kunmap(pages[i]);
        quire_free_pages(pages[i], 4);
    }
    free(pages);
}

/* Another process that is given the descriptor sees the same page. */
static void case_another_process(void)
{
    struct quire_page *page = high(2);
    char *p = quire_kmap(page), done = 0;
    int fd, pair[2];
    off_t offset;

    REQUIRE(p != NULL && quire_page_file(page, &fd, &offset) == 0);
    CHECK((size_t)offset % page_bytes() == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    strcpy(p, "from here");
    int pid = fork();
    if (pid == 0) {
        /* As if the descriptor had come by SCM_RIGHTS: only it and the offset are used. */
        char *q = mmap(NULL, page_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
        bool ok = q != MAP_FAILED && strcmp(q, "from here") == 0;
        if (ok)
            strcpy(q, "from there");
        _exit(ok && write(pair[1], "x", 1) == 1 ? 0 : 1);
    }
    CHECK(read(pair[0], &done, 1) == 1 && strcmp(p, "from there") == 0);
    CHECK(conform_child_ok(pid, "the child"));
    quire_kunmap(page);
    quire_free_pages(page, 2);
}

/* A child sees its parent's pages, and what it allocates and frees is not its parent's. */
static void case_fork(void)
{
    struct quire_page *page[50];

    for (int i = 0; i < 50; i++) {
        page[i] = high(0);
        *(int *)quire_kmap(page[i]) = i;
        quire_kunmap(page[i]);
    }
    int pid = fork();
    if (pid == 0) {
        bool ok = true;
        for (int i = 0; i < 50; i++) {
            int *p = quire_kmap_local(page[i]);
            ok = ok && p != NULL && *p == i;
            quire_kunmap_local(p);
            quire_put_page(page[i]);
        }
        for (int i = 0; i < 200; i++) {
            struct quire_page *own = quire_alloc_page(QUIRE_GFP_HIGHMEM);
            int *p = own != NULL ? quire_kmap(own) : NULL;
            ok = ok && p != NULL && *p == 0;
            if (p != NULL)
                *p = 12345;
        }
        _exit(ok ? 0 : 1);
    }
    CHECK(conform_child_ok(pid, "the child"));
    for (int i = 0; i < 50; i++) {
        int *p = quire_kmap_local(page[i]);
        REQUIRE(p != NULL);
        CHECK(*p == i, "page %d is %d", i, *p);
        quire_kunmap_local(p);
        quire_put_page(page[i]);
    }
}

/* A daemon closes every number, and opens files of its own. Nothing happens to those. */
static void case_closed_file(void)
{
    struct quire_page *page = high(0);
    char path[] = "/tmp/quire-highmem-XXXXXX", *p = quire_kmap(page), text[4] = "";
    int fd;
    off_t offset;

    REQUIRE(p != NULL && quire_page_file(page, &fd, &offset) == 0);
    strcpy(p, "mapped");
    int own = mkstemp(path);
    REQUIRE(own >= 0 && unlink(path) == 0 && write(own, "own", 3) == 3);
    REQUIRE(dup2(own, fd) == fd);
    CHECK(strcmp(p, "mapped") == 0, "what is mapped stays");
    quire_kunmap(page);
    quire_put_page(page);
    for (int i = 0; i < 3; i++) {
        errno = 0;
        CHECK(quire_alloc_pages(QUIRE_GFP_HIGHMEM, 5) == NULL && errno == EBADF, "errno %d", errno);
    }
    CHECK(pread(own, text, 3, 0) == 3 && strcmp(text, "own") == 0);
}

static const struct conform_case cases[] = {
    {"more memory than addresses", case_more_than_addresses, 0},
    {"another process", case_another_process, 0},
    {"fork", case_fork, 0},
    {"a file that was closed", case_closed_file, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
