/* early_lib.c - allocates in a library's first constructor, and in its last destructor. */
#include "early_lib.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 100 };
static unsigned char *blocks[BLOCKS];

__attribute__((constructor(101))) static void first_constructor(void)
{
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = calloc((size_t)i + 1, 50);
        if (blocks[i] != NULL) {
            memset(blocks[i], i, ((size_t)i + 1) * 50);
        }
    }
}

__attribute__((destructor(101))) static void last_destructor(void)
{
    free(malloc(1000));
    for (int i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

int early_lib_check(void)
{
    int bad = 0;

    for (int i = 0; i < BLOCKS; i++) {
        size_t size = ((size_t)i + 1) * 50;

        bad += blocks[i] == NULL || blocks[i][0] != i ||
               memcmp(blocks[i], blocks[i] + 1, size - 1) != 0;
    }
    return bad;
}
