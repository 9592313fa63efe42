/* msg.c - see msg.h. */
#include "base/msg.h"

#include <signal.h>
#include <stdlib.h>

#include "base/sys.h"

static void put(struct q_buf *b, char c)
{
    if (b->len + 1 < b->size)
        b->at[b->len++] = c;
}

static void put_padded(struct q_buf *b, const char *s, size_t n, int width, bool left, char pad)
{
    int fill = width > (int)n ? width - (int)n : 0;

    for (int i = 0; !left && i < fill; i++)
        put(b, pad);
    for (size_t i = 0; i < n; i++)
        put(b, s[i]);
    for (int i = 0; left && i < fill; i++)
        put(b, ' ');
}

/* Digits of v into the end of out[24]; returns where they begin. */
static char *digits(uint64_t v, unsigned radix, char out[24])
{
    char *p = out + 23;

    *p = '\0';
    do {
        *--p = "0123456789abcdef"[v % radix];
        v /= radix;
    } while (v != 0);
    return p;
}

struct spec {
    int width;
    unsigned nr_l; /* of the letters l and z before it */
    bool left;
    char pad, letter;
};

/* Read what follows a '%'; returns the place of its letter. */
static const char *read_spec(const char *p, struct spec *s)
{
    *s = (struct spec){.pad = ' '};
    for (; *p == '-' || *p == '0'; p++) {
        if (*p == '-')
            s->left = true;
        else
            s->pad = '0';
    }
    for (; *p >= '0' && *p <= '9'; p++)
        s->width = s->width * 10 + (*p - '0');
    for (; *p == 'l' || *p == 'z'; p++)
        s->nr_l++;
    s->letter = *p;
    return p;
}

static void put_number(struct q_buf *b, const struct spec *s, uint64_t v, bool negative)
{
    char raw[24];
    char *p = digits(v, s->letter == 'x' || s->letter == 'p' ? 16 : 10, raw);

    if (negative)
        *--p = '-';
    if (s->letter == 'p') {
        *--p = 'x';
        *--p = '0';
    }
    put_padded(b, p, (size_t)(raw + 23 - p), s->width, s->left, s->pad);
}

static void put_string(struct q_buf *b, const struct spec *s, const char *str)
{
    size_t n = 0;

    if (str == NULL)
        str = "(null)";
    while (str[n] != '\0')
        n++;
    put_padded(b, str, n, s->width, s->left, ' ');
}

static int64_t signed_arg(va_list *ap, unsigned nr_l)
{
    return nr_l > 1 ? va_arg(*ap, long long) : nr_l == 1 ? va_arg(*ap, long) : va_arg(*ap, int);
}

static uint64_t unsigned_arg(va_list *ap, unsigned nr_l)
{
    return nr_l > 1    ? va_arg(*ap, unsigned long long)
           : nr_l == 1 ? va_arg(*ap, unsigned long)
                       : va_arg(*ap, unsigned);
}

void q_buf_vprintf(struct q_buf *b, const char *fmt, va_list args)
{
    struct spec s;
    va_list ap; /* a copy, whose address can be taken where va_list is an array, too */

    va_copy(ap, args);

    for (const char *p = fmt; *p != '\0'; p++) {
        if (*p != '%') {
            put(b, *p);
            continue;
        }
        p = read_spec(p + 1, &s);
        if (s.letter == 'd') {
            int64_t v = signed_arg(&ap, s.nr_l);
            put_number(b, &s, v < 0 ? -(uint64_t)v : (uint64_t)v, v < 0);
        } else if (s.letter == 'u' || s.letter == 'x') {
            put_number(b, &s, unsigned_arg(&ap, s.nr_l), false);
        } else if (s.letter == 'p') {
            put_number(b, &s, (uintptr_t)va_arg(ap, void *), false);
        } else if (s.letter == 's') {
            put_string(b, &s, va_arg(ap, const char *));
        } else if (s.letter == 'c') {
            put(b, (char)va_arg(ap, int));
        } else if (s.letter == '\0') {
            break;
        } else {
            put(b, s.letter);
        }
    }
    va_end(ap);
    if (b->size > 0)
        b->at[b->len] = '\0';
}

void q_buf_printf(struct q_buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    q_buf_vprintf(b, fmt, ap);
    va_end(ap);
}

static void write_line(const char *fmt, va_list ap)
{
    char text[512];
    struct q_buf b = {.at = text, .size = sizeof(text) - 1};

    q_buf_printf(&b, "quire: ");
    q_buf_vprintf(&b, fmt, ap);
    b.at[b.len++] = '\n';
    q_write_all(2, b.at, b.len);
}

void q_msg(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    write_line(fmt, ap);
    va_end(ap);
}

void q_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    write_line(fmt, ap);
    va_end(ap);
    abort();
}
