/*
 * jsonsort - one JSON document per line in, the same with sorted keys and without blanks out.
 *
 *   producer | jsonsort [-l BYTES] [-v]
 *
 * As a service would treat requests: each document is parsed into a tree in a
 * heap of its own, which may hold BYTES of memory (default 1 MiB). One that
 * needs more is answered with {"error":"too large"}, one that is no JSON with
 * {"error":"not JSON"}, and nothing that it had made is left: there is not a
 * single free() in the parser, nor a way out of it that could forget one. With
 * -v each answer's heap is described on standard error.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quire/heap.h>

#define DEEPEST 200

enum kind { PLAIN, ARRAY, OBJECT };

/* PLAIN is a string, a number or a word, as it stands in the line. */
struct value {
    enum kind kind;
    const char *text;
    size_t len;
    struct value *first, *next; /* ARRAY, OBJECT: what is in it */
    const char *key;            /* in an OBJECT */
    size_t key_len;
};

struct parser {
    const char *at;
    struct quire_heap *heap;
    const char *error;
    int depth;
};

static struct value *parse_value(struct parser *p);

static void *fail(struct parser *p, const char *error)
{
    if (p->error == NULL)
        p->error = error;
    return NULL;
}

static void skip_blanks(struct parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\r')
        p->at++;
}

static int take(struct parser *p, char c)
{
    skip_blanks(p);
    if (*p->at != c)
        return 0;
    p->at++;
    return 1;
}

static struct value *new_value(struct parser *p, enum kind kind)
{
    struct value *v = quire_heap_calloc(p->heap, 1, sizeof(*v));

    if (v == NULL)
        return fail(p, "too large");
    v->kind = kind;
    return v;
}

static int hex_digits(const char *at, int n)
{
    while (n > 0 && isxdigit((unsigned char)*at)) {
        at++;
        n--;
    }
    return n == 0;
}

/* What follows a backslash; 0 where nothing of the sort may. */
static size_t escape_length(const char *at)
{
    if (*at == 'u')
        return hex_digits(at + 1, 4) ? 5 : 0;
    return *at != '\0' && strchr("\"\\/bfnrt", *at) != NULL;
}

/* The length of the string at `at`, with its quotes; 0 where there is none. */
static size_t string_length(const char *at)
{
    const char *from = at;
    size_t n;

    if (*at++ != '"')
        return 0;
    for (; *at != '"'; at += n) {
        n = *at != '\\' ? (unsigned char)*at >= ' ' : escape_length(at + 1) + 1;
        if (n == 0 || (*at == '\\' && n == 1))
            return 0;
    }
    return (size_t)(at + 1 - from);
}

static size_t digits(const char *at)
{
    return strspn(at, "0123456789");
}

static size_t number_length(const char *at)
{
    const char *from = at;
    size_t whole, n;

    at += *at == '-';
    whole = digits(at);
    if (whole == 0 || (whole > 1 && *at == '0'))
        return 0;
    at += whole;
    if (*at == '.') {
        if ((n = digits(at + 1)) == 0)
            return 0;
        at += 1 + n;
    }
    if (*at == 'e' || *at == 'E') {
        at++;
        at += *at == '+' || *at == '-';
        if ((n = digits(at)) == 0)
            return 0;
        at += n;
    }
    return (size_t)(at - from);
}

static size_t word_length(const char *at)
{
    static const char *const words[] = {"true", "false", "null"};

    for (int i = 0; i < 3; i++)
        if (strncmp(at, words[i], strlen(words[i])) == 0)
            return strlen(words[i]);
    return 0;
}

static struct value *parse_plain(struct parser *p)
{
    size_t len = *p->at == '"'                    ? string_length(p->at)
                 : isalpha((unsigned char)*p->at) ? word_length(p->at)
                                                  : number_length(p->at);
    struct value *v = len > 0 ? new_value(p, PLAIN) : fail(p, "not JSON");

    if (v != NULL) {
        v->text = p->at;
        v->len = len;
        p->at += len;
    }
    return v;
}

static struct value *parse_member(struct parser *p)
{
    skip_blanks(p);
    const char *key = p->at;
    size_t len = string_length(key);
    struct value *v;

    p->at += len;
    if (len == 0 || !take(p, ':'))
        return fail(p, "not JSON");
    if ((v = parse_value(p)) != NULL) {
        v->key = key;
        v->key_len = len;
    }
    return v;
}

static struct value *parse_list(struct parser *p, enum kind kind, char close)
{
    struct value *list = new_value(p, kind), **last = list != NULL ? &list->first : NULL;

    if (list == NULL || take(p, close))
        return list;
    do {
        *last = kind == OBJECT ? parse_member(p) : parse_value(p);
        if (*last == NULL)
            return NULL;
        last = &(*last)->next;
    } while (take(p, ','));
    return take(p, close) ? list : fail(p, "not JSON");
}

static struct value *parse_value(struct parser *p)
{
    struct value *v;

    if (++p->depth > DEEPEST)
        return fail(p, "too large");
    if (take(p, '{'))
        v = parse_list(p, OBJECT, '}');
    else if (take(p, '['))
        v = parse_list(p, ARRAY, ']');
    else
        v = parse_plain(p);
    p->depth--;
    return v;
}

static int before(const struct value *a, const struct value *b)
{
    size_t n = a->key_len < b->key_len ? a->key_len : b->key_len;
    int order = memcmp(a->key + 1, b->key + 1, n - 2);

    return order != 0 ? order < 0 : a->key_len <= b->key_len;
}

static struct value *merge(struct value *a, struct value *b)
{
    struct value *first = NULL, **last = &first;

    while (a != NULL && b != NULL) {
        struct value **least = before(a, b) ? &a : &b;

        *last = *least;
        last = &(*last)->next;
        *least = (*least)->next;
    }
    *last = a != NULL ? a : b;
    return first;
}

/* Merge sort, from runs of one member. */
static struct value *sorted(struct value *list)
{
    struct value *run[64] = {NULL}, *all = NULL;

    while (list != NULL) {
        struct value *one = list;
        int i = 0;

        list = list->next;
        one->next = NULL;
        for (; run[i] != NULL; i++) {
            one = merge(run[i], one);
            run[i] = NULL;
        }
        run[i] = one;
    }
    for (int i = 0; i < 64; i++)
        all = merge(run[i], all);
    return all;
}

static void print(const struct value *v)
{
    static const char marks[][2] = {[ARRAY] = {'[', ']'}, [OBJECT] = {'{', '}'}};

    if (v->kind == PLAIN) {
        fwrite(v->text, 1, v->len, stdout);
        return;
    }
    putchar(marks[v->kind][0]);
    for (const struct value *i = v->kind == OBJECT ? sorted(v->first) : v->first; i != NULL;
         i = i->next) {
        if (v->kind == OBJECT) {
            fwrite(i->key, 1, i->key_len, stdout);
            putchar(':');
        }
        print(i);
        if (i->next != NULL)
            putchar(',');
    }
    putchar(marks[v->kind][1]);
}

static void answer(struct quire_heap *heap, const char *line, int verbose)
{
    struct parser p = {.at = line, .heap = heap};
    struct value *v = parse_value(&p);
    struct quire_heap_stat st;

    skip_blanks(&p);
    if (v != NULL && *p.at != '\0')
        v = fail(&p, "not JSON");
    if (v != NULL)
        print(v);
    else
        printf("{\"error\":\"%s\"}", p.error);
    putchar('\n');
    quire_heap_stat(heap, &st);
    if (verbose)
        fprintf(stderr, "%zu blocks, %zu bytes held\n", st.live, st.held);
}

int main(int argc, char **argv)
{
    struct quire_heap_attr attr = {.limit = 1 << 20, .flags = QUIRE_HEAP_SINGLE};
    char *line = NULL;
    size_t room = 0;
    ssize_t len;
    int option, verbose = 0;

    while ((option = getopt(argc, argv, "l:v")) != -1) {
        if (option == 'l' && atol(optarg) > 0)
            attr.limit = (size_t)atol(optarg);
        else if (option == 'v')
            verbose = 1;
        else
            return fprintf(stderr, "usage: jsonsort [-l BYTES] [-v]\n"), 2;
    }
    while ((len = getline(&line, &room, stdin)) > 0) {
        struct quire_heap *heap = quire_heap_create(&attr);

        if (heap == NULL)
            return perror("jsonsort"), 1;
        line[len - (line[len - 1] == '\n')] = '\0';
        answer(heap, line, verbose);
        quire_heap_destroy(heap);
    }
    free(line);
    return fflush(stdout) != 0 ? perror("jsonsort"), 1 : 0;
}
