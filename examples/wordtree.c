/*
 * wordtree - the most frequent words of standard input.
 *
 *   wordtree [-s] [-n NUMBER] < TEXT      -s: say what the tree takes
 *
 * A tree with links of 32 bits: all of it lies below 4 GiB (QUIRE_GFP_DMA32),
 * where an address fits. Built with -DWIDE the links are pointers, for
 * comparison; nothing else differs:
 *
 *            left   right  word   count
 *   compact | 4    | 4    | 4    | 4    |                       16 bytes
 *   wide    | 8           | 8           | 8           | 4 + 4 | 32 bytes
 *
 * Words are ordered by a hash, then by their letters, so the tree is as flat
 * as one of random keys, whatever the order of the input.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quire/page.h>

#ifdef WIDE
typedef void *ref_t;
#define ZONE QUIRE_GFP_KERNEL
#else
typedef uint32_t ref_t;
#define ZONE QUIRE_GFP_DMA32
#endif

#define ORDER 4 /* pages are fetched in blocks of 64 KiB */
#define WORD_MAX 255

struct word {
    uint32_t hash;
    char text[];
};

struct node {
    ref_t left, right, word;
    uint32_t count;
};

/* Memory that is only ever added to. */
struct arena {
    char *at;
    size_t left, used;
};

static struct arena nodes, words;
static size_t nr_nodes;

static inline void *follow(ref_t l)
{
    return (void *)(uintptr_t)l;
}

static inline ref_t ref_to(void *p)
{
    return (ref_t)(uintptr_t)p;
}

static void *take(struct arena *arena, size_t bytes)
{
    size_t block = (size_t)sysconf(_SC_PAGESIZE) << ORDER;

    bytes = (bytes + 3) & ~(size_t)3;
    if (bytes > arena->left) {
        arena->at = quire_get_free_pages(ZONE | QUIRE_GFP_ZERO, ORDER);
        arena->left = block;
        if (arena->at == NULL) {
            perror("wordtree: no memory for the tree");
            exit(1);
        }
    }
    void *p = arena->at;
    arena->at += bytes;
    arena->left -= bytes;
    arena->used += bytes;
    return p;
}

static uint32_t hash_of(const char *text)
{
    uint64_t h = 0;

    while (*text != '\0')
        h = (h + (unsigned char)*text++) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(h >> 32);
}

static int compare(uint32_t hash, const char *text, const struct word *w)
{
    if (hash != w->hash)
        return hash < w->hash ? -1 : 1;
    return strcmp(text, w->text);
}

static void count(ref_t *root, const char *text)
{
    uint32_t hash = hash_of(text);
    struct node *n;

    while ((n = follow(*root)) != NULL) {
        int order = compare(hash, text, follow(n->word));

        if (order == 0) {
            n->count++;
            return;
        }
        root = order < 0 ? &n->left : &n->right;
    }
    n = take(&nodes, sizeof(*n));
    struct word *w = take(&words, sizeof(*w) + strlen(text) + 1);
    w->hash = hash;
    strcpy(w->text, text);
    n->word = ref_to(w);
    n->count = 1;
    *root = ref_to(n);
    nr_nodes++;
}

static bool next_word(char text[WORD_MAX + 1])
{
    size_t len = 0;
    int c;

    while ((c = getchar_unlocked()) != EOF) {
        if (isalnum(c) || c >= 0x80) {
            if (len < WORD_MAX)
                text[len++] = (char)tolower(c);
        } else if (len > 0) {
            break;
        }
    }
    text[len] = '\0';
    return len > 0;
}

static size_t collect(ref_t root, struct node **into, size_t nr)
{
    struct node *n = follow(root);

    if (n == NULL)
        return nr;
    nr = collect(n->left, into, nr);
    into[nr++] = n;
    return collect(n->right, into, nr);
}

static int more_frequent(const void *a, const void *b)
{
    const struct node *x = *(struct node *const *)a, *y = *(struct node *const *)b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    const struct word *v = follow(x->word), *w = follow(y->word);
    return strcmp(v->text, w->text);
}

static int print(ref_t root, size_t most)
{
    struct node **all = malloc((nr_nodes + 1) * sizeof(*all));

    if (all == NULL)
        return 1;
    collect(root, all, 0);
    qsort(all, nr_nodes, sizeof(*all), more_frequent);
    for (size_t i = 0; i < nr_nodes && i < most; i++)
        printf("%7u %s\n", all[i]->count, ((struct word *)follow(all[i]->word))->text);
    free(all);
    return fflush(stdout) != 0;
}

int main(int argc, char **argv)
{
    char text[WORD_MAX + 1];
    size_t most = 10;
    bool say = false;
    ref_t root = 0;
    int opt;

    while ((opt = getopt(argc, argv, "sn:")) != -1) {
        if (opt == 's')
            say = true;
        else if (opt == 'n')
            most = strtoul(optarg, NULL, 10);
        else
            return 2;
    }
    while (next_word(text))
        count(&root, text);
    if (say)
        fprintf(stderr, "%zu words, %zu bytes a node, tree %zu bytes, letters %zu bytes\n",
                nr_nodes, sizeof(struct node), nodes.used, words.used);
    return print(root, most);
}
