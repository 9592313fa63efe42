/* procfs.c - the views of src/stat for programs: into a buffer, or to a descriptor. */
#include <errno.h>
#include <string.h>

#include "malloc/malloc.h"
#include "quire/quire.h"
#include "stat/view.h"

static int fail(int error)
{
    errno = error;
    return -1;
}

static int render(const char *name, unsigned flags, struct q_view_text *text)
{
    if (name == NULL || (flags & ~QUIRE_PROCFS_JSON) != 0)
        return EINVAL;
    if (q_interrupted())
        return EAGAIN; /* the locks may be our own */
    q_enter();
    int error = q_view_render(name, (flags & QUIRE_PROCFS_JSON) != 0, text);
    q_leave();
    return error;
}

Q_PUBLIC ssize_t quire_procfs(const char *name, unsigned flags, char *buf, size_t size)
{
    struct q_view_text text;
    int error = render(name, flags, &text);

    if (error != 0)
        return fail(error);
    size_t n = size > 0 ? q_min(text.len, size - 1) : 0, len = text.len;
    if (size > 0) {
        memcpy(buf, text.at, n);
        buf[n] = '\0';
    }
    q_view_release(&text);
    return (ssize_t)len;
}

Q_PUBLIC int quire_procfs_print(const char *name, unsigned flags, int fd)
{
    struct q_view_text text;
    int error = render(name, flags, &text);

    if (error != 0)
        return fail(error);
    for (size_t at = 0; at < text.len && error == 0;) {
        long n =
            q_arch_syscall6(SYS_write, fd, (long)(text.at + at), (long)(text.len - at), 0, 0, 0);

        if (n >= 0)
            at += (size_t)n;
        else if (n != -EINTR)
            error = (int)-n;
    }
    q_view_release(&text);
    return error == 0 ? 0 : fail(error);
}

Q_PUBLIC const char *quire_procfs_name(unsigned index)
{
    return q_view_name(index);
}
