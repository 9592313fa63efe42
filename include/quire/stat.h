/*
 * stat.h - the page by which other programs see that quire is at work.
 *
 * Every process that quire is loaded into has one, as the data symbol
 * quire_stat_page. It may be read from outside (process_vm_readv(2)); the
 * layout only ever grows at the end.
 */
#ifndef QUIRE_STAT_H
#define QUIRE_STAT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUIRE_STAT_MAGIC "quire\0\0"
#define QUIRE_STAT_LAYOUT 1

struct quire_stat_page {
    char magic[8];     /* "quire" and zeroes */
    uint32_t layout;   /* QUIRE_STAT_LAYOUT */
    uint32_t size;     /* bytes of this structure */
    char version[16];  /* "0.1.0" */
    uint64_t pid;      /* process that set it up last (a forked child sets its own) */
    uint64_t serving;  /* 1 once an allocation was served */
    uint64_t reserved; /* 0 */
};

extern struct quire_stat_page quire_stat_page;

#ifdef __cplusplus
}
#endif

#endif
