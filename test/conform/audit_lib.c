/* audit_lib.c - an auditor that allocates in each of its callbacks (see audit.c). */
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCKS = 256 };
static unsigned char *blocks[BLOCKS];
static unsigned int used;

static size_t size_of(unsigned int i)
{
    return (size_t)1 << (i % 18);
}

static void allocate(void)
{
    if (used < BLOCKS) {
        blocks[used] = malloc(size_of(used));
        if (blocks[used] != NULL) {
            memset(blocks[used], (int)used, size_of(used));
        }
        used++;
    }
    free(realloc(calloc(1, 100), 5000));
}

unsigned int la_version(unsigned int version);
unsigned int la_objopen(struct link_map *map, Lmid_t id, uintptr_t *cookie);
void la_activity(uintptr_t *cookie, unsigned int flag);
void la_preinit(uintptr_t *cookie);

unsigned int la_version(unsigned int version)
{
    allocate();
    return version < LAV_CURRENT ? version : LAV_CURRENT;
}

unsigned int la_objopen(struct link_map *map, Lmid_t id, uintptr_t *cookie)
{
    allocate();
    return LA_FLG_BINDTO | LA_FLG_BINDFROM;
}

void la_activity(uintptr_t *cookie, unsigned int flag)
{
    allocate();
}

/* Called when everything is loaded and main is about to run: the time to look at the blocks. */
void la_preinit(uintptr_t *cookie)
{
    static const char good[] = "auditor's blocks are intact\n";
    static const char bad[] = "auditor's blocks are damaged\n";
    const char *fd = getenv("CONFORM_AUDIT_FD");
    unsigned int intact = 0;

    for (unsigned int i = 0; i < used; i++) {
        intact += blocks[i] != NULL && blocks[i][0] == (unsigned char)i &&
                  memcmp(blocks[i], blocks[i] + 1, size_of(i) - 1) == 0;
        free(blocks[i]);
    }
    if (fd != NULL) {
        if (intact == used && used > 3) {
            (void)!write(atoi(fd), good, sizeof(good) - 1);
        } else {
            (void)!write(atoi(fd), bad, sizeof(bad) - 1);
        }
    }
}
