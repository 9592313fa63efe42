/*
 * Symbols of another process, looked up as its loader does.
 */
#ifndef QUIRE_TOOLS_SYMBOL_H
#define QUIRE_TOOLS_SYMBOL_H

#include <stdint.h>
#include <sys/types.h>

/*
 * Address of a dynamic symbol that the ELF object mapped from "base" on defines; 0 where it
 * defines no such symbol or is no such object.
 */
uint64_t symbol_in_object(pid_t pid, uint64_t base, const char *name);

/*
 * The address that the loader finds first: in the program, then in what is preloaded, then in its
 * libraries. "program_base" is where the program itself is mapped. 0 where nothing defines the
 * symbol, and in static programs, which have no loader.
 */
uint64_t symbol_resolve(pid_t pid, uint64_t program_base, const char *name);

#endif
