/* pieces.c - see pieces.h. */
#include "pieces.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct cache cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

size_t count(void *arg)
{
    struct cache *c = arg;

    c->counts++;
    if (pthread_mutex_trylock(&c->lock) != 0)
        return QUIRE_SHRINK_BUSY;
    size_t bytes = c->nr * PIECE;
    pthread_mutex_unlock(&c->lock);
    return bytes;
}

size_t scan(void *arg, size_t bytes)
{
    struct cache *c = arg;
    size_t freed = 0;

    c->scans++;
    if (pthread_mutex_trylock(&c->lock) != 0)
        return QUIRE_SHRINK_BUSY;
    for (; c->nr > 0 && freed < bytes; freed += PIECE)
        free(c->piece[--c->nr]);
    pthread_mutex_unlock(&c->lock);
    c->given += freed;
    return freed;
}

void fill_cache(unsigned nr)
{
    while (cache.nr < nr) {
        char *p = malloc(PIECE);
        REQUIRE(p != NULL);
        memset(p, (int)cache.nr, PIECE);
        cache.piece[cache.nr++] = p;
    }
}

void run_with(const char *options, const char *name)
{
    int pid = fork();

    if (pid == 0) {
        setenv("QUIRE_CONF", options, 1);
        dup2(2, 1); /* its report is not ours */
        execl("/proc/self/exe", "shrink", name, (char *)NULL);
        _exit(99);
    }
    CHECK(conform_child_ok(pid, options));
}

void only_with(const char *option)
{
    if (!conform_has_option(option))
        conform_skip("run by another case");
}

void nap(void)
{
    struct timespec pause = {0, 20000000};

    nanosleep(&pause, NULL);
}
