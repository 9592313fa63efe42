/*
 * What the parts of the `quire` command share.
 *
 *   quire.c     the commands, --help, --version
 *   run.c       quire run: start a program with the library preloaded
 *   check.c     quire check: does quire serve this process, and if not, why
 *   trace.c     quire check -- PROGRAM: watch a program up to its first allocation
 *   verdict.c   the reasoning of check, over a process that exists
 *   process.c   look into another process: mappings, memory
 *   symbol.c    symbols of another process, as its loader finds them
 *   program.c   what an executable file is: ELF, script, static, set-user-id
 *   library.c   where libquire.so is
 *   doctor.c    quire doctor: which ways of snapshots work here
 *   options.c   the table of QUIRE_CONF's options
 */
#ifndef QUIRE_TOOLS_TOOL_H
#define QUIRE_TOOLS_TOOL_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Exit codes of `quire run` before the program takes over, as env(1) and nohup(1) have them. */
enum { EXIT_OURS = 125, EXIT_NOT_EXECUTABLE = 126, EXIT_NOT_FOUND = 127 };

/* Exit code for a command line that makes no sense. */
enum { EXIT_USAGE = 2 };

int cmd_run(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_options(int argc, char **argv);
int cmd_doctor(int argc, char **argv);

/* Path of libquire.so, absolute; false (and a message) where there is none. */
bool library_find(char path[PATH_MAX]);

/* Put the library first in LD_PRELOAD, keeping what is there; false after a message. */
bool library_preload(const char *path);

/* Append "extra" to QUIRE_CONF, keeping what is there. */
bool conf_append(const char *extra);

/* What is printed of the options, also by `quire --help`. */
void options_print(void);

#endif
