/*
 * crc32c.c - see crc32c.h: eight bytes at a time, by tables.
 *
 * table[k][b] is what byte b contributes when k more bytes follow it in the
 * group; the sum over GF(2) of eight such terms is the CRC of the group.
 */
#include "cow/crc32c.h"

#include <stdatomic.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* reflected */

static uint32_t table[8][256];
static _Atomic bool ready;

/* Several threads may do this at once: they write the same. */
static void make_table(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int bit = 0; bit < 8; bit++)
            c = c >> 1 ^ (c & 1 ? POLYNOMIAL : 0);
        __atomic_store_n(&table[0][b], c, __ATOMIC_RELAXED);
    }
    for (uint32_t b = 0; b < 256; b++)
        for (int k = 1; k < 8; k++) {
            uint32_t c = table[k - 1][b];
            __atomic_store_n(&table[k][b], c >> 8 ^ table[0][c & 255], __ATOMIC_RELAXED);
        }
    /* Release: who sees it ready sees the table. */
    atomic_store_explicit(&ready, true, memory_order_release);
}

static uint64_t load8(const unsigned char *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w; /* little-endian, as all machines that quire knows */
}

uint32_t q_crc32c(uint32_t crc, const void *data, size_t len)
{
    const unsigned char *p = data;

    if (!atomic_load_explicit(&ready, memory_order_acquire))
        make_table();
    crc = ~crc;
    for (; len >= 8; len -= 8, p += 8) {
        uint64_t w = load8(p) ^ crc;

        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= table[7 - k][w >> (8 * k) & 255];
    }
    while (len-- > 0)
        crc = crc >> 8 ^ table[0][(crc ^ *p++) & 255];
    return ~crc;
}
