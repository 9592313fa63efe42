/*
 * Does quire serve a process, and if not, why?
 *
 * Two things prove it: the statistics page, a data symbol that every quire exports, which carries
 * a magic word and says that quire is at work; and that the process's malloc is in the same
 * object. Everything else here only explains a "no".
 */
#include "verdict.h"

#include "process.h"
#include "program.h"
#include "quire/stat.h"
#include "symbol.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

#define SYMBOL "quire_stat_page"

/* How much of a program's own data is searched for a quire that was linked in and stripped. */
#define MAX_SCAN (8u << 20)

static const char magic[8] = QUIRE_STAT_MAGIC;

/* The quire in a process. */
struct found {
    uint64_t addr; /* of its statistics page; 0: there is none */
    bool linked;   /* in the program itself, not in a library */
    struct quire_stat_page page;
};

#define explain(v, ...) ((void)snprintf((v)->why, sizeof((v)->why), __VA_ARGS__))

static bool read_page(pid_t pid, uint64_t addr, struct quire_stat_page *page)
{
    return addr && process_read(pid, addr, page, sizeof(*page)) &&
           memcmp(page->magic, magic, sizeof(magic)) == 0;
}

/* An object is mapped from its first byte on where a mapping of a file has offset 0. */
static bool object_start(const struct mapping *m)
{
    return m->offset == 0 && m->path[0] != '\0' && m->path[0] != '[';
}

static bool is_libc(const struct mapping *m)
{
    const char *name = base_name(m->path);

    return strncmp(name, "libc.so", 7) == 0 || strncmp(name, "libc-2", 6) == 0;
}

static bool is_program(const struct mappings *maps, const struct mapping *m)
{
    return *maps->program && strcmp(m->path, maps->program) == 0;
}

static bool scan_mapping(pid_t pid, const struct mapping *m, pid_t inner, struct found *f)
{
    char buf[4096];

    for (uint64_t at = m->start; at < m->end && at - m->start < MAX_SCAN; at += sizeof(buf)) {
        if (!process_read(pid, at, buf, sizeof(buf)))
            continue;
        for (size_t i = 0; i < sizeof(buf); i += 8) {
            if (memcmp(buf + i, magic, sizeof(magic)) != 0 || !read_page(pid, at + i, &f->page))
                continue;
            /* A program may hold a copy of another's page; its own has its own process id. */
            if (f->page.size >= sizeof(f->page) &&
                (f->page.pid == 0 || f->page.pid == (uint64_t)inner)) {
                f->addr = at + i;
                f->linked = true;
                return true;
            }
        }
    }
    return false;
}

/*
 * A program that quire was linked into need not export anything, and may be stripped: look for
 * the page in its writable data, which is a mapping of its file with zeroes behind it.
 */
static bool find_linked(pid_t pid, const struct mappings *maps, struct found *f)
{
    pid_t inner = process_inner_pid(pid);
    uint64_t end = 0;

    for (size_t i = 0; i < maps->count; i++) {
        const struct mapping *m = &maps->all[i];
        bool zeroes = m->path[0] == '\0' && m->start == end;

        if (!m->writable || (!is_program(maps, m) && !zeroes))
            continue;
        end = m->end;
        if (scan_mapping(pid, m, inner, f))
            return true;
    }
    return false;
}

static const struct mapping *mapping_at(const struct mappings *maps, uint64_t addr)
{
    for (size_t i = 0; i < maps->count; i++)
        if (addr >= maps->all[i].start && addr < maps->all[i].end)
            return &maps->all[i];
    return NULL;
}

/* The object that the process's malloc is in; NULL where there is no telling. */
static const struct mapping *malloc_object(pid_t pid, const struct mappings *maps)
{
    for (size_t i = 0; i < maps->count; i++) {
        const struct mapping *m = &maps->all[i];

        if (object_start(m) && is_program(maps, m)) {
            uint64_t addr = symbol_resolve(pid, m->start, "malloc");

            return addr ? mapping_at(maps, addr) : NULL;
        }
    }
    return NULL;
}

/* Does the process's malloc come from elsewhere than the quire that was found in it? */
static bool bypassed(const struct mappings *maps, const struct found *f, const struct mapping *m)
{
    const struct mapping *page = mapping_at(maps, f->addr);

    if (!m)
        return false;
    return f->linked ? !is_program(maps, m) : !page || strcmp(m->path, page->path) != 0;
}

/*
 * Find the quire in the process. There can be two, one linked in and one loaded: the one counts
 * that malloc is in.
 */
static void find_quire(pid_t pid, const struct mappings *maps, const struct mapping *own,
                       struct found *f)
{
    struct found other = {0};

    for (size_t i = 0; i < maps->count; i++) {
        const struct mapping *m = &maps->all[i];

        if (!object_start(m))
            continue;
        f->addr = symbol_in_object(pid, m->start, SYMBOL);
        f->linked = is_program(maps, m);
        if (!read_page(pid, f->addr, &f->page))
            continue;
        if (!bypassed(maps, f, own))
            return;
        other = *f;
    }
    if (!find_linked(pid, maps, f))
        *f = other;
}

/* The loader of another libc goes its own way with LD_PRELOAD. */
static bool foreign_libc(const struct program *p)
{
#ifdef __GLIBC__
    return program_musl(p);
#else
    return p->dynamic && !program_musl(p);
#endif
}

static void explain_environment(pid_t pid, struct verdict *v)
{
    char value[PATH_MAX];

    if (!process_environ(pid, "LD_PRELOAD", value, sizeof(value)) || !*value)
        explain(v, "not loaded: it was started without LD_PRELOAD (start it with `quire run`)");
    else if (!strstr(value, "libquire"))
        explain(v, "not loaded: its LD_PRELOAD names other libraries only: %.200s", value);
    else
        explain(v,
                "not loaded: its LD_PRELOAD is %.200s, but the loader did not find that file or "
                "could not use it",
                value);
}

static void explain_absence(pid_t pid, const struct mapping *own, struct verdict *v)
{
    char exe[64], theirs[64], ours[64];
    uint64_t secure = 0;
    struct program p;
    size_t len;

    snprintf(exe, sizeof(exe), "/proc/%d/exe", (int)pid);
    if (program_inspect(exe, &p) != 0)
        memset(&p, 0, sizeof(p));
    if (program_foreign(&p))
        explain(v, "wrong architecture: it is a %s program and this quire is %s",
                program_arch(p.elf_class, p.machine, theirs, sizeof(theirs)),
                program_own_arch(ours, sizeof(ours)));
    else if (p.elf && !p.dynamic)
        explain(v, "static executable: no loader runs in it that could preload; it would have to "
                   "be linked with libquire.a");
    else if (process_auxv(pid, AT_SECURE, &secure) && secure)
        explain(v, "set-user-id (AT_SECURE): it runs with other rights than its caller's, so the "
                   "loader ignores LD_PRELOAD");
    else if (foreign_libc(&p))
        explain(v, "another libc: its loader is %.200s, and this quire is not for it", p.interp);
    else
        explain_environment(pid, v);
    len = strlen(v->why);
    if (own && !is_libc(own))
        snprintf(v->why + len, sizeof(v->why) - len, "; it has a malloc of its own, in %.100s",
                 base_name(own->path));
}

static void explain_presence(const struct mappings *maps, const struct mapping *own,
                             const struct found *f, struct verdict *v)
{
    snprintf(v->version, sizeof(v->version), "%.15s", f->page.version);
    v->bound = own && !bypassed(maps, f, own);
    if (bypassed(maps, f, own)) {
        v->state = VERDICT_BYPASSED;
        if (is_program(maps, own))
            explain(v,
                    "own malloc: quire is loaded, but %.100s defines malloc itself, as Chromium "
                    "does, and a program's own symbols come first",
                    base_name(own->path));
        else
            explain(v,
                    "own malloc: quire is loaded, but malloc comes from %.100s, which is "
                    "loaded before it",
                    base_name(own->path));
    } else if (f->page.serving) {
        v->state = VERDICT_SERVED;
    } else {
        v->state = VERDICT_IDLE;
        explain(v, "quire is loaded, but no allocation has reached it yet");
    }
}

static void explain_error(pid_t pid, int err, struct verdict *v)
{
    if (err == ENOENT || err == ESRCH)
        explain(v, "no such process");
    else if (err == EACCES || err == EPERM)
        explain(v, "permission denied: only its owner and root may look into process %d", (int)pid);
    else
        explain(v, "/proc/%d/maps: %s", (int)pid, strerror(err));
}

static bool readable(pid_t pid, const struct mappings *maps)
{
    char byte;

    for (size_t i = 0; i < maps->count; i++)
        if (process_read(pid, maps->all[i].start, &byte, 1))
            return true;
    return false;
}

void verdict_of(pid_t pid, struct verdict *v)
{
    const struct mapping *own;
    struct found f = {0};
    struct mappings maps;
    int err;

    memset(v, 0, sizeof(*v));
    v->state = VERDICT_UNKNOWN;
    v->loading = true;
    err = process_mappings(pid, &maps);
    if (err) {
        explain_error(pid, err, v);
        return;
    }
    for (size_t i = 0; i < maps.count; i++)
        v->loading &= !is_libc(&maps.all[i]);
    if (maps.count == 0) {
        explain(v, "no program: a kernel thread, or a process that has ended");
    } else if (!readable(pid, &maps)) {
        explain(v,
                "permission denied: the memory of process %d cannot be read (try as root; "
                "kernel.yama.ptrace_scope decides)",
                (int)pid);
    } else {
        own = malloc_object(pid, &maps);
        find_quire(pid, &maps, own, &f);
        if (f.addr) {
            explain_presence(&maps, own, &f, v);
        } else {
            v->state = VERDICT_ABSENT;
            explain_absence(pid, own, v);
        }
    }
    mappings_free(&maps);
}
