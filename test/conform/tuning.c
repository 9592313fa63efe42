/* tuning.c - malloc_trim, mallinfo, mallopt, malloc_info and malloc_stats, truthfully. */
#include "conform.h"

#include <ctype.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIB = 1 << 20, HELD = 32 * MIB };

static void **hold(size_t block, size_t *count)
{
    void **blocks;

    *count = HELD / block;
    blocks = calloc(*count, sizeof(*blocks));
    REQUIRE(blocks != NULL);
    for (size_t i = 0; i < *count; i++) {
        blocks[i] = malloc(block);
        REQUIRE(blocks[i] != NULL);
        memset(blocks[i], 1, block);
    }
    return blocks;
}

static void release(void **blocks, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(blocks[i]);
    }
    free(blocks);
}

static size_t in_use(struct mallinfo2 info)
{
    return info.uordblks + info.hblkhd;
}

static void case_mallinfo2_counts(void)
{
    size_t sizes[] = {48, 1000, 16384, 100000, MIB, 8 * MIB};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct mallinfo2 before = mallinfo2(), held, after;
        size_t count;
        void **blocks = hold(sizes[i], &count);

        held = mallinfo2();
        CHECK(in_use(held) >= in_use(before) + HELD - sizes[i],
              "32 MiB in blocks of %zu: use went from %zu to %zu", sizes[i], in_use(before),
              in_use(held));
        CHECK(in_use(held) < in_use(before) + 2ul * HELD,
              "32 MiB in blocks of %zu: use went from %zu to %zu", sizes[i], in_use(before),
              in_use(held));
        CHECK(held.arena + held.hblkhd >= in_use(held), "more in use than there is");
        release(blocks, count);
        after = mallinfo2();
        CHECK(in_use(after) < in_use(before) + MIB,
              "after freeing blocks of %zu, use is %zu, before it was %zu", sizes[i], in_use(after),
              in_use(before));
    }
}

static void case_mallinfo_agrees(void)
{
    struct mallinfo2 wide = mallinfo2();
    struct mallinfo narrow = mallinfo();

    CHECK((size_t)narrow.arena == wide.arena);
    CHECK((size_t)narrow.uordblks == wide.uordblks, "(%d, %zu)", narrow.uordblks, wide.uordblks);
    CHECK((size_t)narrow.hblkhd == wide.hblkhd);
    CHECK((size_t)narrow.fordblks == wide.fordblks);
}

static void case_trim(void)
{
    size_t sizes[] = {100, 16384, 300000};

    malloc_trim(0);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        size_t before = conform_resident(), after, count;
        void **blocks = hold(sizes[i], &count);
        int result;

        release(blocks, count);
        result = malloc_trim(0);
        after = conform_resident();
        CHECK(result == 0 || result == 1, "malloc_trim returned %d", result);
        CHECK(after < before + 4 * MIB,
              "%zu resident before, %zu after 32 MiB of %zu were freed and trimmed", before, after,
              sizes[i]);
    }
    /* Nothing is left to give back, and saying so twice is fine. */
    malloc_trim(0);
    CHECK(malloc_trim(0) == 0, "a second malloc_trim found memory to give back");
    malloc_trim(SIZE_MAX);
}

static void case_mallopt(void)
{
    static const struct {
        const char *name;
        int parameter, value, want;
    } calls[] = {
        {"M_MMAP_THRESHOLD 1 MiB", M_MMAP_THRESHOLD, MIB, 1},
        {"M_TRIM_THRESHOLD 1 MiB", M_TRIM_THRESHOLD, MIB, 1},
        {"M_TRIM_THRESHOLD -1", M_TRIM_THRESHOLD, -1, 1},
        {"M_TOP_PAD 64 KiB", M_TOP_PAD, 65536, 1},
        {"M_MMAP_MAX 0", M_MMAP_MAX, 0, 1},
        {"M_MMAP_MAX 65536", M_MMAP_MAX, 65536, 1},
        {"M_ARENA_MAX 1", M_ARENA_MAX, 1, 1},
        {"M_ARENA_TEST 1", M_ARENA_TEST, 1, 1},
        {"M_PERTURB 0", M_PERTURB, 0, 1},
        {"M_CHECK_ACTION 3", M_CHECK_ACTION, 3, 1},
        {"M_MXFAST 64", M_MXFAST, 64, 1},
        /* The manual's bound is 80 * sizeof(size_t) / 4. */
        {"M_MXFAST 1000000", M_MXFAST, 1000000, 0},
    };

    for (size_t i = 0; i < COUNT_OF(calls); i++) {
        int result = mallopt(calls[i].parameter, calls[i].value);
        char *p = malloc(200000);

        CHECK(result == calls[i].want, "mallopt(%s) returned %d", calls[i].name, result);
        REQUIRE(p != NULL);
        conform_fill(p, 200000, 1);
        CHECK(conform_intact(p, 200000, 1));
        free(p);
    }
}

/*
 * Walks a document and checks that it is well formed: one root, every tag closed by its own
 * name, attributes quoted. Returns what is wrong with it, or NULL.
 */
static const char *xml_fault(const char *text, char *root, size_t room)
{
    static char open_tags[64][64];
    size_t depth = 0, roots = 0;

    for (const char *p = text; *p != '\0'; p++) {
        bool closing, empty = false;
        char name[64];
        size_t length = 0;

        if (*p == '>') {
            return "'>' outside a tag";
        }
        if (*p != '<') {
            if (depth == 0 && !isspace((unsigned char)*p)) {
                return "text outside the root element";
            }
            continue;
        }
        if (p[1] == '?') {
            p = strstr(p, "?>");
            if (p == NULL) {
                return "a processing instruction is not closed";
            }
            p++;
            continue;
        }
        closing = *++p == '/';
        p += closing;
        while (isalnum((unsigned char)*p) || *p == '_' || *p == '-') {
            if (length + 1 < sizeof(name)) {
                name[length++] = *p;
            }
            p++;
        }
        name[length] = '\0';
        if (length == 0) {
            return "a tag without a name";
        }
        for (; *p != '>'; p++) {
            if (*p == '\0' || *p == '<') {
                return "a tag is not closed";
            }
            empty = *p == '/';
            if (*p == '=') {
                char quote = *++p;

                if ((quote != '"' && quote != '\'') || (p = strchr(p + 1, quote)) == NULL) {
                    return "an attribute is not quoted";
                }
            }
        }
        if (closing) {
            if (depth == 0 || strcmp(open_tags[--depth], name) != 0) {
                return "a closing tag does not match";
            }
        } else {
            if (depth == 0) {
                roots++;
                snprintf(root, room, "%s", name);
            }
            if (!empty) {
                if (depth == COUNT_OF(open_tags)) {
                    return "nested too deeply";
                }
                snprintf(open_tags[depth++], sizeof(open_tags[0]), "%s", name);
            }
        }
    }
    return depth != 0 ? "an element is not closed" : roots != 1 ? "not one root" : NULL;
}

static void case_malloc_info(void)
{
    char *text = NULL, root[64] = "";
    size_t length = 0, count;
    const char *fault;
    FILE *stream;
    void **blocks;

    /* The checker itself has to find faults. */
    CHECK(xml_fault("<a><b x=\"1\"/><c></c></a>\n", root, sizeof(root)) == NULL);
    CHECK(xml_fault("<a><b></a>", root, sizeof(root)) != NULL);
    CHECK(xml_fault("<a x=1/>", root, sizeof(root)) != NULL);
    CHECK(xml_fault("<a/><b/>", root, sizeof(root)) != NULL);

    blocks = hold(1000, &count);
    stream = open_memstream(&text, &length);
    REQUIRE(stream != NULL);
    CHECK(malloc_info(0, stream) == 0);
    fclose(stream);
    fault = xml_fault(text, root, sizeof(root));
    CHECK(fault == NULL, "malloc_info's XML: %s", fault != NULL ? fault : "");
    CHECK(strcmp(root, "malloc") == 0, "the root is <%s>", root);
    CHECK(strstr(text, "version=\"") != NULL);
    CHECK(strstr(text, "<total ") != NULL && strstr(text, "<system ") != NULL,
          "no <total> or <system>, which readers of glibc's XML look for");
    free(text);
    release(blocks, count);

    stream = tmpfile();
    REQUIRE(stream != NULL);
    CHECK(malloc_info(1, stream) == EINVAL, "an unknown option is EINVAL");
    CHECK(ftell(stream) == 0, "malloc_info wrote although it refused");
    fclose(stream);
}

/* Runs malloc_stats with stdout and stderr in files, and says how much came out of each. */
static void case_malloc_stats(void)
{
    char name[] = "/tmp/conform-XXXXXX";
    int out = mkstemp(name), err, saved_out = dup(1), saved_err = dup(2);
    char text[4096];
    ssize_t got;

    REQUIRE(out >= 0 && saved_out >= 0 && saved_err >= 0);
    unlink(name);
    strcpy(name, "/tmp/conform-XXXXXX");
    err = mkstemp(name);
    REQUIRE(err >= 0);
    unlink(name);
    fflush(stdout);
    dup2(out, 1);
    dup2(err, 2);
    malloc_stats();
    fflush(stdout);
    fflush(stderr);
    dup2(saved_out, 1);
    dup2(saved_err, 2);
    CHECK(lseek(out, 0, SEEK_END) == 0, "malloc_stats wrote to stdout");
    got = pread(err, text, sizeof(text) - 1, 0);
    REQUIRE(got > 0, "malloc_stats wrote nothing to stderr");
    text[got] = '\0';
    CHECK(strstr(text, "in use bytes") != NULL && strstr(text, "system bytes") != NULL,
          "malloc_stats does not say 'system bytes' and 'in use bytes', as glibc's does:\n%s",
          text);
}

static const struct conform_case cases[] = {
    {"mallinfo2 counts what is in use", case_mallinfo2_counts, 0},
    {"mallinfo agrees with mallinfo2", case_mallinfo_agrees, 0},
    {"malloc_trim gives memory back", case_trim, 0},
    {"mallopt takes glibc's parameters within their bounds", case_mallopt, 0},
    {"malloc_info writes well-formed XML", case_malloc_info, 0},
    {"malloc_stats writes to stderr", case_malloc_stats, 0},
};

int main(int argc, char **argv)
{
    return conform_run(cases, COUNT_OF(cases), argc, argv);
}
