/*
 * maps.c - which mappings the kernel has, from /proc/self/maps.
 *
 * A line begins "START-END rw-p"; of the rest nothing is of interest. The file
 * is read in pieces into a buffer on the stack.
 */
#include <fcntl.h>

#include "base/sys.h"
#include "cow/range.h"

struct parser {
    enum { START, END, MODE, REST } field;
    uintptr_t start, end;
    unsigned nr_mode; /* characters of the mode seen */
    bool writable;
};

static unsigned digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* True at the end of a line. */
static bool parse(struct parser *p, char c)
{
    if (c == '\n')
        return true;
    switch (p->field) {
    case START:
        if (c == '-')
            p->field = END;
        else
            p->start = p->start << 4 | digit(c);
        break;
    case END:
        if (c == ' ')
            p->field = MODE;
        else
            p->end = p->end << 4 | digit(c);
        break;
    case MODE:
        p->writable |= p->nr_mode++ == 1 && c == 'w';
        if (c == ' ')
            p->field = REST;
        break;
    case REST:
        break;
    }
    return false;
}

size_t q_mappings(uintptr_t start, uintptr_t end, struct q_range *at, size_t room)
{
    long fd = q_arch_syscall6(SYS_openat, AT_FDCWD, (long)"/proc/self/maps", O_RDONLY | O_CLOEXEC,
                              0, 0, 0);
    struct parser p = {0};
    char buf[4096];
    size_t nr = 0;
    long n;

    if (fd < 0)
        return 0;
    while (nr <= room && (n = q_arch_syscall6(SYS_read, fd, (long)buf, sizeof(buf), 0, 0, 0)) > 0) {
        for (long i = 0; i < n; i++) {
            if (!parse(&p, buf[i]))
                continue;
            uintptr_t lo = q_max(p.start, start), hi = q_min(p.end, end);
            if (p.writable && lo < hi && nr++ < room)
                at[nr - 1] = (struct q_range){lo, hi};
            p = (struct parser){0};
        }
    }
    q_arch_syscall6(SYS_close, fd, 0, 0, 0, 0, 0);
    return nr <= room ? nr : 0;
}
