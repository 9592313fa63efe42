/* high.h - what the tests of pages without addresses, and of areas, share. */
#ifndef QUIRE_TEST_PAGES_HIGH_H
#define QUIRE_TEST_PAGES_HIGH_H

#include "../conform/conform.h"
#include "quire/highmem.h"

size_t page_bytes(void);

/* A block of zone HIGHMEM; where there is none, the case is skipped. */
struct quire_page *high(unsigned order);

/* True where touching p ends the process by SIGSEGV or SIGBUS. */
bool faults(const void *p);

#endif
