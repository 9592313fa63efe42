/*
 * workload.c - allocates in every way while system calls fail, and believes nothing.
 *
 *   workload NULLS [fork]
 *
 * A call may succeed or return NULL with ENOMEM; in either case all blocks that were there before
 * must keep their contents. At most NULLS calls may fail (-1: any number), so that one failed
 * system call is seen to do no lasting harm. Exit status 0: all is well; 1: it is not, with a line
 * on stderr.
 */
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "quire/heap.h"
#include "quire/slab.h"

struct block {
    unsigned char *address;
    size_t size;
    unsigned char seed;
};

static _Atomic long nulls;

static void fail(const char *what, size_t size)
{
    char text[200];
    int length = snprintf(text, sizeof(text), "workload: %s (size %zu)\n", what, size);

    (void)!write(2, text, (size_t)length);
    _exit(1);
}

/*
 * The first and last bytes, one in every page of the first 512 KiB, and one in every 16 pages behind
 * that, carry the block's mark.
 */
static size_t step(size_t i, size_t size)
{
    return i < 64 && size - i > 128 ? 1 : i < 512u << 10 ? 4096 : 65536;
}

static void mark(struct block *b)
{
    for (size_t i = 0; i < b->size; i += step(i, b->size)) {
        b->address[i] = (unsigned char)(b->seed + i);
    }
    b->address[b->size - 1] = b->seed;
}

static void check(const struct block *b, size_t size)
{
    for (size_t i = 0; i < size; i += step(i, b->size)) {
        if (b->address[i] != (unsigned char)(b->seed + i) && i != b->size - 1) {
            fail("a block was overwritten", b->size);
        }
    }
    if (size == b->size && b->address[size - 1] != b->seed) {
        fail("a block's end was overwritten", b->size);
    }
}

static void count_null(size_t size)
{
    if (errno != ENOMEM) {
        fail("NULL without ENOMEM", size);
    }
    nulls++;
}

static void allocate(struct block *b, int form, size_t size)
{
    b->size = size;
    errno = 0;
    switch (form % 5) {
    case 0:
        b->address = calloc(1, size);
        if (b->address != NULL &&
            (b->address[0] != 0 || b->address[size / 2] != 0 || b->address[size - 1] != 0)) {
            fail("calloc gave dirty memory", size);
        }
        break;
    case 1:
        b->address = memalign((size_t)32 << form % 13, size);
        break;
    default:
        b->address = malloc(size);
    }
    if (b->address == NULL) {
        count_null(size);
    } else {
        mark(b);
    }
}

static void resize(struct block *b, size_t size)
{
    size_t common = b->size < size ? b->size : size;
    unsigned char *moved;

    errno = 0;
    moved = realloc(b->address, size);
    if (moved == NULL) {
        count_null(size);
        check(b, b->size);
        return;
    }
    b->address = moved;
    /* The last byte's mark moves with the size: what was in between must be there. */
    check(b, common > 1 ? common - 1 : 0);
    b->size = size;
    mark(b);
}

static void release(struct block *b)
{
    if (b->address != NULL) {
        check(b, b->size);
        errno = 1234;
        free(b->address);
        if (errno != 1234) {
            fail("free changed errno", b->size);
        }
        b->address = NULL;
    }
}

static size_t size_of(unsigned int i)
{
    static const size_t sizes[] = {
        24,   100,    48, 700,    3000,    16,  9000,    33000, 64,    200,      70000,
        1200, 300000, 40, 150000, 2500000, 500, 6000000, 80,    20000, 17000000, 128,
    };

    return sizes[i % (sizeof(sizes) / sizeof(sizes[0]))] + i % 13;
}

static void work(unsigned int seed, unsigned int count)
{
    struct block blocks[400] = {{NULL, 0, 0}};

    for (unsigned int i = 0; i < count; i++) {
        blocks[i].seed = (unsigned char)(seed + i);
        allocate(&blocks[i], (int)(i + seed), size_of(i));
        if (i >= 60 && i % 3 == 0) {
            release(&blocks[i - 60]);
        }
        if (i % 7 == 0 && blocks[i].address != NULL) {
            resize(&blocks[i], blocks[i].size * 2 + 100);
        }
        if (i % 11 == 0 && blocks[i].address != NULL) {
            resize(&blocks[i], blocks[i].size / 3 + 1);
        }
    }
    malloc_trim(0);
    for (unsigned int i = 0; i < count; i++) {
        if (blocks[i].address != NULL) {
            check(&blocks[i], blocks[i].size);
        }
    }
    for (unsigned int i = 0; i < count; i++) {
        release(&blocks[i]);
    }
}

/* What only quire has: looked up, since this program runs under any allocator. */
static struct {
    struct quire_cache *(*cache_create)(const char *name, size_t size, size_t align, unsigned flags,
                                        void (*ctor)(void *object));
    void *(*cache_alloc)(struct quire_cache *cache);
    void (*cache_free)(struct quire_cache *cache, void *object);
    int (*cache_destroy)(struct quire_cache *cache);
    struct quire_heap *(*heap_create)(const struct quire_heap_attr *attr);
    void *(*heap_alloc)(struct quire_heap *heap, size_t size);
    void (*heap_destroy)(struct quire_heap *heap);
} own;

static void look_up(void)
{
    *(void **)&own.cache_create = dlsym(RTLD_DEFAULT, "quire_cache_create");
    *(void **)&own.cache_alloc = dlsym(RTLD_DEFAULT, "quire_cache_alloc");
    *(void **)&own.cache_free = dlsym(RTLD_DEFAULT, "quire_cache_free");
    *(void **)&own.cache_destroy = dlsym(RTLD_DEFAULT, "quire_cache_destroy");
    *(void **)&own.heap_create = dlsym(RTLD_DEFAULT, "quire_heap_create");
    *(void **)&own.heap_alloc = dlsym(RTLD_DEFAULT, "quire_heap_alloc");
    *(void **)&own.heap_destroy = dlsym(RTLD_DEFAULT, "quire_heap_destroy");
}

/* Objects of a cache: what cannot be had is NULL, and the cache can be destroyed all the same. */
static void use_cache(size_t size, unsigned count)
{
    struct block objects[100];
    struct quire_cache *cache = own.cache_create("faults", size, 0, 0, NULL);

    if (cache == NULL) {
        count_null(size);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        objects[i] = (struct block){own.cache_alloc(cache), size, (unsigned char)i};
        if (objects[i].address == NULL) {
            count_null(size);
        } else {
            mark(&objects[i]);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        if (objects[i].address != NULL) {
            check(&objects[i], size);
            own.cache_free(cache, objects[i].address);
        }
    }
    if (own.cache_destroy(cache) != 0) {
        fail("a cache is not empty", size);
    }
}

static void use_heap(void)
{
    struct block blocks[30];
    struct quire_heap *heap = own.heap_create(NULL);

    if (heap == NULL) {
        count_null(0);
        return;
    }
    for (unsigned i = 0; i < 30; i++) {
        size_t size = size_of(i);

        blocks[i] = (struct block){own.heap_alloc(heap, size), size, (unsigned char)i};
        if (blocks[i].address == NULL) {
            count_null(size);
        } else {
            mark(&blocks[i]);
        }
    }
    for (unsigned i = 0; i < 30; i++) {
        if (blocks[i].address != NULL) {
            check(&blocks[i], blocks[i].size);
        }
    }
    own.heap_destroy(heap);
}

static void use_own(void)
{
    look_up();
    if (own.cache_create == NULL || own.heap_create == NULL) {
        return;
    }
    use_cache(200, 100);
    use_cache(100000, 6);
    use_heap();
}

static void *thread_body(void *seed)
{
    work((unsigned int)(uintptr_t)seed, 120);
    return NULL;
}

static void work_in_child(void)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        work(77, 150);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
        fail("the child ended badly", 0);
    }
}

int main(int argc, char **argv)
{
    static const char done[] = "workload: done\n";
    long allowed = argc > 1 ? atol(argv[1]) : -1;
    pthread_t threads[3];
    size_t started = 0;

    work(1, 400);
    use_own();
    while (started < 3 &&
           pthread_create(&threads[started], NULL, thread_body, (void *)(started * 50 + 3)) == 0) {
        started++;
    }
    work(2, 200);
    for (size_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
    }
    if (argc > 2) {
        work_in_child();
    }
    mallinfo2();
    malloc_trim(0);
    work(3, 200);
    if (allowed >= 0 && nulls > allowed) {
        fail("more calls failed than one failed system call explains", (size_t)nulls);
    }
    (void)!write(1, done, sizeof(done) - 1);
    return 0;
}
