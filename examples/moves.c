/*
 * moves.c - which move is best? Each is tried on a branch of the board, all at the same time.
 *
 *   moves [ROUNDS]
 *
 * The board is a graph on the heap: cells, linked at random, each with an owner. A move claims a
 * cell; then claims spread along links for a few steps, to cells whose neighbours are mostly one's own.
 * In each round the program takes a snapshot and makes one branch for each candidate move; a thread
 * plays it out there, on the board's own structures, reached through the branch's distance. The
 * best move is then played on the heap, and must come out as it did on its branch.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quire/branch.h"

enum { CELLS = 20000, LINKS = 5, CANDIDATES = 6, STEPS = 4 };

struct cell {
    struct cell *link[LINKS];
    struct cell *next_claimed; /* the front of the present step */
    int owner;                 /* 0: nobody */
};

struct board {
    long owned[3];
    struct cell *cell[CELLS];
};

static uint64_t rng = 88172645463325252u;

static size_t any(size_t n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (size_t)(rng % n);
}

static struct board *new_board(void)
{
    struct board *b = calloc(1, sizeof(*b));

    for (size_t i = 0; b != NULL && i < CELLS; i++)
        if ((b->cell[i] = calloc(1, sizeof(struct cell))) == NULL)
            return NULL;
    for (size_t i = 0; b != NULL && i < CELLS; i++)
        for (int k = 0; k < LINKS; k++)
            b->cell[i]->link[k] = b->cell[any(CELLS)];
    return b;
}

/* Follow a pointer that is stored on the board, wherever the board is. */
static struct cell *at(struct cell *stored, ptrdiff_t distance)
{
    return stored != NULL ? (struct cell *)((uintptr_t)stored + (uintptr_t)distance) : NULL;
}

static void claim(struct board *b, struct cell *c, int player)
{
    b->owned[c->owner]--;
    b->owned[player]++;
    c->owner = player;
}

/* Mostly one's own neighbours, or nobody's cell. */
static bool falls_to(const struct cell *c, int player, ptrdiff_t distance)
{
    int own = 0;

    for (int k = 0; k < LINKS; k++)
        own += at(c->link[k], distance)->owner == player;
    return c->owner != player && (c->owner == 0 || own > LINKS / 2);
}

/* Play a move on the board at this distance from the heap; what the player owns more than the other. */
static long play(struct board *b, size_t move, int player, ptrdiff_t distance)
{
    struct cell *front = at(b->cell[move], distance);

    claim(b, front, player);
    front->next_claimed = NULL;
    for (int step = 0; step < STEPS; step++) {
        struct cell *next = NULL;

        for (struct cell *c = front; c != NULL; c = c->next_claimed) {
            for (int k = 0; k < LINKS; k++) {
                struct cell *n = at(c->link[k], distance);
                if (!falls_to(n, player, distance))
                    continue;
                claim(b, n, player);
                n->next_claimed = next;
                next = n;
            }
        }
        front = next;
    }
    return b->owned[player] - b->owned[3 - player];
}

struct candidate {
    pthread_t thread;
    quire_branch_t *branch;
    struct board *board; /* in the branch */
    size_t move;
    int player;
    long gain;
};

static void *try_it(void *arg)
{
    struct candidate *c = arg;

    c->gain = play(c->board, c->move, c->player, quire_branch_distance(c->branch));
    return NULL;
}

/* The best of some moves, each on a branch of its own. NULL: errno says why not. */
static struct candidate *best_move(struct board *board, int player, size_t *touched)
{
    static struct candidate c[CANDIDATES];
    struct candidate *best = c;
    quire_snapshot_t *s = quire_snapshot_take(NULL, 0);

    if (s == NULL)
        return NULL;
    for (int i = 0; i < CANDIDATES; i++) {
        c[i] = (struct candidate){.move = any(CELLS), .player = player, .branch = quire_branch(s)};
        if (c[i].branch == NULL)
            return NULL;
        c[i].board = quire_branch_ptr(c[i].branch, board);
        if (pthread_create(&c[i].thread, NULL, try_it, &c[i]) != 0)
            return NULL;
    }
    quire_snapshot_release(s); /* it stays for its branches */
    for (int i = 0; i < CANDIDATES; i++) {
        pthread_join(c[i].thread, NULL);
        if (c[i].gain > best->gain)
            best = &c[i];
        *touched += quire_branch_size(c[i].branch);
    }
    for (int i = 0; i < CANDIDATES; i++)
        quire_branch_release(c[i].branch);
    return best;
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 50;
    struct board *board = new_board();
    size_t touched = 0;

    if (board == NULL)
        return 1;
    for (int round = 0; round < rounds; round++) {
        int player = 1 + round % 2;
        struct candidate *best = best_move(board, player, &touched);

        if (best == NULL) {
            fprintf(stderr, "no branches here: %s\n", strerror(errno));
            return errno == ENOTSUP ? 77 : 1;
        }
        long gain = play(board, best->move, player, 0);
        if (gain != best->gain) {
            fprintf(stderr, "round %d: %ld on the branch, %ld on the board\n", round, best->gain,
                    gain);
            return 1;
        }
    }
    printf("%d rounds of %d moves: %ld to %ld cells; %zu KiB of the board copied for a move\n",
           rounds, CANDIDATES, board->owned[1], board->owned[2],
           touched / 1024 / (size_t)(rounds > 0 ? rounds : 1) / CANDIDATES);
    return 0;
}
