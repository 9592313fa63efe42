/* layers.h - what the parts of the program `layers` share. */
#ifndef BENCH_LAYERS_H
#define BENCH_LAYERS_H

#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "shim.h"

/* Their benchmarks, by shim_register. */
void register_zone(void);
void register_slab(void);

/* One benchmark HABIT-ARGUMENT for each; a 0 ends them, but not as the first. */
void each(const char *habit, shim_function *function, const size_t *arguments, size_t unit);

/* Inline: between calls that are measured. */
static inline void check(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "layers: %s\n", what);
        _exit(1);
    }
}

#endif
