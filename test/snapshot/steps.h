/* steps.h - what several of these programs do: taking, and stories that must hold by every method. */
#ifndef QUIRE_TEST_SNAPSHOT_STEPS_H
#define QUIRE_TEST_SNAPSHOT_STEPS_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../conform/conform.h"
#include "quire/quire.h"
#include "quire/snapshot.h"

/* Take one; its method; one by protection, or the case is skipped. */
quire_snapshot_t *take(unsigned flags);
int method(const quire_snapshot_t *s);
quire_snapshot_t *take_protected(void);

/* Of a heap, to go back to; where there is no such thing, the case is skipped. */
struct quire_heap;
quire_snapshot_t *take_to_go_back(struct quire_heap *heap);

/* Memory that no snapshot shows, and going back does not change. */
void *outside(size_t size);

/* A heap that is worth moving aside (QUIRE_SNAPSHOT_LAZY): block i of it full of i; whether it is still so at both ends. */
enum { MANY_BLOCKS = 600, BLOCK = 100000 };
char **many_blocks(void);
void check_many_blocks(char **block);

/* Walk a list and a large block through a view. */
void view_of_a_list(unsigned flags);

/* Save, load, and compare. */
void image_of(unsigned flags);

/* What is freed and trimmed while a snapshot lives is still shown, and goes back after. */
void trim_while_held_by(unsigned flags);

#endif
