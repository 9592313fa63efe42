/* misuse.h - what the parts of the misuse program share. */
#ifndef MISUSE_H
#define MISUSE_H

#include <stddef.h>

/* Passes a block on; ends the program where there is none. */
void *must(void *block);

/* A new object of that size. */
void *live(size_t size);

/* Frees, resizes and measures addresses that are no objects, and checks that nothing changed. */
void misuse_wildly(size_t count);

/* What a program that goes on has a right to: a heap that works. */
void prove_heap(void);

#endif
