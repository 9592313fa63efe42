/*
 * Watch a program from its start to its first allocation.
 */
#ifndef QUIRE_TOOLS_TRACE_H
#define QUIRE_TOOLS_TRACE_H

#include "verdict.h"

/*
 * Start the program (in the environment as it is), stop it as soon as it is known whether quire
 * serves it, and end it there. Returns 0, or an errno where it could not be started.
 */
int trace_program(const char *path, char **argv, struct verdict *v);

#endif
