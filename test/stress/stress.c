/* stress.c - see stress.h. */
#include "stress.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct stress stress;
_Atomic uint64_t stress_ops;
static uint64_t deadline;
static const char *program;

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void stress_start(int argc, char **argv, unsigned seconds, unsigned threads)
{
    program = strrchr(argv[0], '/') != NULL ? strrchr(argv[0], '/') + 1 : argv[0];
    stress.seconds = argc > 1 ? (unsigned)atoi(argv[1]) : seconds;
    stress.threads = argc > 2 ? (unsigned)atoi(argv[2]) : threads;
    stress.seed = argc > 3 ? strtoull(argv[3], NULL, 0) : now_ns();
    if (stress.seconds == 0 || stress.threads == 0 || stress.threads > 256) {
        fprintf(stderr, "usage: %s [SECONDS [THREADS (at most 256) [SEED]]]\n", program);
        exit(2);
    }
    printf("%s %u %u %llu\n", program, stress.seconds, stress.threads,
           (unsigned long long)stress.seed);
    fflush(stdout);
    deadline = now_ns() + stress.seconds * 1000000000ull;
    /* Should anything hang, the signal ends the program and the test fails. */
    alarm(stress.seconds * 10 + 400);
}

bool stress_over(void)
{
    return now_ns() >= deadline;
}

void stress_fail(const char *fmt, ...)
{
    char text[512];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text) - 1, fmt, ap);
    va_end(ap);
    n = n < 0 ? 0 : n < (int)sizeof(text) - 2 ? n : (int)sizeof(text) - 2;
    text[n] = '\n';
    if (write(2, text, (size_t)n + 1) < 0)
        _exit(3);
    abort();
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
long stress_resident(void)
{
    return 0;
}
#else
long stress_resident(void)
{
    long size, resident;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL || fscanf(f, "%ld %ld", &size, &resident) != 2)
        stress_fail("/proc/self/statm cannot be read");
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}
#endif

int stress_end(void)
{
    printf("%s: ok, %llu operations, %ld KB resident\n", program, (unsigned long long)stress_ops,
           stress_resident());
    return 0;
}

struct rng rng_for(uint64_t salt)
{
    return (struct rng){((stress.seed + salt) * 0x9e3779b97f4a7c15u) | 1};
}

uint64_t rng_next(struct rng *r)
{
    r->s ^= r->s >> 12;
    r->s ^= r->s << 25;
    r->s ^= r->s >> 27;
    return r->s * 0x2545f4914f6cdd1du;
}

size_t rng_below(struct rng *r, size_t n)
{
    return (size_t)((rng_next(r) >> 32) * n >> 32); /* n is below 4 Gi */
}

size_t random_size(struct rng *r)
{
    size_t kind = rng_below(r, 1000), n;

    if (kind < 600)
        n = rng_below(r, 256);
    else if (kind < 900)
        n = rng_below(r, 2048);
    else if (kind < 980)
        n = rng_below(r, 40000);
    else if (kind < 998)
        n = rng_below(r, 300000);
    else
        n = rng_below(r, 6000000);
    return n + sizeof(struct block);
}

static unsigned char pattern(uint64_t seed, size_t i)
{
    return (unsigned char)((seed + i * 0x9e37u) >> 5);
}

/* Every byte of small blocks, of large ones the ends and a byte here and there. */
static size_t step(size_t size, size_t i)
{
    return size <= 1024 || i < 256 || i + 256 > size ? 1 : size / 97 + 1;
}

static uint64_t check_of(const struct block *b)
{
    return (b->seed ^ b->size * 0x9e3779b97f4a7c15u) + (uintptr_t)b;
}

static void fill(struct block *b, struct rng *r, size_t size)
{
    unsigned char *p = (unsigned char *)b;

    b->size = size;
    b->seed = rng_next(r);
    b->next = NULL;
    b->check = check_of(b);
    for (size_t i = sizeof(*b); i < size; i += step(size, i))
        p[i] = pattern(b->seed, i);
    p[size - 1] = size > sizeof(*b) ? pattern(b->seed, size - 1) : p[size - 1];
}

static void check_to(const struct block *b, size_t from_size, size_t to)
{
    const unsigned char *p = (const unsigned char *)b;

    for (size_t i = sizeof(*b); i < to; i += step(from_size, i))
        if (p[i] != pattern(b->seed, i))
            stress_fail("block of %zu at %p: byte %zu is %#x instead of %#x", from_size,
                        (const void *)b, i, p[i], pattern(b->seed, i));
}

void block_check(const struct block *b)
{
    if (b->check != check_of(b) || b->size < sizeof(*b))
        stress_fail("block at %p: its head was overwritten", (const void *)b);
    check_to(b, b->size, b->size);
}

static void check_zero(const void *p, size_t n)
{
    const unsigned char *c = p;

    for (size_t i = 0; i < n; i += step(n, i))
        if (c[i] != 0)
            stress_fail("calloc(%zu) at %p: byte %zu is %#x", n, p, i, c[i]);
}

struct block *block_new(struct rng *r, size_t size)
{
    size_t kind = rng_below(r, 16), align = 16;
    void *p = NULL;

    switch (kind) {
    case 0:
    case 1:
        p = calloc(1, size);
        if (p != NULL)
            check_zero(p, size);
        break;
    case 2:
        align = (size_t)16 << rng_below(r, 9);
        p = aligned_alloc(align, size);
        break;
    case 3:
        align = (size_t)16 << rng_below(r, 4 + rng_below(r, 12));
        if (posix_memalign(&p, align, size) != 0)
            p = NULL;
        break;
    case 4:
        align = (size_t)16 << rng_below(r, 6);
        p = memalign(align, size);
        break;
    case 5:
        p = realloc(NULL, size);
        break;
    default:
        p = malloc(size);
    }
    if (p == NULL)
        stress_fail("no memory for %zu bytes", size);
    if (((uintptr_t)p & (align - 1)) != 0)
        stress_fail("%p is not a multiple of %zu", p, align);
    if (kind == 6) {
        size_t usable = malloc_usable_size(p);
        if (usable < size)
            stress_fail("%p has %zu usable bytes of %zu", p, usable, size);
        memset(p, 0xa5, usable);
    }
    fill(p, r, size);
    atomic_fetch_add_explicit(&stress_ops, 1, memory_order_relaxed);
    return p;
}

struct block *block_resize(struct rng *r, struct block *b, size_t size)
{
    block_check(b);
    struct block copy = *b;
    struct block *now = realloc(b, size);

    if (now == NULL)
        stress_fail("no memory for %zu bytes instead of %zu", size, copy.size);
    if (now->size != copy.size || now->seed != copy.seed || now->check != copy.check)
        stress_fail("realloc from %zu to %zu: the head changed", copy.size, size);
    check_to(now, copy.size, copy.size < size ? copy.size : size);
    fill(now, r, size);
    atomic_fetch_add_explicit(&stress_ops, 1, memory_order_relaxed);
    return now;
}

void block_free(struct block *b)
{
    block_check(b);
    b->check = 0;
    free(b);
    atomic_fetch_add_explicit(&stress_ops, 1, memory_order_relaxed);
}
