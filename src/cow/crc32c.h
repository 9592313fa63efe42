/* crc32c.h - the CRC of Castagnoli, "Optimization of cyclic redundancy-check codes", 1993. */
#ifndef Q_COW_CRC32C_H
#define Q_COW_CRC32C_H

#include "base/types.h"

/* Continue from crc (0 to begin) over len bytes. */
uint32_t q_crc32c(uint32_t crc, const void *data, size_t len);

#endif
