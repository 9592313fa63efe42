/*
 * misuse.c - does one wrong thing from cases.def, and says beforehand with which address.
 *
 *   misuse --list          the cases: name, function, what the message has to say
 *   misuse NAME            does it; prints "address 0x.." and, for an interior one, "object 0x.. S"
 *   misuse --wild COUNT    frees, resizes and measures COUNT addresses that cannot be objects
 *
 * Where the library goes on afterwards, the program proves that the heap still works, prints
 * "went on" and exits with 0.
 */
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "misuse.h"

static char static_block[256] __attribute__((aligned(64)));
static __thread char thread_local_block[64];

int main(int argc, char **argv);

/* Output goes out before anything is misused, whatever becomes of the process then. */
static void *noted(void *address)
{
    printf("address %p\n", address);
    fflush(stdout);
    return address;
}

void *must(void *block)
{
    if (block == NULL) {
        fprintf(stderr, "misuse: out of memory\n");
        exit(3);
    }
    return block;
}

static void *named_function(const char *name)
{
    void *function = dlsym(RTLD_DEFAULT, name);

    if (function == NULL) {
        fprintf(stderr, "misuse: no %s in this process\n", name);
        exit(3);
    }
    return function;
}

/* Ways to call. */
static void call_free(void *address)
{
    free(noted(address));
}

static void call_realloc(void *address, size_t size)
{
    if (realloc(noted(address), size) != NULL) {
        printf("realloc gave a block for it\n");
    }
}

static void call_reallocarray(void *address, size_t count, size_t size)
{
    if (reallocarray(noted(address), count, size) != NULL) {
        printf("reallocarray gave a block for it\n");
    }
}

static void call_usable_size(void *address)
{
    if (malloc_usable_size(noted(address)) != 0) {
        printf("malloc_usable_size gave a size for it\n");
    }
}

static void call_named(const char *name, void *address)
{
    void (*function)(void *) = (void (*)(void *))named_function(name);

    function(noted(address));
}

static void call_free_sized(void *address, size_t size)
{
    void (*function)(void *, size_t) = (void (*)(void *, size_t))named_function("free_sized");

    function(noted(address), size);
}

static void call_free_aligned_sized(void *address, size_t alignment, size_t size)
{
    void (*function)(void *, size_t, size_t) =
        (void (*)(void *, size_t, size_t))named_function("free_aligned_sized");

    function(noted(address), alignment, size);
}

/* Ways to get an address. */
static void *stack_address(void)
{
    static char *volatile kept;
    char local[64] __attribute__((aligned(64)));

    kept = local;
    return kept;
}

static void *mapping(size_t pages)
{
    void *p = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? must(NULL) : p;
}

static void *unmapped(void)
{
    void *p = mapping(16);

    munmap(p, 16 * 4096);
    return p;
}

static void *inaccessible(void)
{
    void *p = mapping(16);

    mprotect(p, 16 * 4096, PROT_NONE);
    return p;
}

void *live(size_t size)
{
    return must(malloc(size));
}

static void *live_aligned(size_t alignment, size_t size)
{
    return must(memalign(alignment, size));
}

#if UINTPTR_MAX > UINT32_MAX
#define USER_BITS 48
#define KERNEL_ADDRESS 0xffff888000000000u
#define NOBODYS_ADDRESS 0x0000900000001000u /* not canonical */
#else
#define USER_BITS 32
#define KERNEL_ADDRESS 0xfffff010u
#define NOBODYS_ADDRESS 0xffff9008u
#endif

static void *tagged(uintptr_t tag)
{
    return (void *)((uintptr_t)live(100) | tag << (8 * sizeof(tag) - 8));
}

/* A bit of those that an address has, counted from the highest. */
static void *flipped(int bit)
{
    return (void *)((uintptr_t)live(100) ^ (uintptr_t)1 << (USER_BITS - 1 - bit));
}

static void *noted_object(void *object, size_t size)
{
    printf("object %p %zu\n", object, size);
    return object;
}

static void *inside(size_t size, size_t offset)
{
    return (char *)noted_object(live(size), size) + offset;
}

static void *inside_aligned(size_t alignment, size_t size, size_t offset)
{
    return (char *)noted_object(live_aligned(alignment, size), size) + offset;
}

/* An object's place in a slab that nobody has had: `further` places behind a fresh one. */
static void *never_handed_out(size_t size, size_t further)
{
    char *p = NULL;

    for (int i = 0; i < 3; i++) {
        p = live(size);
    }
    return p + further * malloc_usable_size(p);
}

static void *freed(size_t size)
{
    void *p = live(size);

    free(p);
    return p;
}

static void *freed_calloc(size_t count, size_t size)
{
    void *p = must(calloc(count, size));

    free(p);
    return p;
}

static void *inside_freed(size_t size, size_t offset)
{
    return (char *)freed(size) + offset;
}

static void *moved_by_realloc(size_t from, size_t to)
{
    void *p = live(from), *neighbour = live(from), *q = must(realloc(p, to));

    if (q == p || neighbour == NULL) {
        fprintf(stderr, "misuse: realloc from %zu to %zu did not move\n", from, to);
        exit(3);
    }
    return p;
}

static void *realloced_to_zero(size_t size)
{
    void *p = live(size);
    volatile size_t zero = 0;

    if (realloc(p, zero) != NULL) {
        fprintf(stderr, "misuse: realloc(p, 0) gave a block\n");
        exit(3);
    }
    return p;
}

/* Whole stories. */
static void free_twice(size_t size)
{
    call_free(freed(size));
}

static void free_aligned_twice(size_t alignment, size_t size)
{
    void *p = live_aligned(alignment, size);

    free(p);
    call_free(p);
}

/* Other objects of the size stay alive around it, others are freed between the two. */
static void free_twice_after(size_t size, size_t others)
{
    void **before = must(calloc(others, sizeof(*before)));
    void **after = must(calloc(others, sizeof(*after)));
    void *p;

    for (size_t i = 0; i < others; i++) {
        before[i] = live(size);
    }
    p = live(size);
    for (size_t i = 0; i < others; i++) {
        after[i] = live(size);
    }
    free(p);
    for (size_t i = 0; i < others; i += 2) {
        free(before[i]);
        free(after[i]);
    }
    call_free(p);
}

static void free_twice_in_emptied(size_t size)
{
    enum { OBJECTS = 5000 };
    static void *objects[OBJECTS];

    for (size_t i = 0; i < OBJECTS; i++) {
        objects[i] = live(size);
    }
    for (size_t i = 0; i < OBJECTS; i++) {
        free(objects[i]);
    }
    call_free(objects[OBJECTS / 2]);
}

static void free_twice_in_full(size_t size)
{
    enum { OBJECTS = 5000 };
    static void *objects[OBJECTS];

    for (size_t i = 0; i < OBJECTS; i++) {
        objects[i] = live(size);
    }
    free(objects[OBJECTS / 2]);
    call_free(objects[OBJECTS / 2]);
}

static void free_twice_after_trim(size_t size)
{
    void *p = freed(size);

    malloc_trim(0);
    call_free(p);
}

static void *free_body(void *block)
{
    free(block);
    return NULL;
}

/* A thread that has everything it needs before anything is freed: the C library allocates for a
   new thread, and could be given the very object that is to be freed twice. */
static sem_t turn;

static void *noted_free_body(void *block)
{
    sem_wait(&turn);
    call_free(block);
    return NULL;
}

static void *free_twice_body(void *block)
{
    free(block);
    call_free(block);
    return NULL;
}

static void *malloc_body(void *size)
{
    return live((size_t)size);
}

static void *in_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;
    void *result;

    if (pthread_create(&thread, NULL, body, argument) != 0 || pthread_join(thread, &result) != 0) {
        fprintf(stderr, "misuse: no thread\n");
        exit(3);
    }
    return result;
}

static void free_there_and_here(size_t size)
{
    void *p = live(size);

    in_thread(free_body, p);
    call_free(p);
}

static void free_here_and_there(size_t size)
{
    void *p = live(size);
    pthread_t thread;

    sem_init(&turn, 0, 0);
    if (pthread_create(&thread, NULL, noted_free_body, p) != 0) {
        fprintf(stderr, "misuse: no thread\n");
        exit(3);
    }
    free(p);
    sem_post(&turn);
    pthread_join(thread, NULL);
}

/* Its slab stays: others of the size are alive, and one more is free. */
static void free_here_and_there_among_others(size_t size)
{
    void *others[20];

    for (size_t i = 0; i < 20; i++) {
        others[i] = live(size);
    }
    free(others[5]);
    free_here_and_there(size);
}

static void *free_and_wait_body(void *block)
{
    free(block);
    sem_post(&turn);
    pause();
    return NULL;
}

/* The thread that freed it first is still there, and may be about to send it home. */
static void free_there_and_here_meanwhile(size_t size)
{
    void *p = live(size), *neighbour = live(size);
    pthread_t thread;

    sem_init(&turn, 0, 0);
    if (neighbour == NULL || pthread_create(&thread, NULL, free_and_wait_body, p) != 0) {
        fprintf(stderr, "misuse: no thread\n");
        exit(3);
    }
    sem_wait(&turn);
    call_free(p);
}

static void free_there_what_was_never_handed_out(size_t size)
{
    pthread_t thread;

    sem_init(&turn, 0, 0);
    if (pthread_create(&thread, NULL, noted_free_body, never_handed_out(size, 1)) != 0) {
        fprintf(stderr, "misuse: no thread\n");
        exit(3);
    }
    sem_post(&turn);
    pthread_join(thread, NULL);
}

static void free_there_twice(size_t size)
{
    in_thread(free_twice_body, live(size));
}

static void free_legacy_twice(size_t size)
{
    void *p = in_thread(malloc_body, (void *)size);

    free(p);
    call_free(p);
}

struct misuse {
    const char *name, *function, *kinds;
    void (*run)(void);
};

/* Each line becomes a function, named by its line number... */
#define CASE_FUNCTION(line) case_at_line_##line
#define CASE_NAME(line) CASE_FUNCTION(line)
#define CASE(name, function, kinds, what)                                                          \
    static void CASE_NAME(__LINE__)(void)                                                          \
    {                                                                                              \
        what;                                                                                      \
    }
#include "cases.def"
#undef CASE

/* ...and a row of this table. */
static const struct misuse table[] = {
#define CASE(name, function, kinds, what) {name, function, kinds, CASE_NAME(__LINE__)},
#include "cases.def"
#undef CASE
};

int main(int argc, char **argv)
{
    static char output[4096];

    /* A buffer that stdio allocated later would take the place of what was freed. */
    setvbuf(stdout, output, _IOFBF, sizeof(output));
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
            printf("%s\t%s\t%s\n", table[i].name, table[i].function, table[i].kinds);
        }
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "--wild") == 0) {
        misuse_wildly((size_t)atol(argv[2]));
        prove_heap();
        printf("went on\n");
        return 0;
    }
    for (size_t i = 0; argc == 2 && i < sizeof(table) / sizeof(table[0]); i++) {
        if (strcmp(table[i].name, argv[1]) == 0) {
            table[i].run();
            prove_heap();
            printf("went on\n");
            return 0;
        }
    }
    fprintf(stderr, "usage: misuse --list | misuse --wild COUNT | misuse NAME\n");
    return 2;
}
