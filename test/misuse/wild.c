/* wild.c - addresses that cannot be objects, by the thousand (see misuse.h). */
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "misuse.h"

/* In a 64-bit process, what a program may have; in a 32-bit one, everything. */
#define USER_END (UINTPTR_MAX > UINT32_MAX ? (uintptr_t)(1ull << 47) : UINTPTR_MAX)
#define NEAR_BY (UINTPTR_MAX > UINT32_MAX ? (uintptr_t)(1ull << 40) : (uintptr_t)1 << 30)

/* Odd addresses near live objects and everywhere else: none of them is an object's. */
void misuse_wildly(size_t count)
{
    enum { OBJECTS = 2000 };
    static unsigned char *objects[OBJECTS];
    uint64_t state = 1;

    for (size_t i = 0; i < OBJECTS; i++) {
        size_t size =
            16 + i * i % 3000 + (i % 100 == 0 ? 100000 : 0) + (i % 500 == 0 ? 9000000 : 0);

        objects[i] = live(size);
        memset(objects[i], (int)i, 16);
        objects[i][size - 1] = (unsigned char)i;
    }
    for (size_t i = 0; i < count; i++) {
        uintptr_t wild, object, pick;

        state = state * 6364136223846793005u + 1442695040888963407u;
        wild = state >> 3;
        object = (uintptr_t)objects[wild % OBJECTS];
        pick = wild / OBJECTS;
        switch (i % 6) {
        case 0:
            wild = object + pick % 131072 - 65536;
            break;
        case 1:
            wild = object + pick % 16;
            break;
        case 2:
            wild = object ^ (uintptr_t)1 << pick % (8 * sizeof(pick));
            break;
        case 3:
            wild %= USER_END;
            break;
        case 4:
            wild = (uintptr_t)objects[0] + wild % NEAR_BY - NEAR_BY / 2;
            break;
        default:
            break;
        }
        wild |= 1;
        if (i % 7 == 0) {
            if (realloc((void *)wild, 100) != NULL) {
                printf("realloc gave a block for %#zx\n", (size_t)wild);
            }
        } else if (i % 7 == 1) {
            if (malloc_usable_size((void *)wild) != 0) {
                printf("malloc_usable_size gave a size for %#zx\n", (size_t)wild);
            }
        } else {
            free((void *)wild);
        }
    }
    for (size_t i = 0; i < OBJECTS; i++) {
        for (size_t k = 0; k < 16; k++) {
            if (objects[i][k] != (unsigned char)i) {
                printf("object %zu was changed\n", i);
            }
        }
        free(objects[i]);
    }
}

void prove_heap(void)
{
    static unsigned char *blocks[4000];

    for (size_t i = 0; i < 4000; i++) {
        blocks[i] = must(malloc(1 + i % 2000 + (i % 400 == 0 ? 1000000 : 0)));
        blocks[i][0] = (unsigned char)i;
    }
    for (size_t i = 0; i < 4000; i++) {
        if (blocks[i][0] != (unsigned char)i) {
            printf("two blocks overlap\n");
        }
        free(blocks[i]);
    }
}
