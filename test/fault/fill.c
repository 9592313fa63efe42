/*
 * fill.c - allocates until there is no more, and shows that nothing was lost and all comes back.
 *
 *   fill MODE LEAST
 *
 * MODE is small (100 bytes), medium (10,000), large (1,000,000), huge (20,000,000), mixed, or maps:
 * mixed sizes in a process that has used up its mappings. LEAST is how many bytes have to be had.
 * Exit status 0: all is well; 1: it is not, with a line on stderr.
 */
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Blocks are chained through themselves, so that counting them takes no memory. */
struct head {
    struct head *next;
    size_t size;
    size_t mark;
};

static void fail(const char *what, size_t number)
{
    char text[200];
    int length = snprintf(text, sizeof(text), "fill: %s (%zu)\n", what, number);

    (void)!write(2, text, (size_t)length);
    _exit(1);
}

static size_t size_at(const char *mode, size_t i)
{
    static const size_t mixed[] = {100, 30, 5000, 70000, 400, 24, 300000, 1500, 2000000, 60};

    return mode[0] >= '0' && mode[0] <= '9' ? strtoul(mode, NULL, 10)
           : strcmp(mode, "small") == 0     ? 100
           : strcmp(mode, "medium") == 0    ? 10000
           : strcmp(mode, "large") == 0     ? 1000000
           : strcmp(mode, "huge") == 0      ? 20000000
                                            : mixed[i % (sizeof(mixed) / sizeof(mixed[0]))];
}

static struct head *fill(const char *mode, size_t cap, size_t *total)
{
    struct head *first = NULL;

    *total = 0;
    for (size_t i = 0; *total < cap; i++) {
        size_t size = size_at(mode, i);
        struct head *block;

        errno = 0;
        block = malloc(size);
        if (block == NULL) {
            if (errno != ENOMEM) {
                fail("NULL without ENOMEM", (size_t)errno);
            }
            break;
        }
        block->next = first;
        block->size = size;
        block->mark = i ^ (size_t)block;
        if (size > sizeof(*block)) {
            ((unsigned char *)block)[size - 1] = (unsigned char)i;
        }
        first = block;
        *total += size;
    }
    return first;
}

static void release(struct head *first, size_t blocks)
{
    size_t i = blocks;

    while (first != NULL) {
        struct head *next = first->next;

        i--;
        if (first->mark != (i ^ (size_t)first) ||
            (first->size > sizeof(*first) &&
             ((unsigned char *)first)[first->size - 1] != (unsigned char)i)) {
            fail("a block was overwritten", first->size);
        }
        free(first);
        first = next;
    }
}

static size_t count(const struct head *first)
{
    size_t number = 0;

    for (; first != NULL; first = first->next) {
        number++;
    }
    return number;
}

/* Blocks that shrink when there is no memory left, and the lengths that they shrink to. */
static const char *const lengths[] = {"7000", "4100", "700", "70"};
#define NR_LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static unsigned char *shrinking[NR_LENGTHS];

static void make_shrinking(void)
{
    for (size_t i = 0; i < NR_LENGTHS; i++) {
        size_t size = 4 * size_at(lengths[i], 0);

        shrinking[i] = malloc(size);
        if (shrinking[i] == NULL) {
            fail("nothing to be had at the start", size);
        }
        memset(shrinking[i], (int)i + 1, size);
    }
}

/* It succeeds, and says nothing else: not even errno. */
static void shrink_all(size_t cap)
{
    struct head *rest[NR_LENGTHS];
    size_t total;

    for (size_t i = 0; i < NR_LENGTHS; i++) {
        rest[i] = fill(lengths[i], cap, &total);
    }
    for (size_t i = 0; i < NR_LENGTHS; i++) {
        size_t size = size_at(lengths[i], 0);

        errno = 0;
        unsigned char *p = realloc(shrinking[i], size);
        if (p == NULL) {
            fail("a block cannot shrink", size);
        }
        if (errno != 0) {
            fail("a block shrank, but errno was set", (size_t)errno);
        }
        for (size_t k = 0; k < size; k++) {
            if (p[k] != i + 1) {
                fail("a block lost its content when it shrank", size);
            }
        }
        free(p);
    }
    for (size_t i = 0; i < NR_LENGTHS; i++) {
        release(rest[i], count(rest[i]));
    }
}

/* Every second page gets other rights than its neighbour, until the kernel allows no more. */
static void use_up_mappings(void)
{
    for (;;) {
        char *pages = mmap(NULL, 256 * 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (pages == MAP_FAILED) {
            return;
        }
        for (size_t i = 0; i < 256; i++) {
            if (mprotect(pages + i * 8192, 4096, PROT_READ | PROT_WRITE) != 0) {
                return;
            }
        }
    }
}

int main(int argc, char **argv)
{
    static const char done[] = "fill: done\n";
    /* Without a limit a machine's whole memory would go: 2 GiB are enough to see. */
    size_t least, total, again, cap = (size_t)2 << 30;
    struct head *first;

    if (argc != 3) {
        fprintf(stderr, "usage: fill small|medium|large|huge|mixed|maps LEAST\n");
        return 2;
    }
    least = strtoul(argv[2], NULL, 10);
    make_shrinking();
    if (strcmp(argv[1], "maps") == 0) {
        cap = (size_t)64 << 20;
        use_up_mappings();
    }
    first = fill(argv[1], cap, &total);
    if (total < least) {
        fail("too little could be allocated", total);
    }
    shrink_all(total < cap ? cap : 0);
    /* Out of memory is a state to live with: freeing makes room again, for other sizes too. */
    release(first, count(first));
    malloc_trim(0);
    first = fill(argv[1], cap, &again);
    if (again < total - total / 8) {
        fail("freed memory cannot be had again", again);
    }
    release(first, count(first));
    first = fill("mixed", cap, &again);
    if (again < total / 2) {
        fail("freed memory cannot be had in other sizes", again);
    }
    release(first, count(first));
    (void)!write(1, done, sizeof(done) - 1);
    return 0;
}
