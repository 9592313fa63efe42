/*
 * image.h - a snapshot in a file.
 *
 *   +--------+-----------+--------+--------+-------+--------+-------+     +-----+
 *   | header | stretches | blocks | record | pages | record | pages | ... | end |
 *   +--------+-----------+--------+--------+-------+--------+-------+     +-----+
 *                                 ^        ^       ^ multiples of a page from the beginning
 *
 * All numbers are little-endian. A record announces up to 2 MiB of
 * neighbouring pages and has a CRC of each; its own CRC covers both. Pages of
 * zeroes are in no record, unless a few lie between others. Records ascend by
 * address. The end says how many records and pages there were, so a file that
 * was cut at a record's border is noticed.
 *
 * So that an image can be mapped, pages lie at multiples of a page, and the
 * blocks say where the blocks of malloc begin and how long they are.
 *
 * An increment has the pages that differ from its base's, also where they are
 * zero now, and the base's id. What is in none of its records is as in the
 * base, where the base has it, else zero.
 */
#ifndef Q_COW_IMAGE_H
#define Q_COW_IMAGE_H

#include "cow/cow.h"

#define Q_IMAGE_MAGIC "quiresnp"
#define Q_IMAGE_VERSION 2u
#define Q_IMAGE_BATCH 512u         /* pages of a record; fewer where they are larger than 4 KiB */
#define Q_IMAGE_RECORD 0x64636572u /* "recd" */
#define Q_IMAGE_END 0x2e646e65u    /* "end." */
#define Q_IMAGE_MAX_RANGES ((uint64_t)1 << 24)
#define Q_IMAGE_MAX_BLOCKS ((uint64_t)1 << 32)
#define Q_IMAGE_INCREMENT 1u /* flags: of a base */
#define Q_IMAGE_SIZED 2u     /* has blocks, maybe none */
#define Q_IMAGE_NARROW 4u    /* of a 32-bit process: in a stretch numbers of 32 bits, else of 64 */
#define Q_IMAGE_OURS (Q_WIDE_LONG ? 0u : Q_IMAGE_NARROW)

struct q_image_header {
    char magic[8];
    uint32_t version;
    uint32_t page_shift;
    uint32_t flags;
    uint32_t pad;
    uint64_t nr_ranges; /* struct q_range each, after the header */
    uint64_t bytes;     /* in all of them */
    uint64_t nr_blocks; /* struct q_block each, after the stretches */
    uint64_t root;
    uint64_t id[2], base[2]; /* of this one; of the one it was made against */
    uint32_t ranges_crc, blocks_crc;
    uint32_t pad2;
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
    uint64_t first_crc; /* index into crc[] */
    uint64_t offset;    /* of its pages in the file */
};

struct q_image {
    struct q_file file;
    uint64_t start;  /* where it begins in the file */
    size_t nr, room; /* runs */
    struct q_image_run *run;
    size_t nr_crc, room_crc;
    uint32_t *crc;
};

/* Bytes of memory that a record may announce, and what its header takes in the file. */
Q_INLINE size_t q_image_batch(void)
{
    return q_min(Q_IMAGE_BATCH, Q_PAGEBLOCK_SIZE >> q_page_shift) << q_page_shift;
}

Q_INLINE size_t q_image_record_bytes(void)
{
    return q_align_up(sizeof(struct q_image_record), q_page_size());
}

/* A mapping that grows: *array with room for `need` entries of `size` bytes. False: no memory. */
bool q_grow_array(void **array, size_t *room, size_t need, size_t size);

/* image_read.c: a page of one run, checked. 0 or an errno. */
int q_image_read_page(const struct q_image *m, const struct q_image_run *run, uintptr_t page,
                      char *to);

/* image.c: read exactly so much. 0; EBADMSG where the file ends; or an errno. */
int q_image_get(int fd, void *buf, size_t len, uint64_t at);

#endif
