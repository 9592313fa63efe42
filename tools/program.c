/*
 * What an executable file is: ELF or script, dynamic or static, which processor, whether it runs
 * with other rights than its caller's. The dynamic loader decides by the same facts whether it
 * honours LD_PRELOAD.
 */
#include "program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* The kernel follows this many #! lines before it gives up with ELOOP. */
#define MAX_SCRIPT_DEPTH 5

const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static bool executable_file(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

int program_lookup(const char *name, char path[PATH_MAX])
{
    const char *dirs = getenv("PATH");
    struct stat st;
    int err = ENOENT;

    if (!*name)
        return ENOENT;
    if (strchr(name, '/')) {
        if (strlen(name) >= PATH_MAX)
            return ENAMETOOLONG;
        strcpy(path, name);
        if (stat(path, &st) != 0)
            return errno;
        return executable_file(path) ? 0 : EACCES;
    }
    if (!dirs)
        dirs = "/usr/local/bin:/usr/bin:/bin";
    for (;;) {
        const char *end = strchrnul(dirs, ':');
        int len = (int)(end - dirs);
        int n = len ? snprintf(path, PATH_MAX, "%.*s/%s", len, dirs, name)
                    : snprintf(path, PATH_MAX, "./%s", name);

        if (n < PATH_MAX && stat(path, &st) == 0) {
            if (executable_file(path))
                return 0;
            err = EACCES;
        }
        if (!*end)
            return err;
        dirs = end + 1;
    }
}

/*
 * Will the kernel start this file with AT_SECURE set? Then the loader drops LD_PRELOAD. Root
 * running a root-owned set-user-id file gains nothing, so that is not secure.
 */
static bool starts_secure(int fd, const struct stat *st)
{
    struct statvfs vfs;

    if (fstatvfs(fd, &vfs) == 0 && (vfs.f_flag & ST_NOSUID))
        return false;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
        return false;
    if ((st->st_mode & S_ISUID) && st->st_uid != getuid())
        return true;
    if ((st->st_mode & S_ISGID) && (st->st_mode & S_IXGRP) && st->st_gid != getgid())
        return true;
    return getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0;
}

static bool read_at(int fd, void *buf, size_t len, uint64_t offset)
{
    return offset <= INT64_MAX && pread(fd, buf, len, (off_t)offset) == (ssize_t)len;
}

static void read_interp(int fd, struct program *p, uint64_t offset, uint64_t size)
{
    p->dynamic = true;
    if (size >= sizeof(p->interp))
        size = sizeof(p->interp) - 1;
    if (!read_at(fd, p->interp, size, offset))
        size = 0;
    p->interp[size] = '\0';
}

/* Both word sizes: a 64-bit quire is asked about 32-bit programs too. */
#define SCAN_HEADERS(fd, p, bits)                                                                  \
    do {                                                                                           \
        Elf##bits##_Ehdr eh;                                                                       \
        Elf##bits##_Phdr ph;                                                                       \
        if (!read_at(fd, &eh, sizeof(eh), 0) || eh.e_phentsize != sizeof(ph))                      \
            return;                                                                                \
        (p)->elf = true;                                                                           \
        (p)->machine = eh.e_machine;                                                               \
        for (unsigned int i = 0; i < eh.e_phnum; i++) {                                            \
            if (!read_at(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)))                        \
                return;                                                                            \
            if (ph.p_type == PT_INTERP)                                                            \
                read_interp(fd, p, ph.p_offset, ph.p_filesz);                                      \
        }                                                                                          \
    } while (0)

static void read_elf(int fd, struct program *p)
{
    unsigned char ident[EI_NIDENT];

    if (!read_at(fd, ident, sizeof(ident), 0) || memcmp(ident, ELFMAG, SELFMAG) != 0)
        return;
    p->elf_class = ident[EI_CLASS];
    if (ident[EI_CLASS] == ELFCLASS64)
        SCAN_HEADERS(fd, p, 64);
    else if (ident[EI_CLASS] == ELFCLASS32)
        SCAN_HEADERS(fd, p, 32);
}

/* "#! /usr/bin/perl -w" gives /usr/bin/perl; false where the file is no script. */
static bool script_interpreter(int fd, char path[PATH_MAX])
{
    char line[PATH_MAX];
    ssize_t n = pread(fd, line, sizeof(line) - 1, 0);
    char *start, *end;

    if (n < 3 || line[0] != '#' || line[1] != '!')
        return false;
    line[n] = '\0';
    line[strcspn(line, "\n")] = '\0';
    start = line + 2 + strspn(line + 2, " \t");
    end = start + strcspn(start, " \t");
    *end = '\0';
    if (!*start)
        return false;
    strcpy(path, start);
    return true;
}

int program_inspect(const char *path, struct program *p)
{
    struct stat st;

    memset(p, 0, sizeof(*p));
    if (strlen(path) >= sizeof(p->path))
        return ENAMETOOLONG;
    strcpy(p->path, path);
    for (int depth = 0; depth <= MAX_SCRIPT_DEPTH; depth++) {
        int fd = open(p->path, O_RDONLY | O_CLOEXEC);
        bool script;

        if (fd < 0)
            return errno;
        if (fstat(fd, &st) != 0) {
            int err = errno;

            close(fd);
            return err;
        }
        script = script_interpreter(fd, p->path);
        if (!script) {
            p->secure = starts_secure(fd, &st);
            read_elf(fd, p);
        }
        close(fd);
        if (!script)
            return 0;
    }
    return ELOOP;
}

void program_exec(const char *path, char **argv)
{
    struct program p;
    size_t argc = 0;
    char **sh;
    int err;

    execv(path, argv);
    err = errno;
    /* A text file without #! is a shell script by old custom; an ELF file is not. */
    if (err != ENOEXEC || program_inspect(path, &p) != 0 || p.elf) {
        errno = err;
        return;
    }
    while (argv[argc])
        argc++;
    sh = calloc(argc + 2, sizeof(*sh));
    if (!sh)
        return;
    sh[0] = (char *)"sh";
    sh[1] = (char *)path;
    for (size_t i = 1; i < argc; i++)
        sh[i + 1] = argv[i];
    execv("/bin/sh", sh);
    free(sh);
}

static const struct program *own(void)
{
    static struct program self;

    if (!self.elf)
        program_inspect("/proc/self/exe", &self);
    return &self;
}

bool program_foreign(const struct program *p)
{
    return p->elf && own()->elf &&
           (p->elf_class != own()->elf_class || p->machine != own()->machine);
}

const char *program_own_arch(char *buf, size_t size)
{
    return program_arch(own()->elf_class, own()->machine, buf, size);
}

const char *program_arch(unsigned char elf_class, uint16_t machine, char *buf, size_t size)
{
    static const struct {
        uint16_t machine;
        const char *name;
    } names[] = {
        {EM_X86_64, "x86-64"}, {EM_386, "x86"},       {EM_AARCH64, "arm64"}, {EM_ARM, "arm"},
        {EM_RISCV, "riscv"},   {EM_PPC64, "powerpc"}, {EM_S390, "s390"},     {EM_MIPS, "mips"},
    };
    const char *name = NULL;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].machine == machine)
            name = names[i].name;
    if (name)
        snprintf(buf, size, "%d-bit %s", elf_class == ELFCLASS32 ? 32 : 64, name);
    else
        snprintf(buf, size, "%d-bit machine %u", elf_class == ELFCLASS32 ? 32 : 64, machine);
    return buf;
}

bool program_musl(const struct program *p)
{
    return strncmp(base_name(p->interp), "ld-musl", 7) == 0;
}
