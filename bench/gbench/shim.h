/*
 * shim: Google Benchmark for C. A benchmark is a C function that does operations in batches until
 * it is told that it has done enough:
 *
 *     static void pair(struct shim *shim, size_t size)
 *     {
 *         for (size_t n; (n = shim_next(shim));)
 *             while (n--)
 *                 free(malloc(size));
 *     }
 *
 * Times are per operation. A batch is counted by one call into C++, so that this call costs the
 * single operation next to nothing.
 */
#ifndef BENCH_SHIM_H
#define BENCH_SHIM_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shim;

typedef void shim_function(struct shim *shim, size_t argument);

/* Operations to do now, a multiple of `unit` (see shim_register); 0: it is over. */
size_t shim_next(struct shim *shim);

/* Number of this thread, from 0, among those that run the function at the same time. */
int shim_thread(const struct shim *shim);

/*
 * Run `function` under this name. Operations come in multiples of `unit`; with threads > 0 in so
 * many threads, and the times are then elapsed times.
 */
void shim_register(const char *name, shim_function *function, size_t argument, size_t unit,
                   int threads);

/* Everything registered, as the arguments say; the exit status. */
int shim_main(int argc, char **argv);

#ifdef __cplusplus
}
#endif

#endif
