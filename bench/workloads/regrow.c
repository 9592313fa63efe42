/*
 * regrow: blocks that grow by realloc. First a few long strings at once, each to the same large
 * size by another habit (fixed steps, an eighth more, half more, doubling), then very many small
 * vectors that grow turn by turn, so that no block is the last one in the heap. All content is
 * checked in the end: a realloc that loses or moves bytes wrongly fails.
 */
#include "common.h"

#include <stdio.h>
#include <stdlib.h>

#define USAGE "[MEGABYTES [VECTORS [ROUNDS]]]   (64, 20000, 10)"

#define STEP (64 << 10)

struct text {
    unsigned char *bytes;
    size_t length;
    size_t room;
    int habit;
};

static size_t more_room(const struct text *text)
{
    switch (text->habit) {
    case 0:
        return text->room + (1 << 20);
    case 1:
        return text->room + text->room / 8 + STEP;
    case 2:
        return text->room + text->room / 2 + STEP;
    default:
        return text->room ? text->room * 2 : STEP;
    }
}

static void grow_texts(size_t target)
{
    struct text texts[4] = {{.habit = 0}, {.habit = 1}, {.habit = 2}, {.habit = 3}};

    for (size_t length = 0; length < target; length += STEP) {
        for (int i = 0; i < 4; i++) {
            struct text *text = &texts[i];

            if (text->room < length + STEP) {
                text->room = more_room(text);
                text->bytes = realloc(text->bytes, text->room);
                if (!text->bytes)
                    fail("realloc to %zu returned NULL", text->room);
            }
            pattern_write(text->bytes + length, STEP, length + (size_t)i);
            text->length = length + STEP;
        }
    }
    for (int i = 0; i < 4; i++) {
        for (size_t at = 0; at < texts[i].length; at += STEP)
            pattern_check(texts[i].bytes + at, STEP, at + (size_t)i);
        free(texts[i].bytes);
    }
}

struct vector {
    uint64_t *items;
    uint32_t count;
    uint32_t room;
    uint32_t last;
};

static void push(struct vector *vector, uint64_t item)
{
    if (vector->count == vector->room) {
        vector->room = vector->room ? vector->room * 2 : 2;
        vector->items = realloc(vector->items, vector->room * sizeof(*vector->items));
        if (!vector->items)
            fail("realloc to %zu returned NULL", vector->room * sizeof(*vector->items));
    }
    vector->items[vector->count++] = item;
}

static uint64_t grow_vectors(size_t count, struct rng *rng)
{
    struct vector *vectors = calloc(count, sizeof(*vectors));
    size_t growing = count;
    uint64_t pushed = 0;

    if (!vectors)
        fail("no memory for %zu vectors", count);
    for (size_t i = 0; i < count; i++)
        vectors[i].last = (uint32_t)rng_size_skewed(rng, 2, 500);
    /* three items a turn, so that every vector's realloc falls between those of the others */
    while (growing) {
        growing = 0;
        for (size_t i = 0; i < count; i++) {
            struct vector *vector = &vectors[i];

            for (int k = 0; k < 3 && vector->count < vector->last; k++, pushed++)
                push(vector, mix64((uint64_t)i << 32 | vector->count));
            growing += vector->count < vector->last;
        }
    }
    for (size_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < vectors[i].count; k++) {
            if (vectors[i].items[k] != mix64((uint64_t)i << 32 | k))
                fail("item %u of vector %zu is not what was written there", k, i);
        }
        /* as a finished vector is given away: cut to length */
        if (i % 4 == 0) {
            vectors[i].items = realloc(vectors[i].items, vectors[i].count * 8);
            if (!vectors[i].items || vectors[i].items[vectors[i].count - 1] !=
                                         mix64((uint64_t)i << 32 | (vectors[i].count - 1)))
                fail("vector %zu lost its end when cut to length", i);
        }
        free(vectors[i].items);
    }
    free(vectors);
    return pushed;
}

int main(int argc, char **argv)
{
    size_t megabytes = argument(argc, argv, 1, 64, 0, 4096, USAGE);
    size_t vectors = argument(argc, argv, 2, 20000, 0, 10000000, USAGE);
    size_t rounds = argument(argc, argv, 3, 10, 1, 100000, USAGE);
    struct rng rng = {3};
    uint64_t pushed = 0;

    grow_texts(megabytes << 20);
    for (size_t round = 0; round < rounds; round++)
        pushed += grow_vectors(vectors, &rng);
    printf("ok regrow items=%llu\n", (unsigned long long)pushed);
    return 0;
}
