/*
 * load.c - the library loaded at run time with dlopen, into a program whose malloc is another.
 *
 * CONFORM_LIBRARY names the library. This program is not run under preload;
 * CONFORM_EXPECT is "quire-later" here, because quire serves it only from then on.
 */
#include "conform.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct functions {
    void *(*malloc)(size_t);
    void *(*realloc)(void *, size_t);
    void *(*calloc)(size_t, size_t);
    void (*free)(void *);
    size_t (*malloc_usable_size)(void *);
};

static void *open_library(int flags, struct functions *f)
{
    const char *path = getenv("CONFORM_LIBRARY");
    void *handle;

    if (path == NULL) {
        conform_skip("CONFORM_LIBRARY does not say which library to load");
    }
    handle = dlopen(path, flags);
    REQUIRE(handle != NULL, "dlopen: %s", dlerror());
    f->malloc = (void *(*)(size_t))dlsym(handle, "malloc");
    f->realloc = (void *(*)(void *, size_t))dlsym(handle, "realloc");
    f->calloc = (void *(*)(size_t, size_t))dlsym(handle, "calloc");
    f->free = (void (*)(void *))dlsym(handle, "free");
    f->malloc_usable_size = (size_t(*)(void *))dlsym(handle, "malloc_usable_size");
    REQUIRE(f->malloc != NULL && f->realloc != NULL && f->calloc != NULL && f->free != NULL &&
            f->malloc_usable_size != NULL);
    return handle;
}

static void exercise(const struct functions *f)
{
    void *blocks[300];

    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        size_t size = (size_t)3 << (i % 19);

        blocks[i] = i % 2 == 0 ? f->malloc(size) : f->calloc(1, size);
        REQUIRE(blocks[i] != NULL);
        CHECK(f->malloc_usable_size(blocks[i]) >= size);
        conform_fill(blocks[i], size, (unsigned int)i);
    }
    for (size_t i = 0; i < COUNT_OF(blocks); i++) {
        size_t size = (size_t)3 << (i % 19);

        CHECK(conform_intact(blocks[i], size, (unsigned int)i));
        blocks[i] = f->realloc(blocks[i], size / 2 + 1);
        REQUIRE(blocks[i] != NULL);
        CHECK(conform_intact(blocks[i], size / 2 + 1, (unsigned int)i));
        f->free(blocks[i]);
    }
}

static void *thread_body(void *functions)
{
    exercise(functions);
    return NULL;
}

static void *older_thread(void *ends)
{
    /* Started before the library was loaded: its part of the static TLS has to work here too. */
    struct functions *f = NULL;

    if (read(((int *)ends)[0], &f, sizeof(f)) == (ssize_t)sizeof(f) && f != NULL) {
        exercise(f);
    }
    return NULL;
}

static void load_and_use(int flags)
{
    struct functions f, *pf = &f;
    pthread_t older, newer;
    void *before = malloc(1000), *handle;
    int ends[2];

    REQUIRE(before != NULL && pipe(ends) == 0);
    REQUIRE(pthread_create(&older, NULL, older_thread, ends) == 0);
    handle = open_library(flags, &f);
    exercise(&f);
    REQUIRE(pthread_create(&newer, NULL, thread_body, &f) == 0);
    REQUIRE(write(ends[1], &pf, sizeof(pf)) == (ssize_t)sizeof(pf));
    pthread_join(newer, NULL);
    pthread_join(older, NULL);
    /* What the other malloc gave is still the other malloc's. */
    free(before);
    free(malloc(5000));
    CHECK(dlclose(handle) == 0);
    if (conform_expects_quire()) {
        void *kept = f.malloc(500);

        /* The library stays: blocks of it may be anywhere in the program. */
        REQUIRE(kept != NULL);
        conform_fill(kept, 500, 3);
        exercise(&f);
        CHECK(conform_intact(kept, 500, 3));
        f.free(kept);
    }
}

static void case_now_local(void)
{
    load_and_use(RTLD_NOW | RTLD_LOCAL);
}

static void case_lazy_global(void)
{
    load_and_use(RTLD_LAZY | RTLD_GLOBAL);
}

static void case_deepbind(void)
{
    load_and_use(RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
}

static void case_again_and_again(void)
{
    for (int i = 0; i < 50; i++) {
        struct functions f;
        void *handle = open_library(RTLD_NOW, &f);

        f.free(f.malloc((size_t)i * 1000));
        CHECK(dlclose(handle) == 0);
    }
}

static void case_fork_after_load(void)
{
    struct functions f;
    pid_t pid;

    open_library(RTLD_NOW, &f);
    exercise(&f);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        exercise(&f);
        conform_end();
    }
    CHECK(conform_child_ok(pid, "a child after dlopen"));
}

static const struct conform_case cases[] = {
    {"dlopen RTLD_NOW, RTLD_LOCAL", case_now_local, 0},
    {"dlopen RTLD_LAZY, RTLD_GLOBAL", case_lazy_global, 0},
    {"dlopen RTLD_DEEPBIND", case_deepbind, 0},
    {"dlopen and dlclose 50 times", case_again_and_again, 0},
    {"fork after dlopen", case_fork_after_load, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
