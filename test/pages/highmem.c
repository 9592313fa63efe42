/* highmem.c - pages without addresses, and areas, through the public interface. */
#include "quire/highmem.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/quire.h"

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static struct quire_page *high(unsigned order)
{
    struct quire_page *page = quire_alloc_pages(QUIRE_GFP_HIGHMEM, order);

    if (page == NULL && errno == ENOSYS)
        conform_skip("no memfd here");
    REQUIRE(page != NULL, "errno %d", errno);
    return page;
}

static struct quire_page *secret(void)
{
    struct quire_page *page = quire_alloc_page(QUIRE_GFP_SECRET);

    if (page == NULL && (errno == EOPNOTSUPP || errno == ENOMEM))
        conform_skip("no memfd_secret here (errno %d)", errno);
    REQUIRE(page != NULL, "errno %d", errno);
    return page;
}

/* True where touching p ends the process by SIGSEGV or SIGBUS. */
static bool faults(const void *p)
{
    int status, pid = fork();

    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        _exit(*(const volatile char *)p & 0);
    }
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) && (WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGBUS);
}

static void check_window(struct quire_page *page, char *p)
{
    REQUIRE(p != NULL, "errno %d", errno);
    strcpy(p, "seen");
    CHECK(faults(p - 1) && faults(p + page_bytes()));
    CHECK(quire_page_count(page) == 2, "%u", quire_page_count(page));
}

static void case_kmap(void)
{
    struct quire_page *page = high(3), *tail;

    CHECK(quire_page_address(page) == NULL && quire_compound_nr(page) == 8);
    CHECK(quire_pfn_to_virt(quire_page_to_pfn(page)) == NULL);
    char *p = quire_kmap(page);
    check_window(page, p);
    CHECK(quire_page_address(page) == p && quire_virt_to_page(p + 5) == page);
    CHECK(quire_kmap(page) == p && quire_page_count(page) == 3);
    quire_kunmap(page);
    CHECK(quire_page_address(page) == p && strcmp(p, "seen") == 0);
    tail = quire_pfn_to_page(quire_page_to_pfn(page) + 5);
    CHECK(quire_compound_head(tail) == page && quire_page_address(tail) == NULL);
    char *q = quire_kmap(tail);
    REQUIRE(q != NULL && q != p);
    CHECK(*q == 0);
    /* The owner lets go first: the windows keep it. */
    quire_free_pages(page, 3);
    CHECK(strcmp(p, "seen") == 0 && quire_page_count(page) == 2);
    quire_kunmap(tail);
    quire_kunmap(page);
    CHECK(quire_page_count(page) == 0 && quire_page_address(page) == NULL && faults(p));
}

static void case_local(void)
{
    struct quire_page *page[QUIRE_NR_KMAP_LOCAL + 1];
    char *at[QUIRE_NR_KMAP_LOCAL];

    for (int i = 0; i <= QUIRE_NR_KMAP_LOCAL; i++)
        page[i] = high(0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < QUIRE_NR_KMAP_LOCAL; i++) {
            at[i] = quire_kmap_local(page[(i + round) % QUIRE_NR_KMAP_LOCAL]);
            REQUIRE(at[i] != NULL);
            CHECK(round == 0 || at[i][0] == (i + round) % QUIRE_NR_KMAP_LOCAL);
            at[i][0] = (char)((i + round) % QUIRE_NR_KMAP_LOCAL);
        }
        errno = 0;
        CHECK(quire_kmap_local(page[QUIRE_NR_KMAP_LOCAL]) == NULL && errno == EBUSY);
        for (int i = QUIRE_NR_KMAP_LOCAL - 1; i >= 0; i--)
            quire_kunmap_local(at[i] + i);
    }
    char *p = quire_kmap_local(page[3]);
    check_window(page[3], p);
    quire_kunmap_local(p);
    for (int i = 0; i <= QUIRE_NR_KMAP_LOCAL; i++) {
        CHECK(quire_page_count(page[i]) == 1);
        quire_put_page(page[i]);
    }
}

static void case_fixmap(void)
{
    struct quire_page *a = high(0), *b = high(0);
    char *p = quire_fix_to_virt(4);

    REQUIRE(p != NULL);
    CHECK(faults(p) && quire_set_fixmap(4, a) == p);
    check_window(a, p);
    CHECK(quire_set_fixmap(4, b) == p && *p == 0);
    CHECK(quire_page_count(a) == 1 && quire_page_count(b) == 2);
    CHECK(quire_set_fixmap(4, NULL) == p && faults(p) && quire_page_count(b) == 1);
    CHECK(quire_fix_to_virt(4) == p && quire_fix_to_virt(5) != p);
    errno = 0;
    CHECK(quire_fix_to_virt(QUIRE_NR_FIXMAP) == NULL && errno == EINVAL);
    struct quire_page *low = quire_alloc_page(0);
    errno = 0;
    CHECK(quire_set_fixmap(4, low) == NULL && errno == EINVAL && quire_page_count(low) == 1);
    quire_put_page(low);
    quire_put_page(a);
    quire_put_page(b);
}

static void case_ordinary_pages(void)
{
    struct quire_page *page = quire_alloc_pages(0, 1);
    char *p = quire_page_address(page);

    CHECK(quire_kmap(page) == p && quire_kmap_local(page) == p && quire_page_count(page) == 1);
    quire_kunmap_local(p);
    quire_kunmap(page);
    errno = 0;
    CHECK(quire_vmap(&page, 1) == NULL && errno == EINVAL && quire_page_count(page) == 1);
    int fd;
    off_t offset;
    errno = 0;
    CHECK(quire_page_file(page, &fd, &offset) == -1 && errno == EINVAL);
    quire_free_pages(page, 1);
    errno = 0;
    CHECK(quire_get_free_page(QUIRE_GFP_HIGHMEM) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_alloc_pages_exact(1, QUIRE_GFP_SECRET) == NULL && errno == EINVAL);
}

static void case_vmap(void)
{
    struct quire_page *page[20], *block = high(4), *list[40];

    for (int i = 0; i < 20; i++)
        page[i] = high(0);
    for (int i = 0; i < 40; i++)
        list[i] = i % 2 ? page[19 - i / 2]
                        : quire_pfn_to_page(quire_page_to_pfn(block) + (unsigned)i % 16);
    char *p = quire_vmap(list, 40);
    REQUIRE(p != NULL, "errno %d", errno);
    CHECK(faults(p - 1) && faults(p + 40 * page_bytes()));
    for (size_t i = 0; i < 40; i += 2)
        p[i * page_bytes()] = (char)(i % 16);
    for (size_t i = 1; i < 40; i += 2)
        p[i * page_bytes()] = (char)(50 + i);
    for (int i = 1; i < 40; i += 2) {
        char *q = quire_kmap_local(list[i]);
        REQUIRE(q != NULL);
        CHECK((size_t)*q == 50 + (size_t)i, "page %d: %d", i, *q);
        quire_kunmap_local(q);
    }
    CHECK(p[2 * page_bytes()] == p[18 * page_bytes()], "the same page twice");
    quire_free_pages(block, 4);
    for (int i = 0; i < 20; i++)
        quire_put_page(page[i]);
    CHECK(quire_page_count(block) == 20 && quire_page_count(page[3]) == 1);
    quire_vunmap(p);
    CHECK(quire_page_count(block) == 0 && quire_page_count(page[3]) == 0);
    errno = 0;
    CHECK(quire_vmap(list, 0) == NULL && errno == EINVAL);
}

static void case_vmalloc(void)
{
    size_t sizes[] = {1, page_bytes(), 3 * page_bytes() + 1, 20 << 20};
    char *at[4];

    for (int i = 0; i < 4; i++) {
        at[i] = quire_vmalloc(sizes[i]);
        REQUIRE(at[i] != NULL);
        size_t whole = (sizes[i] + page_bytes() - 1) / page_bytes() * page_bytes();
        CHECK(at[i][0] == 0 && memcmp(at[i], at[i] + 1, whole - 1) == 0);
        conform_fill(at[i], whole, (unsigned)i);
        CHECK(faults(at[i] - 1) && faults(at[i] + whole), "%zu bytes", sizes[i]);
        CHECK(!quire_owns(at[i]));
    }
    char text[20000];
    CHECK(quire_procfs("vmallocinfo", 0, text, sizeof(text)) > 0 && strstr(text, "quire_vmalloc"));
    for (int i = 3; i >= 0; i--) {
        CHECK(conform_intact(at[i], sizes[i], (unsigned)i));
        quire_vfree(at[i]);
        CHECK(faults(at[i]));
    }
    quire_vfree(NULL);
    quire_vunmap(NULL);
    errno = 0;
    CHECK(quire_vmalloc(0) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(quire_vmalloc(SIZE_MAX) == NULL && errno == ENOMEM);
}

/* Twice as much memory as there are addresses. */
static void case_more_than_addresses(void)
{
    struct rlimit limit;
    size_t used = 0, bytes = (size_t)96 << 20, nr = 2 * bytes / page_bytes() / 16;

    const char *conf = getenv("QUIRE_CONF");

    if (conf != NULL && strstr(conf, "limit:") != NULL)
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

static void case_secret(void)
{
    struct quire_page *page = secret();
    char *p = quire_kmap_local(page);
    int pair[2];

    REQUIRE(p != NULL, "errno %d", errno);
    CHECK(*p == 0 && quire_page_address(page) == NULL);
    strcpy(p, "secret");
    /* A program may use it, but the kernel does not read it on anybody's behalf by physical page. */
    REQUIRE(pipe(pair) == 0);
    struct iovec part = {p, 7};
    CHECK(vmsplice(pair[1], &part, 1, 0) == -1, "the kernel took a reference");
    quire_kunmap_local(p);
    CHECK(faults(p));
    p = quire_kmap(page);
    REQUIRE(p != NULL);
    CHECK(strcmp(p, "secret") == 0);
    quire_kunmap(page);
    quire_put_page(page);
    for (int i = 0; i < 20; i++) {
        page = secret();
        p = quire_kmap(page);
        REQUIRE(p != NULL);
        CHECK(*p == 0, "found '%s'", p);
        quire_kunmap(page);
        quire_put_page(page);
    }
}

static struct quire_page *shared[600];

static void *map_some(void *arg)
{
    uint64_t state = (uintptr_t)arg;

    for (int i = 0; i < 3000; i++) {
        unsigned at = (unsigned)(conform_random(&state) % 600);
        unsigned *p = i % 3 == 0 ? quire_kmap(shared[at]) : quire_kmap_local(shared[at]);

        REQUIRE(p != NULL, "errno %d", errno);
        CHECK(p[0] == at && p[1] == ~at);
        if (i % 3 == 0)
            quire_kunmap(shared[at]);
        else
            quire_kunmap_local(p);
    }
    /* What is left mapped at the end is unmapped when the windows serve another thread. */
    CHECK(quire_kmap_local(shared[0]) != NULL);
    return NULL;
}

static void case_threads(void)
{
    pthread_t thread[4];

    for (unsigned i = 0; i < 600; i++) {
        unsigned *p;
        shared[i] = high(0);
        REQUIRE((p = quire_kmap_local(shared[i])) != NULL);
        p[0] = i;
        p[1] = ~i;
        quire_kunmap_local(p);
    }
    for (int round = 0; round < 3; round++) {
        for (uintptr_t i = 0; i < 4; i++)
            REQUIRE(pthread_create(&thread[i], NULL, map_some, (void *)(i + 1)) == 0);
        for (int i = 0; i < 4; i++)
            pthread_join(thread[i], NULL);
    }
    /* Windows go with the heap of a thread, and heaps to the next thread of the same node. */
    const char *conf = getenv("QUIRE_CONF");
    unsigned left = conf != NULL && strstr(conf, "numa_fake") != NULL ? 12 : 4;
    CHECK(quire_page_count(shared[0]) <= 1 + left, "%u", quire_page_count(shared[0]));
    for (int i = 1; i < 600; i++) {
        CHECK(quire_page_count(shared[i]) == 1);
        quire_put_page(shared[i]);
    }
}

/* What handlers look up, and what they do with windows of their own. */
static struct quire_page *looked_up, *of_handler;
static char *looked_up_at;
static _Atomic int handled, wrong;

static void look_up(int number)
{
    int saved = errno;

    wrong += quire_page_address(looked_up) != looked_up_at;
    wrong += quire_virt_to_page(looked_up_at) != looked_up;
    int *p = quire_kmap_local(of_handler);
    if (p != NULL) {
        *p = -1;
        quire_kunmap_local(p);
    } else {
        wrong += errno != EAGAIN;
    }
    handled++;
    errno = saved;
}

static void case_signals(void)
{
    struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    struct sigaction action = {.sa_handler = look_up};
    struct quire_page *page[2] = {high(0), high(0)};
    int *seen[2], local;

    looked_up = high(0);
    of_handler = high(0);
    REQUIRE((looked_up_at = quire_kmap(looked_up)) != NULL);
    for (int i = 0; i < 2; i++)
        REQUIRE((seen[i] = quire_kmap(page[i])) != NULL);
    REQUIRE(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (int i = 0; handled < 3000; i++) {
        struct quire_page *large = i % 64 == 0 ? high(QUIRE_MAX_ORDER) : high(0);
        REQUIRE(quire_kmap(large) != NULL);
        CHECK(quire_virt_to_page(&local) == NULL && quire_page_address(looked_up) == looked_up_at);
        quire_kunmap(large);
        quire_put_page(large);
        int *p = quire_kmap_local(page[i % 2]);
        REQUIRE(p != NULL);
        *p = i;
        REQUIRE(*seen[i % 2] == i, "another page was written to");
        quire_kunmap_local(p);
        REQUIRE(quire_page_count(page[0]) == 2 && quire_page_count(page[1]) == 2);
    }
    REQUIRE(setitimer(ITIMER_REAL, &never, NULL) == 0);
    CHECK(wrong == 0, "%d", wrong);
    CHECK(quire_page_count(of_handler) == 1);
}

static const struct conform_case cases[] = {
    {"kmap", case_kmap, 0},
    {"kmap_local", case_local, 0},
    {"fixmap", case_fixmap, 0},
    {"ordinary pages", case_ordinary_pages, 0},
    {"vmap", case_vmap, 0},
    {"vmalloc", case_vmalloc, 0},
    {"more memory than addresses", case_more_than_addresses, 0},
    {"another process", case_another_process, 0},
    {"fork", case_fork, 0},
    {"a file that was closed", case_closed_file, 0},
    {"secrets", case_secret, 0},
    {"threads", case_threads, 0},
    {"signals", case_signals, 60},
};

int main(int argc, char **argv)
{
    return conform_run(cases, sizeof(cases) / sizeof(cases[0]), argc, argv);
}
