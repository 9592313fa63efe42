/*
 * What the workloads share; see common.h.
 */
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "%s: ", program_invocation_short_name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    /* the heap may be broken: no destructors, no flushing of what it holds */
    _exit(1);
}

void *must_alloc(size_t size)
{
    void *object = malloc(size);

    if (!object)
        fail("malloc(%zu) returned NULL", size);
    if ((uintptr_t)object % (size < 16 ? 8 : 16))
        fail("malloc(%zu) returned %p, which is not aligned", size, object);
    return object;
}

/* word i of a pattern; cheap enough to vectorise, different for every key and every word */
static inline uint64_t pattern_word(uint64_t key, size_t i)
{
    return key + i * 0x9e3779b97f4a7c15ULL;
}

void pattern_write(void *object, size_t size, uint64_t key)
{
    unsigned char *bytes = object;
    size_t words = size / 8;

    key = mix64(key + size);
    for (size_t i = 0; i < words; i++) {
        uint64_t word = pattern_word(key, i);

        memcpy(bytes + i * 8, &word, 8);
    }
    if (size % 8) {
        uint64_t word = pattern_word(key, words);

        memcpy(bytes + words * 8, &word, size % 8);
    }
}

void pattern_check(const void *object, size_t size, uint64_t key)
{
    const unsigned char *bytes = object;
    size_t words = size / 8;
    uint64_t wrong = 0;

    key = mix64(key + size);
    for (size_t i = 0; i < words; i++) {
        uint64_t word;

        memcpy(&word, bytes + i * 8, 8);
        wrong |= word ^ pattern_word(key, i);
    }
    if (size % 8) {
        uint64_t want = pattern_word(key, words);

        wrong |= (uint64_t)(memcmp(bytes + words * 8, &want, size % 8) != 0);
    }
    if (wrong)
        fail("the %zu bytes at %p are not what was written there", size, object);
}

void object_make(struct object *object, size_t size, uint32_t key)
{
    object->at = must_alloc(size);
    object->size = (uint32_t)size;
    object->key = key;
    pattern_write(object->at, size, key);
}

void object_drop(struct object *object)
{
    pattern_check(object->at, object->size, object->key);
    free(object->at);
    object->at = NULL;
}

unsigned long argument(int argc, char **argv, int i, unsigned long fallback, unsigned long low,
                       unsigned long high, const char *usage)
{
    char *end;
    unsigned long value;

    if (i >= argc)
        return fallback;
    errno = 0;
    value = strtoul(argv[i], &end, 10);
    if (errno || *end || end == argv[i] || argv[i][0] == '-' || value < low || value > high) {
        fprintf(stderr,
                "%s: argument %d must be a number from %lu to %lu, not \"%s\"\nusage: %s %s\n",
                program_invocation_short_name, i, low, high, argv[i], program_invocation_short_name,
                usage);
        exit(2);
    }
    return value;
}

/* "Name:    123 kB" at the start of a line of text; -1 where it is absent */
static long kb_field(const char *text, const char *name)
{
    size_t length = strlen(name);

    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n')
            line++;
        if (!strncmp(line, name, length) && line[length] == ':')
            return strtol(line + length + 1, NULL, 10);
    }
    return -1;
}

void resident_now(struct resident *now)
{
    static char text[4096];
    size_t used = 0;
    int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        fail("/proc/self/smaps_rollup: %s (needs Linux 4.14)", strerror(errno));
    for (;;) {
        ssize_t got = read(fd, text + used, sizeof(text) - 1 - used);

        if (got < 0)
            fail("/proc/self/smaps_rollup: %s", strerror(errno));
        if (got == 0)
            break;
        used += (size_t)got;
    }
    close(fd);
    text[used] = 0;
    now->rss_kb = kb_field(text, "Rss");
    now->pss_kb = kb_field(text, "Pss");
    now->anon_kb = kb_field(text, "Anonymous");
    if (now->rss_kb < 0 || now->pss_kb < 0 || now->anon_kb < 0)
        fail("/proc/self/smaps_rollup has no Rss, Pss or Anonymous line");
}

double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void pause_for(double seconds)
{
    struct timespec left = {
        .tv_sec = (time_t)seconds,
        .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9),
    };

    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}
