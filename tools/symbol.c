/*
 * Symbols of another process, looked up as its loader does.
 *
 * They are read from the process's memory rather than from the files, which an upgrade may have
 * replaced, or which lie in another mount namespace.
 */
#include "symbol.h"

#include "process.h"

#include <elf.h>
#include <link.h>
#include <string.h>

/* More than any object has dynamic entries, or any process objects. */
#define MAX_ENTRIES 65536

/* What the dynamic section of an object says, as addresses in the process. */
struct dynamic {
    pid_t pid;
    uint64_t bias; /* what to add to the file's addresses */
    uint64_t symtab, strtab, strsz, gnu_hash, debug;
};

/*
 * glibc replaces the addresses in a dynamic section by absolute ones as it loads an object; before
 * that, and with other loaders, they are relative.
 */
static uint64_t absolute(const struct dynamic *d, uint64_t addr)
{
    return addr < d->bias ? addr + d->bias : addr;
}

/* Read the dynamic section at "section" of an object that is "bias" above its file addresses. */
static bool read_dynamic(pid_t pid, uint64_t bias, uint64_t section, struct dynamic *d)
{
    ElfW(Dyn) dyn;

    memset(d, 0, sizeof(*d));
    d->pid = pid;
    d->bias = bias;
    for (unsigned int i = 0; i < MAX_ENTRIES; i++) {
        if (!process_read(pid, section + i * sizeof(dyn), &dyn, sizeof(dyn)))
            return false;
        switch (dyn.d_tag) {
        case DT_NULL:
            return d->symtab && d->strtab;
        case DT_SYMTAB:
            d->symtab = absolute(d, dyn.d_un.d_ptr);
            break;
        case DT_STRTAB:
            d->strtab = absolute(d, dyn.d_un.d_ptr);
            break;
        case DT_STRSZ:
            d->strsz = dyn.d_un.d_val;
            break;
        case DT_GNU_HASH:
            d->gnu_hash = absolute(d, dyn.d_un.d_ptr);
            break;
        case DT_DEBUG:
            d->debug = dyn.d_un.d_ptr;
            break;
        }
    }
    return false;
}

/* The same of the object whose first byte is mapped at "base". */
static bool read_object(pid_t pid, uint64_t base, struct dynamic *d)
{
    uint64_t first = UINT64_MAX, section = 0;
    ElfW(Ehdr) eh;
    ElfW(Phdr) ph;

    if (!process_read(pid, base, &eh, sizeof(eh)) || memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 ||
        eh.e_ident[EI_CLASS] != (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) ||
        eh.e_phentsize != sizeof(ph))
        return false;
    for (unsigned int i = 0; i < eh.e_phnum; i++) {
        if (!process_read(pid, base + eh.e_phoff + i * sizeof(ph), &ph, sizeof(ph)))
            return false;
        if (ph.p_type == PT_LOAD && first == UINT64_MAX)
            first = ph.p_vaddr - ph.p_offset;
        if (ph.p_type == PT_DYNAMIC)
            section = ph.p_vaddr;
    }
    return first != UINT64_MAX && section &&
           read_dynamic(pid, base - first, section + base - first, d);
}

static uint32_t gnu_hash(const char *name)
{
    uint32_t h = 5381;

    while (*name)
        h = h * 33 + (unsigned char)*name++;
    return h;
}

static bool same_name(const struct dynamic *d, uint32_t at, const char *name)
{
    char buf[64];
    size_t len = strlen(name) + 1;

    return len <= sizeof(buf) && at < d->strsz && len <= d->strsz - at &&
           process_read(d->pid, d->strtab + at, buf, len) && memcmp(buf, name, len) == 0;
}

static uint64_t lookup(const struct dynamic *d, const char *name)
{
    struct {
        uint32_t buckets, offset, bloom, shift;
    } head = {0};
    uint32_t hash = gnu_hash(name), i = 0, h = 0;
    uint64_t buckets, chain;
    ElfW(Sym) sym;

    if (!d->gnu_hash || !process_read(d->pid, d->gnu_hash, &head, sizeof(head)) || !head.buckets)
        return 0;
    buckets = d->gnu_hash + sizeof(head) + (uint64_t)head.bloom * sizeof(ElfW(Addr));
    chain = buckets + (uint64_t)head.buckets * sizeof(uint32_t);
    if (!process_read(d->pid, buckets + hash % head.buckets * sizeof(i), &i, sizeof(i)))
        return 0;
    /* Symbols of a bucket lie in a row; the last one's hash has its low bit set. */
    for (; i && i >= head.offset; i++) {
        if (!process_read(d->pid, chain + (uint64_t)(i - head.offset) * sizeof(h), &h, sizeof(h)))
            return 0;
        if ((h | 1) == (hash | 1) &&
            process_read(d->pid, d->symtab + (uint64_t)i * sizeof(sym), &sym, sizeof(sym)) &&
            sym.st_shndx != SHN_UNDEF && same_name(d, sym.st_name, name))
            return d->bias + sym.st_value;
        if (h & 1)
            return 0;
    }
    return 0;
}

uint64_t symbol_in_object(pid_t pid, uint64_t base, const char *name)
{
    struct dynamic d;

    return read_object(pid, base, &d) ? lookup(&d, name) : 0;
}

uint64_t symbol_resolve(pid_t pid, uint64_t program_base, const char *name)
{
    struct r_debug debug = {0};
    struct link_map map = {0};
    struct dynamic d;
    uint64_t at, addr;

    if (!read_object(pid, program_base, &d) || !d.debug ||
        !process_read(pid, d.debug, &debug, sizeof(debug)))
        return 0;
    at = (uintptr_t)debug.r_map;
    for (unsigned int i = 0; at && i < MAX_ENTRIES; i++) {
        if (!process_read(pid, at, &map, sizeof(map)))
            return 0;
        if (read_dynamic(pid, map.l_addr, (uintptr_t)map.l_ld, &d)) {
            addr = lookup(&d, name);
            if (addr)
                return addr;
        }
        at = (uintptr_t)map.l_next;
    }
    return 0;
}
