/*
 * workers.c - one index, loaded once, and workers that share it until they change it.
 *
 *   QUIRE_CONF=fork:shared workers FILE [WORKERS]
 *
 * Reads the words of FILE into an index and forks workers with quire_fork(). Each has the whole
 * index at the same addresses, for the memory of what it writes: it counts its own hits in the
 * entries, and moves what is asked for to the front of its chain. Lines from standard input go to
 * the workers in turn:
 *
 *   WORD    where it is: the worker, how often the word stands in FILE, how often that worker was asked
 *   +WORD   add one occurrence, in this process: workers do not see it,
 *   !       but those do that take their places now
 *   =       what each worker holds for itself, in KiB, and how its kind of fork works
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "quire/fork.h"

enum { BUCKETS = 1 << 16, MAX_WORKERS = 64, LINE = 256 };

struct entry {
    struct entry *next;
    long found, asked;
    char word[];
};

static struct entry *bucket[BUCKETS];
static size_t nr_words;

static struct entry *look_up(const char *word, bool make)
{
    unsigned h = 5381;

    for (const char *c = word; *c != '\0'; c++)
        h = h * 33 + (unsigned char)*c;
    struct entry **list = &bucket[h % BUCKETS], **at = list;
    while (*at != NULL && strcmp((*at)->word, word) != 0)
        at = &(*at)->next;
    struct entry *e = *at;
    if (e != NULL) { /* to the front: in a worker, that is its own affair */
        *at = e->next;
    } else if (make) {
        e = calloc(1, sizeof(*e) + strlen(word) + 1);
        if (e == NULL)
            exit(1);
        strcpy(e->word, word);
        nr_words++;
    } else {
        return NULL;
    }
    e->next = *list;
    *list = e;
    return e;
}

static void load(FILE *f)
{
    char word[LINE];

    while (fscanf(f, "%255s", word) == 1)
        look_up(word, true)->found++;
}

/* --- workers --------------------------------------------------------------------------------- */

struct worker {
    pid_t pid;
    FILE *to, *from;
};

static struct worker worker[MAX_WORKERS];
static int nr_workers = 4;

/* Pages that are this process's alone, or -1. */
static long own_kib(void)
{
    char line[LINE];
    long kib = -1;
    FILE *f = fopen("/proc/self/smaps_rollup", "r");

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (sscanf(line, "Private_Dirty: %ld", &kib) == 1)
            break;
    if (f != NULL)
        fclose(f);
    return kib;
}

static void answer(FILE *from, FILE *to, int me)
{
    char word[LINE];

    while (fgets(word, sizeof(word), from) != NULL) {
        word[strcspn(word, "\n")] = '\0';
        struct entry *e = look_up(word, false);
        if (strcmp(word, "=") == 0)
            fprintf(to, "worker %d: %ld KiB of its own\n", me, own_kib());
        else if (e == NULL)
            fprintf(to, "worker %d: %s is not there\n", me, word);
        else
            fprintf(to, "worker %d: %s %ld, asked %ld\n", me, word, e->found, ++e->asked);
        fflush(to);
    }
}

static void hire(int me)
{
    int down[2], up[2];

    if (pipe(down) != 0 || pipe(up) != 0) {
        perror("pipe");
        exit(1);
    }
    pid_t pid = quire_fork();
    if (pid < 0) {
        perror("quire_fork");
        exit(1);
    }
    if (pid == 0) {
        for (int i = 0; i < nr_workers; i++) { /* of the others, what is open now */
            if (worker[i].pid == 0)
                continue;
            close(fileno(worker[i].to));
            close(fileno(worker[i].from));
        }
        close(down[1]);
        close(up[0]);
        answer(fdopen(down[0], "r"), fdopen(up[1], "w"), me);
        _exit(0);
    }
    close(down[0]);
    close(up[1]);
    worker[me] = (struct worker){pid, fdopen(down[1], "w"), fdopen(up[0], "r")};
}

static int dismiss(int me)
{
    int status = 0;

    fclose(worker[me].to);
    fclose(worker[me].from);
    waitpid(worker[me].pid, &status, 0);
    worker[me].pid = 0;
    return status;
}

static void ask(int me, const char *line)
{
    char reply[2 * LINE];

    fprintf(worker[me].to, "%s\n", line);
    fflush(worker[me].to);
    if (fgets(reply, sizeof(reply), worker[me].from) == NULL)
        exit(1);
    fputs(reply, stdout);
}

static void tell_all(void)
{
    struct quire_fork_stat st;

    for (int i = 0; i < nr_workers; i++)
        ask(i, "=");
    quire_fork_stat(&st);
    printf("%zu words, workers %s%s\n", nr_words,
           st.method == QUIRE_FORK_SHARED ? "share them" : "copied by fork: ",
           st.why_not != NULL ? st.why_not : "");
}

int main(int argc, char **argv)
{
    char line[LINE];
    FILE *f = argc > 1 ? fopen(argv[1], "r") : NULL;
    int turn = 0, status = 0;

    if (argc > 2)
        nr_workers = atoi(argv[2]);
    if (f == NULL || nr_workers < 1 || nr_workers > MAX_WORKERS) {
        fprintf(stderr, "usage: %s FILE [WORKERS, up to %d]\n", argv[0], MAX_WORKERS);
        return 2;
    }
    load(f);
    fclose(f);
    for (int i = 0; i < nr_workers; i++)
        hire(i);
    while (fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '+') {
            look_up(line + 1, true)->found++;
        } else if (strcmp(line, "!") == 0) {
            for (int i = 0; i < nr_workers; i++) {
                status |= dismiss(i);
                hire(i);
            }
        } else if (strcmp(line, "=") == 0) {
            tell_all();
        } else {
            ask(turn, line);
            turn = (turn + 1) % nr_workers;
        }
        fflush(stdout);
    }
    for (int i = 0; i < nr_workers; i++)
        status |= dismiss(i);
    return status == 0 ? 0 : 1;
}
