/* cgroup.c - see cgroup.h. */
#include "malloc/cgroup.h"

#include <string.h>

#include "base/msg.h"
#include "base/opt.h"
#include "base/sys.h"

#define ROOM 512u
#define SHARE 16u         /* one part in so many is left for what is not heap, or comes too fast */
#define STALL_PERCENT 10u /* of the last ten seconds, in which some task waited for memory */

/* Where version 2 is mounted: alone, or beside version 1. */
static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

/* The file `name` of a directory, as text. False where it is not there. */
static bool read_in(const char *folder, const char *name, char text[ROOM])
{
    char path[ROOM];
    struct q_buf b = {.at = path, .size = sizeof(path)};

    q_buf_printf(&b, "%s/%s", folder, name);
    return b.len + 1 < b.size && q_read_file(path, text, ROOM) > 0;
}

/* A number of bytes; 0 where it says "max", or nothing that is a number. */
static size_t read_bytes(const char *folder, const char *name)
{
    char text[ROOM];
    size_t n = 0;

    if (!read_in(folder, name, text))
        return 0;
    for (const char *p = text; *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (size_t)(*p - '0');
    return n;
}

/* The directory by the option: that one, or the process's own. False where there is none. */
static bool find_folder(char folder[ROOM])
{
    char text[4 * ROOM], max[ROOM];
    struct q_buf b = {.at = folder, .size = ROOM};

    if (q_opt.cgroup[0] == '/') {
        q_buf_printf(&b, "%s", q_opt.cgroup);
        return true;
    }
    if (strcmp(q_opt.cgroup, "auto") != 0 ||
        q_read_file("/proc/self/cgroup", text, sizeof(text)) <= 0)
        return false;
    /* The line of version 2 is "0::PATH". */
    char *at = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (at == NULL)
        return false;
    at = strchr(at, '/');
    if (at == NULL)
        return false;
    at[strcspn(at, "\n")] = '\0';
    for (unsigned i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
        b.len = 0;
        q_buf_printf(&b, "%s%s", roots[i], strcmp(at, "/") != 0 ? at : "");
        if (read_in(folder, "cgroup.controllers", max))
            return true;
    }
    return false;
}

size_t q_cgroup_limit(void)
{
    char folder[ROOM];
    size_t least = 0;

    if (!find_folder(folder))
        return 0;
    /* Upwards; what is no group any more has no such file. */
    for (char *slash = folder; slash != NULL; slash = strrchr(folder, '/')) {
        if (slash != folder)
            *slash = '\0';
        size_t max = read_bytes(folder, "memory.max");

        if (max != 0 && (least == 0 || max < least))
            least = max;
        if (strrchr(folder, '/') == folder)
            break;
    }
    return least - least / SHARE;
}

/* "some avg10=12.34 ...": the whole percent. */
static unsigned stalled(const char *text)
{
    const char *p = strstr(text, "some avg10=");
    unsigned n = 0;

    for (p = p != NULL ? p + 11 : ""; *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (unsigned)(*p - '0');
    return n;
}

bool q_cgroup_pressure(void)
{
    char folder[ROOM], text[ROOM];

    if (!find_folder(folder))
        return q_read_file("/proc/pressure/memory", text, sizeof(text)) > 0 &&
               stalled(text) >= STALL_PERCENT;
    size_t high = read_bytes(folder, "memory.high"), now = read_bytes(folder, "memory.current");
    if (high != 0 && now > high - high / SHARE)
        return true;
    return read_in(folder, "memory.pressure", text) && stalled(text) >= STALL_PERCENT;
}
