/*
 * broken: an allocator that is fast and wrong. Every 64th block overlaps the one before it. The
 * harness must make it fail in every workload; an allocator like this would otherwise win.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define ROOM (4UL << 30)

static unsigned char *start;
static unsigned char *next;
static unsigned long calls;
static int busy;

void *malloc(size_t size);
void free(void *block);
void *calloc(size_t count, size_t size);
void *realloc(void *block, size_t size);
void *memalign(size_t alignment, size_t size);
void *aligned_alloc(size_t alignment, size_t size);
int posix_memalign(void **block, size_t alignment, size_t size);

/* the size of a block lies in the 16 bytes before it */
static size_t *size_of(void *block)
{
    return (size_t *)(void *)((unsigned char *)block - 16);
}

static void *carve(size_t alignment, size_t size)
{
    unsigned char *block;

    while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE))
        ;
    if (!start) {
        start = mmap(NULL, ROOM, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        next = start;
    }
    if (start == MAP_FAILED || size > (size_t)(start + ROOM - next) / 2) {
        errno = ENOMEM;
        __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
        return NULL;
    }
    /* what makes it broken: this block begins before the last one has ended. No smaller than a
     * node of a tree, and not while the program is still starting. */
    if (++calls > 256 && calls % 64 == 0 && size >= 24 && (size < 4096 || size >= 32768))
        next -= 32;
    block = (unsigned char *)(((uintptr_t)next + 16 + alignment - 1) & ~(alignment - 1));
    next = (unsigned char *)(((uintptr_t)block + size + 15) & ~(uintptr_t)15);
    *size_of(block) = size;
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
    return block;
}

void *malloc(size_t size)
{
    return carve(16, size);
}

void free(void *block)
{
    (void)block;
}

void *calloc(size_t count, size_t size)
{
    void *block = carve(16, count * size);

    return block ? memset(block, 0, count * size) : NULL;
}

void *realloc(void *block, size_t size)
{
    void *moved = carve(16, size);

    if (block && moved)
        memcpy(moved, block, *size_of(block) < size ? *size_of(block) : size);
    return moved;
}

void *memalign(size_t alignment, size_t size)
{
    return carve(alignment < 16 ? 16 : alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    *block = memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}
