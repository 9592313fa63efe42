/* cgroup.c - see cgroup.h. */
#include "malloc/cgroup.h"

#include <string.h>

#include "base/msg.h"
#include "base/opt.h"
#include "base/sys.h"
#include "zone/reclaim.h"

#define ROOM 512u
#define STAT_ROOM 4096u
#define SHARE 16u         /* one part in so many is left for what is not heap, or comes too fast, */
#define HUGE_SHARE 12u    /* and where huge pages may be used, of which the kernel fills in more */
#define LAST_SHARE 32u    /* so little is left below memory.max only with others in the group */
#define STALL_PERCENT 10u /* of the last ten seconds, in which some task waited for memory */

/* Where version 2 is mounted: alone, or beside version 1. */
static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};

/* The file `name` of a directory, as text. False where it is not there. */
static bool read_in(const char *folder, const char *name, char *text, size_t size)
{
    char path[ROOM];
    struct q_buf b = {.at = path, .size = sizeof(path)};

    q_buf_printf(&b, "%s/%s", folder, name);
    return b.len + 1 < b.size && q_read_file(path, text, size) > 0;
}

static size_t number(const char *p)
{
    size_t n = 0;

    for (; *p >= '0' && *p <= '9'; p++)
        n = n * 10 + (size_t)(*p - '0');
    return n;
}

/* A number of bytes; 0 where it says "max", or nothing that is a number. */
static size_t read_bytes(const char *folder, const char *name)
{
    char text[ROOM];

    return read_in(folder, name, text, sizeof(text)) ? number(text) : 0;
}

/* To the group above. What is none any more has no such files. */
static bool go_up(char folder[ROOM])
{
    char *slash = strrchr(folder, '/');

    if (slash == NULL || slash == folder)
        return false;
    *slash = '\0';
    return true;
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
        if (read_in(folder, "cgroup.controllers", max, sizeof(max)))
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
    do {
        size_t max = read_bytes(folder, "memory.max");

        if (max != 0 && (least == 0 || max < least))
            least = max;
    } while (go_up(folder));
    bool huge = q_opt.huge != Q_HUGE_OFF && least >= Q_HUGE_FROM_BYTES;
    return least - least / (huge ? HUGE_SHARE : SHARE);
}

/* What follows `name` in a text; 0 where it is not in it. */
static size_t field(const char *text, const char *name)
{
    const char *p = strstr(text, name);

    return p != NULL ? number(p + strlen(name)) : 0;
}

/*
 * Bytes that the kernel cannot get back by itself. A group that reads files
 * fills up with their pages to its very limit and lacks nothing.
 */
static size_t held(const char *folder)
{
    char text[STAT_ROOM];
    size_t now = read_bytes(folder, "memory.current"), files = 0;

    if (read_in(folder, "memory.stat", text, sizeof(text)))
        files = field(text, "\ninactive_file ") + field(text, "\nactive_file ");
    return now - q_min(files, now);
}

static bool nearly_full(const char *folder)
{
    size_t high = read_bytes(folder, "memory.high"), max = read_bytes(folder, "memory.max");

    if (high == 0 && max == 0)
        return false;
    size_t now = held(folder);
    return (high != 0 && now > high - high / SHARE) || (max != 0 && now > max - max / LAST_SHARE);
}

/* "some avg10=12.34 ...". */
static bool stalls(const char *text)
{
    return field(text, "some avg10=") >= STALL_PERCENT;
}

bool q_cgroup_pressure(void)
{
    char folder[ROOM], text[ROOM];

    if (!find_folder(folder))
        return q_read_file("/proc/pressure/memory", text, sizeof(text)) > 0 && stalls(text);
    if (read_in(folder, "memory.pressure", text, sizeof(text)) && stalls(text))
        return true;
    do {
        if (nearly_full(folder))
            return true;
    } while (go_up(folder));
    return false;
}
