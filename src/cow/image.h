/*
 * image.h - a snapshot in a file.
 *
 *   +--------+-----------+--------+-------+--------+-------+     +-----+
 *   | header | stretches | record | pages | record | pages | ... | end |
 *   +--------+-----------+--------+-------+--------+-------+     +-----+
 *
 * All numbers are little-endian. A record announces up to 64 neighbouring
 * pages and has a CRC of each; its own CRC covers both. Pages of zeroes are
 * in no record. Records ascend by address. The end says how many records and
 * pages there were, so a file that was cut at a record's border is noticed.
 */
#ifndef Q_COW_IMAGE_H
#define Q_COW_IMAGE_H

#include "cow/cow.h"

#define Q_IMAGE_MAGIC "quiresnp"
#define Q_IMAGE_VERSION 1u
#define Q_IMAGE_BATCH 64u
#define Q_IMAGE_RECORD 0x64636572u /* "recd" */
#define Q_IMAGE_END 0x2e646e65u    /* "end." */
#define Q_IMAGE_MAX_RANGES ((uint64_t)1 << 24)

struct q_image_header {
    char magic[8];
    uint32_t version;
    uint32_t page_shift;
    uint64_t nr_ranges; /* struct q_range each, after the header */
    uint64_t bytes;     /* in all of them */
    uint32_t ranges_crc;
    uint32_t crc; /* of all before it */
};

struct q_image_record {
    uint32_t magic;
    uint32_t nr;                      /* pages; end: 0 */
    uint64_t addr;                    /* end: number of records */
    uint64_t pages_before;            /* in earlier records */
    uint32_t page_crc[Q_IMAGE_BATCH]; /* of those that there are; 0 for the rest */
    uint32_t pad;
    uint32_t crc; /* of all before it */
};

/* A record of a loaded image. */
struct q_image_run {
    uintptr_t addr;
    uint32_t nr;
    uint32_t first_crc; /* index into crc[] */
    uint64_t offset;    /* of its pages in the file */
};

struct q_image {
    int fd;
    size_t nr, room; /* runs */
    struct q_image_run *run;
    size_t nr_crc, room_crc;
    uint32_t *crc;
};

/* A mapping that grows: *array with room for `need` entries of `size` bytes. False: no memory. */
bool q_grow_array(void **array, size_t *room, size_t need, size_t size);

#endif
