/* image.c - see image.h. */
#include "cow/cow.h"
int q_image_read(const struct quire_snapshot *s, uintptr_t addr, char *to, size_t len)
{
    return EIO;
}
void q_image_close(struct quire_snapshot *s)
{
}
