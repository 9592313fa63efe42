/*
 * What an executable file is, as far as preloading into it goes.
 */
#ifndef QUIRE_TOOLS_PROGRAM_H
#define QUIRE_TOOLS_PROGRAM_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct program {
    char path[PATH_MAX];     /* the file the kernel maps: for a script, its interpreter */
    bool elf;                /* an ELF file with sane headers */
    unsigned char elf_class; /* ELFCLASS32 or ELFCLASS64 */
    uint16_t machine;        /* EM_X86_64 and so on */
    bool dynamic;            /* names a program interpreter (ld.so) */
    char interp[256];        /* that interpreter */
    bool secure;             /* starts with other rights than its caller's (AT_SECURE) */
};

/*
 * Find the file that "name" means, through PATH as execvp() does. Returns 0 or an errno.
 */
int program_lookup(const char *name, char path[PATH_MAX]);

/* Fill in "p" from the file at "path", following #! lines. Returns 0 or an errno. */
int program_inspect(const char *path, struct program *p);

/* Replace this process by the program; returns only on failure, with errno set. */
void program_exec(const char *path, char **argv);

/* Is it for another processor or word size than this command (and so the library) is? */
bool program_foreign(const struct program *p);

/* "64-bit x86-64" */
const char *program_arch(unsigned char elf_class, uint16_t machine, char *buf, size_t size);

/* The same of this very command. */
const char *program_own_arch(char *buf, size_t size);

/* Was it linked against musl rather than glibc? */
bool program_musl(const struct program *p);

/* The last part of a path. */
const char *base_name(const char *path);

#endif
