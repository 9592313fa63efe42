/*
 * wrong.h - wrong use, and what quire has to say of it: one line that names the function and what
 * was found there, and then abort(); or, with misuse:report, the line alone, and nothing else is
 * harmed.
 */
#ifndef CONFORM_WRONG_H
#define CONFORM_WRONG_H

#include "conform.h"

struct wrong {
    const char *name, *function, *says; /* how the line begins, after "quire: "; what is in it */
    void (*run)(void);
};

/*
 * Does it in a child. unharmed() says whether nothing has changed but what was done wrong; it is
 * asked where the child lives on.
 */
void wrong_is_named(const struct wrong *w, bool (*unharmed)(void));

/* The same of each in a table; then nothing must have changed here. */
void wrongs_are_named(const struct wrong *wrongs, size_t nr, bool (*unharmed)(void));

#endif
