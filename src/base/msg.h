/*
 * msg.h - text for people, written without libc.
 *
 * q_buf_printf() knows %s %d %u %x %p %c, these with l, ll or z, and a
 * minimum width with '-' or '0' before the letter. It allocates nothing, takes no lock and is safe
 * in signal handlers. What does not fit is cut.
 */
#ifndef Q_BASE_MSG_H
#define Q_BASE_MSG_H

#include <stdarg.h>

#include "base/types.h"

struct q_buf {
    char *at;    /* where the text begins */
    size_t len;  /* characters in it */
    size_t size; /* room, with the final '\0' */
};

void q_buf_vprintf(struct q_buf *b, const char *fmt, va_list ap);
void q_buf_printf(struct q_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* One line "quire: ..." on standard error, in a single write. errno is kept. */
void q_msg(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The same, then abort(). */
_Noreturn void q_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Invariants. q_assert() costs nothing in release builds; with -Dchecks=true
 * it ends the program with the place and the text of what did not hold.
 */
#define q_assert(cond)                                                                             \
    do {                                                                                           \
        if (Q_CHECKS && q_unlikely(!(cond)))                                                       \
            q_die("%s:%d: invariant does not hold: %s", __FILE__, __LINE__, #cond);                \
    } while (0)

#endif
