/*
 * kvserver.c - a key-value server that saves itself in the background.
 *
 *   kvserver serve FILE     commands on standard input, answers on standard output
 *   kvserver dump FILE      what the image in FILE holds
 *
 *   SET KEY VALUE | GET KEY | DEL KEY | COUNT | SAVE | WAIT | QUIT
 *
 * SAVE answers at once: it takes a snapshot and lets a thread write it while commands go on. The
 * image is the heap itself, so `dump` finds the table through a root object that begins with a
 * magic word, and follows the pointers of the program that saved it: quire_snapshot_ptr() turns
 * each into one that is good here.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "quire/snapshot.h"

#define BUCKETS 65536u
#define MAGIC "kvserver root 1"

struct entry {
    struct entry *next;
    char *key, *value;
};

struct root {
    char magic[16];
    size_t count;
    struct entry *bucket[BUCKETS];
};

static struct root *root;
static pthread_t saver;
static int saving;
static const char *path;

static unsigned hash(const char *key)
{
    unsigned h = 2166136261u;

    while (*key != '\0')
        h = (h ^ (unsigned char)*key++) * 16777619u;
    return h % BUCKETS;
}

static struct entry **find(const char *key)
{
    struct entry **at = &root->bucket[hash(key)];

    while (*at != NULL && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    return at;
}

static void set(const char *key, const char *value)
{
    struct entry **at = find(key), *e = *at;

    if (e == NULL) {
        e = *at = calloc(1, sizeof(*e));
        e->key = strdup(key);
        root->count++;
    }
    free(e->value);
    e->value = strdup(value);
}

static void del(const char *key)
{
    struct entry **at = find(key), *e = *at;

    if (e == NULL)
        return;
    *at = e->next;
    free(e->key);
    free(e->value);
    free(e);
    root->count--;
}

/* The thread: write to a file beside the old one, and put it in its place when it is whole. */
static void *save(void *arg)
{
    quire_snapshot_t *snap = arg;
    char temporary[4096];

    snprintf(temporary, sizeof(temporary), "%s.new", path);
    int fd = open(temporary, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    /* The first 16 bytes say where the root was. */
    uint64_t head[2] = {(uint64_t)(uintptr_t)root, 0};
    int failed = fd < 0 || write(fd, head, sizeof(head)) != sizeof(head) ||
                 quire_snapshot_drain(snap, fd, NULL, NULL) != 0 || fsync(fd) != 0;
    if (failed)
        perror("kvserver: save");
    if (fd >= 0)
        close(fd);
    if (!failed && rename(temporary, path) != 0)
        perror("kvserver: rename");
    quire_snapshot_release(snap);
    return NULL;
}

static void wait_for_saver(void)
{
    if (saving)
        pthread_join(saver, NULL);
    saving = 0;
}

static void start_save(void)
{
    struct quire_snapshot_stat st;

    wait_for_saver();
    quire_snapshot_t *snap = quire_snapshot_take(NULL, 0);
    if (snap == NULL) {
        printf("error: %s\n", strerror(errno));
        return;
    }
    quire_snapshot_stat(snap, &st);
    if (pthread_create(&saver, NULL, save, snap) != 0) {
        quire_snapshot_release(snap);
        puts("error: no thread");
        return;
    }
    saving = 1;
    printf("saving %zu keys; the pause was %llu us\n", root->count,
           (unsigned long long)st.take_ns / 1000);
}

/* One line; 0 ends the server. */
static int command(char *line)
{
    char *rest = line, *what = strsep(&rest, " \n"), *key = strsep(&rest, " \n");
    char *value = rest != NULL ? strsep(&rest, "\n") : NULL;

    if (strcmp(what, "SET") == 0 && key != NULL && value != NULL) {
        set(key, value);
    } else if (strcmp(what, "GET") == 0 && key != NULL) {
        struct entry *e = *find(key);
        puts(e != NULL ? e->value : "(none)");
    } else if (strcmp(what, "DEL") == 0 && key != NULL) {
        del(key);
    } else if (strcmp(what, "COUNT") == 0) {
        printf("%zu\n", root->count);
    } else if (strcmp(what, "SAVE") == 0) {
        start_save();
    } else if (strcmp(what, "WAIT") == 0) {
        wait_for_saver();
        puts("saved");
    } else if (strcmp(what, "QUIT") == 0) {
        return 0;
    } else {
        puts("error: SET KEY VALUE | GET KEY | DEL KEY | COUNT | SAVE | WAIT | QUIT");
    }
    return 1;
}

static int serve(void)
{
    char line[65536];

    root = calloc(1, sizeof(*root));
    if (root == NULL)
        return 1;
    memcpy(root->magic, MAGIC, sizeof(MAGIC));
    while (fgets(line, sizeof(line), stdin) != NULL && command(line))
        fflush(stdout);
    wait_for_saver();
    return 0;
}

/* Walk the table of the program that saved it, through the image. */
static int dump(void)
{
    uint64_t head[2];
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, head, sizeof(head)) != sizeof(head)) {
        perror(path);
        return 1;
    }
    quire_snapshot_t *snap = quire_snapshot_load(fd);
    if (snap == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    const struct root *r = quire_snapshot_ptr(snap, (void *)(uintptr_t)head[0]);
    if (r == NULL || memcmp(r->magic, MAGIC, sizeof(MAGIC)) != 0) {
        fprintf(stderr, "%s: no table in it (%s)\n", path, strerror(errno));
        return 1;
    }
    for (size_t b = 0; b < BUCKETS; b++) {
        for (const struct entry *e = r->bucket[b]; e != NULL; e = e->next) {
            e = quire_snapshot_ptr(snap, e);
            printf("%s %s\n", (const char *)quire_snapshot_ptr(snap, e->key),
                   (const char *)quire_snapshot_ptr(snap, e->value));
        }
    }
    fprintf(stderr, "%zu keys\n", r->count);
    quire_snapshot_release(snap);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3 || (strcmp(argv[1], "serve") != 0 && strcmp(argv[1], "dump") != 0)) {
        fputs("usage: kvserver serve FILE | kvserver dump FILE\n", stderr);
        return 2;
    }
    path = argv[2];
    return strcmp(argv[1], "serve") == 0 ? serve() : dump();
}
