/* early_lib.h - a library whose constructor allocates (see early_lib.c). */
#ifndef EARLY_LIB_H
#define EARLY_LIB_H

/* How many of the blocks that the constructor allocated are missing or overwritten. */
int early_lib_check(void);

#endif
