/*
 * cgroup.c - the option cgroup and a real memory controller (version 2).
 *
 * For test/vm, where this is root, alone, and cgroup2 is mounted; elsewhere the cases are skipped.
 * Every case makes a group and runs this program again in it, with what that one is to do; what
 * the kernel says of the group afterwards is what counts.
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/movable.h"
#include "quire/shrinker.h"

#define ROOT "/sys/fs/cgroup"
#define GROUP ROOT "/quire-memory"
#define INNER GROUP "/inner"
#define MIB ((size_t)1 << 20)
#define MAX (48 * MIB)
#define HUGE_MAX (192 * MIB) /* huge pages begin at 64 MiB */
#define PIECE ((size_t)64 << 10)

/* --- groups ----------------------------------------------------------------------------------- */

static bool write_file(const char *folder, const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

static bool read_file(const char *folder, const char *name, char *text, size_t size)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, size - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

static void set_bytes(const char *folder, const char *name, size_t bytes)
{
    char text[32];

    snprintf(text, sizeof(text), "%zu", bytes);
    REQUIRE(write_file(folder, name, text), "%s/%s, errno %d", folder, name, errno);
}

/* One of the lines "NAME NUMBER" of memory.events. */
static long events(const char *folder, const char *name)
{
    char text[512], line[32];

    REQUIRE(read_file(folder, "memory.events", text, sizeof(text)));
    snprintf(line, sizeof(line), "%s ", name);
    for (char *p = text; p != NULL && *p != '\0'; p = strchr(p, '\n') + 1)
        if (strncmp(p, line, strlen(line)) == 0)
            return atol(p + strlen(line));
    return -1;
}

static void remove_groups(void)
{
    rmdir(INNER);
    rmdir(GROUP);
}

/* An empty group, with one inside if that is wanted. */
static void make_groups(bool inner)
{
    char text[64];

    if (getuid() != 0 || access(ROOT "/cgroup.subtree_control", W_OK) != 0 ||
        !write_file(ROOT, "cgroup.subtree_control", "+memory"))
        conform_skip("no memory controller in " ROOT);
    remove_groups();
    REQUIRE(mkdir(GROUP, 0755) == 0 && read_file(GROUP, "memory.max", text, sizeof(text)));
    if (inner)
        REQUIRE(write_file(GROUP, "cgroup.subtree_control", "+memory") && mkdir(INNER, 0755) == 0);
}

/* Start this program in a group (NULL: where it is) with these options; its process. */
static pid_t start_in(const char *folder, const char *conf, const char *what)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    if (folder != NULL && !write_file(folder, "cgroup.procs", "0"))
        _exit(98);
    setenv("QUIRE_CONF", conf, 1);
    dup2(2, 1); /* its report is not ours */
    execl("/proc/self/exe", "cgroup", "--in", what, (char *)NULL);
    _exit(99);
}

/* Its wait status. */
static int run_in(const char *folder, const char *conf, const char *what)
{
    int status = -1;

    while (waitpid(start_in(folder, conf, what), &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static void not_killed(const char *folder)
{
    CHECK(events(folder, "oom") == 0 && events(folder, "oom_kill") == 0, "oom %ld, oom_kill %ld",
          events(folder, "oom"), events(folder, "oom_kill"));
}

/* --- what runs in a group --------------------------------------------------------------------- */

static void nap(void)
{
    struct timespec pause = {0, 20000000};

    nanosleep(&pause, NULL);
}

/* Blocks of a size, written, until there are no more; in a list. How many bytes they are. */
static size_t take_all(size_t size, size_t most, void **list)
{
    size_t got = 0;

    for (void **p; got < most && (p = malloc(size)) != NULL; got += size) {
        memset(p, 1, size);
        *p = *list;
        *list = p;
    }
    return got;
}

static void free_all(void *list)
{
    while (list != NULL) {
        void *next = *(void **)list;

        free(list);
        list = next;
    }
}

/* Everything there is, in blocks of each kind after those of another were freed. */
static int fill(size_t max, const size_t *sizes, size_t nr)
{
    for (size_t i = 0; i < nr; i++) {
        void *list = NULL;

        errno = 0;
        size_t got = take_all(sizes[i], SIZE_MAX, &list);
        if (errno != ENOMEM || got < max / 2 || got > max) {
            fprintf(stderr, "%zu bytes in blocks of %zu, errno %d\n", got, sizes[i], errno);
            return 1;
        }
        free_all(list);
    }
    return 0;
}

static int fill_small(void)
{
    static const size_t sizes[] = {200000, 100, 6 << 20, 5000, 40000, 1000000};

    return fill(MAX, sizes, COUNT_OF(sizes));
}

/* With less in between: what is freed first is in huge pages, of which parts are used again. */
static int fill_huge(void)
{
    static const size_t sizes[] = {5000, 20000, 1000, 300000};
    static char text[4096];
    void *list = NULL;

    take_all(sizes[0], HUGE_MAX * 3 / 4, &list);
    read_file("/proc/self", "smaps_rollup", text, sizeof(text));
    const char *at = strstr(text, "AnonHugePages:");
    if (at == NULL || strtoul(at + 14, NULL, 10) < 4 << 10) {
        fprintf(stderr, "no huge pages: %.30s\n", at != NULL ? at : "");
        return 5;
    }
    free_all(list);
    return fill(HUGE_MAX, sizes, COUNT_OF(sizes));
}

/* A cache under a lock that its callbacks only try. */
static struct cache {
    pthread_mutex_t lock;
    void *pieces;
    size_t bytes;
    _Atomic size_t given;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t count(void *arg)
{
    if (pthread_mutex_trylock(&cache.lock) != 0)
        return QUIRE_SHRINK_BUSY;
    size_t bytes = cache.bytes;
    pthread_mutex_unlock(&cache.lock);
    return bytes;
}

static size_t scan(void *arg, size_t bytes)
{
    size_t freed = 0;

    if (pthread_mutex_trylock(&cache.lock) != 0)
        return QUIRE_SHRINK_BUSY;
    for (void *p; freed < bytes && (p = cache.pieces) != NULL; freed += PIECE) {
        cache.pieces = *(void **)p;
        free(p);
    }
    cache.bytes -= freed;
    pthread_mutex_unlock(&cache.lock);
    cache.given += freed;
    return freed;
}

static bool fill_cache(size_t bytes)
{
    cache.bytes = take_all(PIECE, bytes, &cache.pieces);
    return cache.bytes >= bytes && quire_shrinker_register("cache", count, scan, NULL) != NULL;
}

/* What discardable runs and a cache hold makes room for what is wanted. */
static int make_room(void)
{
    quire_movable_t *h[16];
    void *list = NULL;
    int lost, nr_lost = 0;

    for (size_t i = 0; i < COUNT_OF(h); i++) {
        char *p;

        h[i] = quire_movable_alloc(MIB, QUIRE_MOVABLE_DISCARDABLE);
        if (h[i] == NULL || (p = quire_movable_pin(h[i], &lost)) == NULL)
            return 1;
        memset(p, 1, MIB);
        quire_movable_unpin(h[i]);
    }
    if (!fill_cache(20 * MIB))
        return 2;
    if (take_all(3000, 40 * MIB, &list) < 40 * MIB || cache.given < 10 * MIB)
        return 3;
    for (size_t i = 0; i < COUNT_OF(h); i++) {
        if (quire_movable_pin(h[i], &lost) == NULL)
            break; /* no room to have it again */
        nr_lost += lost;
        quire_movable_unpin(h[i]);
    }
    return nr_lost > 0 ? 0 : 4;
}

/* A cache that gives some while nothing allocates; 0 once it has. */
static int rest(size_t bytes, unsigned rounds)
{
    if (!fill_cache(bytes))
        return 2;
    for (unsigned i = 0; i < rounds && cache.given == 0; i++)
        nap();
    return cache.given > 0 ? 0 : 1;
}

/* Wait for memory again and again: in a group whose memory.high is far below this. */
static void stall(void)
{
    for (;;) {
        void *list = NULL;

        take_all(200000, 20 * MIB, &list);
        free_all(list);
    }
}

static int inside(const char *what)
{
    if (strcmp(what, "fill") == 0)
        return fill_small();
    if (strcmp(what, "fill huge pages") == 0)
        return fill_huge();
    if (strcmp(what, "make room") == 0)
        return make_room();
    if (strcmp(what, "rest 17") == 0)
        return rest(17 * MIB, 1500);
    if (strcmp(what, "rest 1") == 0)
        return rest(MIB, 3000);
    if (strcmp(what, "rest 1, shortly") == 0)
        return rest(MIB, 150);
    if (strcmp(what, "stall") == 0)
        stall();
    return 97;
}

/* --- cases ------------------------------------------------------------------------------------ */

/* In a group of so much memory; then the groups are gone. */
static void succeeds_within(size_t max, const char *what)
{
    set_bytes(GROUP, "memory.max", max);
    int status = run_in(GROUP, "cgroup:auto", what);
    CHECK(status == 0, "wait status %#x", status);
    not_killed(GROUP);
    remove_groups();
}

static void enomem_and_not_the_oom_killer(void)
{
    make_groups(false);
    succeeds_within(MAX, "fill");
}

/* That the test tests something. */
static void without_the_option_it_is_killed(void)
{
    make_groups(false);
    set_bytes(GROUP, "memory.max", MAX);
    int status = run_in(GROUP, "", "fill");
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "wait status %#x", status);
    CHECK(events(GROUP, "oom_kill") == 1);
    remove_groups();
}

static void a_group_above_counts(void)
{
    make_groups(true);
    set_bytes(GROUP, "memory.max", MAX);
    set_bytes(INNER, "memory.max", 2 * MAX);
    int status = run_in(INNER, "cgroup:auto", "fill");
    CHECK(status == 0, "wait status %#x", status);
    not_killed(GROUP);
    /* By its name, from elsewhere: it is only the numbers that count. */
    status = run_in(NULL, "cgroup:" INNER, "fill");
    CHECK(status == 0, "wait status %#x", status);
    remove_groups();
}

static void huge_pages_stay_below_it(void)
{
    char text[256];
    const char *at;

    make_groups(false);
    read_file("/proc", "meminfo", text, sizeof(text));
    if ((at = strstr(text, "MemAvailable:")) == NULL ||
        strtoul(at + 13, NULL, 10) < (HUGE_MAX + 64 * MIB) >> 10 ||
        !read_file("/sys/kernel/mm/transparent_hugepage", "enabled", text, sizeof(text)) ||
        strstr(text, "[never]") != NULL) {
        remove_groups();
        conform_skip("huge pages are off, or there is little memory");
    }
    succeeds_within(HUGE_MAX, "fill huge pages");
}

static void caches_make_room(void)
{
    make_groups(false);
    succeeds_within(MAX, "make room");
}

static void memory_high_asks_for_caches(void)
{
    char now[32];

    make_groups(true);
    set_bytes(INNER, "memory.high", 18 * MIB);
    int status = run_in(INNER, "cgroup:auto,kswapd:1", "rest 17");
    CHECK(status == 0, "wait status %#x", status);
    /* The same by the group above; and nothing where there is room. */
    REQUIRE(write_file(INNER, "memory.high", "max"));
    set_bytes(GROUP, "memory.high", 18 * MIB);
    status = run_in(INNER, "cgroup:auto,kswapd:1", "rest 17");
    CHECK(status == 0, "wait status %#x", status);
    set_bytes(GROUP, "memory.high", 64 * MIB);
    status = run_in(INNER, "cgroup:auto,kswapd:1", "rest 1, shortly");
    CHECK(status == 0x100, "wait status %#x, memory.current %s", status,
          read_file(GROUP, "memory.current", now, sizeof(now)) ? now : "?");
    remove_groups();
}

static void pressure_asks_for_caches(void)
{
    char text[256];

    make_groups(true);
    if (!read_file(GROUP, "memory.pressure", text, sizeof(text)) || text[0] == '\0') {
        remove_groups();
        conform_skip("no memory.pressure (PSI)");
    }
    int status = run_in(NULL, "cgroup:" GROUP ",kswapd:1", "rest 1, shortly");
    CHECK(status == 0x100, "nobody waits: wait status %#x", status);
    set_bytes(INNER, "memory.high", 4 * MIB);
    pid_t pid = start_in(INNER, "", "stall");
    status = run_in(NULL, "cgroup:" GROUP ",kswapd:1", "rest 1");
    read_file(GROUP, "memory.pressure", text, sizeof(text));
    CHECK(status == 0, "wait status %#x, %s", status, text);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    remove_groups();
}

static const struct conform_case cases[] = {
    {"enomem_and_not_the_oom_killer", enomem_and_not_the_oom_killer, 120},
    {"without_the_option_it_is_killed", without_the_option_it_is_killed, 120},
    {"a_group_above_counts", a_group_above_counts, 120},
    {"huge_pages_stay_below_it", huge_pages_stay_below_it, 120},
    {"caches_make_room", caches_make_room, 120},
    {"memory_high_asks_for_caches", memory_high_asks_for_caches, 120},
    {"pressure_asks_for_caches", pressure_asks_for_caches, 120},
};

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--in") == 0)
        return inside(argv[2]);
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
