/* opt.c - see opt.h. */
#include "base/opt.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/msg.h"
#include "base/sys.h"

#ifndef Q_DEFAULT_CONF
#define Q_DEFAULT_CONF ""
#endif

/* Most environments are shorter than the one, and the kernel takes none as long as the other. */
#define RAW_MIN ((size_t)1 << 16)
#define RAW_MAX ((size_t)1 << 24)

struct q_options q_opt = {
    .decay_ms = 500,
    .spare = 512 << 10,
    .populate = 1,
};

enum kind { FLAG, SIZE, NUMBER, CHOICE, TEXT };

struct option {
    const char *name;
    enum kind kind;
    void *at;
    uint64_t max;
    const char *choices[4];
};

static const struct option table[] = {
    {"stats", FLAG, &q_opt.stats, 1, {NULL}},
    {"stats_file", TEXT, q_opt.stats_file, sizeof(q_opt.stats_file), {NULL}},
    {"misuse", CHOICE, &q_opt.misuse, 0, {"abort", "report", NULL}},
    {"huge", CHOICE, &q_opt.huge, 0, {"auto", "off", "on", NULL}},
    {"decay_ms", NUMBER, &q_opt.decay_ms, 3600000, {NULL}},
    {"limit", SIZE, &q_opt.limit, 1ull << 47, {NULL}},
    {"numa", CHOICE, &q_opt.numa, 0, {"auto", "off", "interleave", NULL}},
    {"numa_fake", NUMBER, &q_opt.numa_fake, Q_MAX_NODES, {NULL}},
    {"model", CHOICE, &q_opt.model, 0, {"auto", "flat", "sparse", NULL}},
    {"window", SIZE, &q_opt.window, 1ull << 46, {NULL}},
    {"spare", SIZE, &q_opt.spare, 1ull << 40, {NULL}},
    {"populate", FLAG, &q_opt.populate, 1, {NULL}},
    {"kswapd", FLAG, &q_opt.kswapd, 1, {NULL}},
    {"cgroup", TEXT, q_opt.cgroup, sizeof(q_opt.cgroup), {NULL}},
    {"fork", CHOICE, &q_opt.fork, 0, {"copy", "shared", NULL}},
    {"verbose", FLAG, &q_opt.verbose, 1, {NULL}},
};
#define NR_OPTIONS (sizeof(table) / sizeof(table[0]))

/* Decimal with an optional K, M, G or T. False where it is no such number. */
static bool read_number(const char *s, size_t len, bool units, unsigned long *out)
{
    uint64_t v = 0;
    unsigned shift = 0;

    if (units && len > 1) {
        const char *names = "KMGT", *unit = memchr(names, s[len - 1] & ~0x20, 4);
        if (unit != NULL) {
            shift = 10 * (unsigned)(unit - names + 1);
            len--;
        }
    }
    if (len == 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9' || v > (UINT64_MAX - 9) / 10)
            return false;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    if (v > UINT64_MAX >> shift || v << shift > ULONG_MAX)
        return false;
    *out = (unsigned long)(v << shift);
    return true;
}

static bool set_choice(const struct option *o, const char *s, size_t len)
{
    for (unsigned long i = 0; o->choices[i] != NULL; i++) {
        if (strlen(o->choices[i]) == len && memcmp(o->choices[i], s, len) == 0) {
            *(unsigned long *)o->at = i;
            return true;
        }
    }
    return false;
}

static bool set_option(const struct option *o, const char *s, size_t len)
{
    unsigned long v;

    if (o->kind == CHOICE)
        return set_choice(o, s, len);
    if (o->kind == TEXT) {
        if (len == 0 || len >= o->max)
            return false;
        memcpy(o->at, s, len);
        ((char *)o->at)[len] = '\0';
        return true;
    }
    if (!read_number(s, len, o->kind == SIZE, &v) || v > o->max)
        return false;
    *(unsigned long *)o->at = v;
    return true;
}

/* A word of a complaint, cut to what fits. */
static const char *cut(char out[64], const char *s, size_t len)
{
    len = q_min(len, 63);
    memcpy(out, s, len);
    out[len] = '\0';
    return out;
}

static void read_one(const char *s, size_t len)
{
    const char *colon = memchr(s, ':', len);
    size_t name = colon != NULL ? (size_t)(colon - s) : len;
    char a[64], b[64];

    for (size_t i = 0; i < NR_OPTIONS; i++) {
        const struct option *o = &table[i];
        if (strlen(o->name) != name || memcmp(o->name, s, name) != 0)
            continue;
        if (colon == NULL)
            q_msg("QUIRE_CONF: option '%s' has no value (use %s:VALUE); ignored", o->name, o->name);
        else if (!set_option(o, colon + 1, len - name - 1))
            q_msg("QUIRE_CONF: '%s' is not a value for option '%s'; ignored",
                  cut(b, colon + 1, len - name - 1), o->name);
        return;
    }
    q_msg("QUIRE_CONF: no option is called '%s'; ignored", cut(a, s, name));
}

static void read_conf(const char *s)
{
    while (*s != '\0') {
        size_t len = strcspn(s, ",");
        if (len > 0)
            read_one(s, len);
        s += len;
        s += *s == ',';
    }
}

/* Find QUIRE_CONF in what /proc/self/environ says. */
static void read_raw(const char *raw, long len)
{
    static const char name[] = "QUIRE_CONF=";

    for (long i = 0; i < len; i += (long)strlen(raw + i) + 1) {
        if (strncmp(raw + i, name, sizeof(name) - 1) == 0) {
            read_conf(raw + i + sizeof(name) - 1);
            return;
        }
    }
}

/*
 * getenv() needs libc's environ, which is not set up yet where the first
 * allocation comes from the loader; the kernel's copy always is.
 */
static void read_environment(void)
{
    extern char **environ;
    bool whole = false;

    if (environ != NULL) {
        const char *s = getenv("QUIRE_CONF");
        if (s != NULL)
            read_conf(s);
        return;
    }
    for (size_t room = RAW_MIN; !whole && room <= RAW_MAX; room *= 2) {
        char *raw = q_mmap(NULL, room, PROT_READ | PROT_WRITE, 0);
        if (raw == NULL)
            return;
        long len = q_read_file("/proc/self/environ", raw, room);
        whole = len < (long)room - 1;
        if (whole)
            read_raw(raw, len);
        q_munmap(raw, room);
    }
}

void q_opt_init(void)
{
    read_conf(Q_DEFAULT_CONF);
    if (getauxval(AT_SECURE) == 0)
        read_environment();
}

void q_opt_print(struct q_buf *out)
{
    for (size_t i = 0; i < NR_OPTIONS; i++) {
        const struct option *o = &table[i];
        const char *comma = i > 0 ? "," : "";
        unsigned long v = o->kind == TEXT ? 0 : *(unsigned long *)o->at;

        if (o->kind == TEXT && *(char *)o->at == '\0')
            continue;
        if (o->kind == TEXT)
            q_buf_printf(out, "%s%s:%s", comma, o->name, (char *)o->at);
        else if (o->kind == CHOICE)
            q_buf_printf(out, "%s%s:%s", comma, o->name, o->choices[v]);
        else
            q_buf_printf(out, "%s%s:%lu", comma, o->name, v);
    }
}
