/*
 * Look into another process: /proc for what it is, process_vm_readv for its memory.
 */
#include "process.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static FILE *open_proc(pid_t pid, const char *what)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
    return fopen(path, "re");
}

static bool parse_mapping(char *line, struct mapping *m)
{
    char perms[5], *path;
    int at = 0;

    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %*s %*s%n", &m->start, &m->end, perms,
               &m->offset, &at) != 4 ||
        at == 0)
        return false;
    m->writable = perms[1] == 'w';
    path = line + at;
    path += strspn(path, " ");
    if (strlen(path) > 10 && strcmp(path + strlen(path) - 10, " (deleted)") == 0)
        path[strlen(path) - 10] = '\0';
    m->path = strdup(path);
    return m->path != NULL;
}

/* The program is what its entry point lies in: other objects may be mapped below it. */
static const char *find_program(pid_t pid, const struct mappings *maps)
{
    uint64_t entry;

    if (process_auxv(pid, AT_ENTRY, &entry))
        for (size_t i = 0; i < maps->count; i++)
            if (entry >= maps->all[i].start && entry < maps->all[i].end)
                return maps->all[i].path;
    return "";
}

int process_mappings(pid_t pid, struct mappings *maps)
{
    FILE *f = open_proc(pid, "maps");
    char *line = NULL;
    size_t size = 0, room = 0;
    int err = 0;

    memset(maps, 0, sizeof(*maps));
    if (!f)
        return errno;
    errno = 0;
    while (getline(&line, &size, f) > 0) {
        if (maps->count == room) {
            struct mapping *more;

            room = room ? 2 * room : 64;
            more = reallocarray(maps->all, room, sizeof(*more));
            if (!more) {
                err = ENOMEM;
                break;
            }
            maps->all = more;
        }
        if (parse_mapping(line, &maps->all[maps->count]))
            maps->count++;
    }
    /* Opening works for everybody who may see the process; reading is what needs the right. */
    if (!err && ferror(f))
        err = errno ? errno : EIO;
    free(line);
    fclose(f);
    if (err)
        mappings_free(maps);
    else
        maps->program = find_program(pid, maps);
    return err;
}

void mappings_free(struct mappings *maps)
{
    for (size_t i = 0; i < maps->count; i++)
        free(maps->all[i].path);
    free(maps->all);
    memset(maps, 0, sizeof(*maps));
}

bool process_read(pid_t pid, uint64_t addr, void *buf, size_t len)
{
    struct iovec local = {buf, len}, remote = {(void *)(uintptr_t)addr, len};
    char path[64];
    ssize_t n;
    int fd;

    n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
    if (n == (ssize_t)len)
        return true;
    if (n >= 0 || (errno != EPERM && errno != ENOSYS))
        return false;
    /* Some sandboxes refuse the system call and leave the file. */
    snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    n = pread(fd, buf, len, (off_t)addr);
    close(fd);
    return n == (ssize_t)len;
}

bool process_auxv(pid_t pid, uint64_t type, uint64_t *value)
{
    FILE *f = open_proc(pid, "auxv");
    ElfW(auxv_t) entry;
    bool found = false;

    if (!f)
        return false;
    while (!found && fread(&entry, sizeof(entry), 1, f) == 1 && entry.a_type != AT_NULL) {
        if (entry.a_type == type) {
            *value = entry.a_un.a_val;
            found = true;
        }
    }
    fclose(f);
    return found;
}

bool process_environ(pid_t pid, const char *name, char *value, size_t size)
{
    FILE *f = open_proc(pid, "environ");
    size_t room = 0, len = strlen(name);
    char *entry = NULL;
    bool found = false;

    if (!f)
        return false;
    while (!found && getdelim(&entry, &room, '\0', f) > 0) {
        if (strncmp(entry, name, len) == 0 && entry[len] == '=') {
            snprintf(value, size, "%s", entry + len + 1);
            found = true;
        }
    }
    free(entry);
    fclose(f);
    return found;
}

pid_t process_inner_pid(pid_t pid)
{
    FILE *f = open_proc(pid, "status");
    char *line = NULL, *last;
    pid_t inner = pid;
    size_t size = 0;

    if (!f)
        return pid;
    while (getline(&line, &size, f) > 0) {
        if (strncmp(line, "NSpid:", 6) != 0)
            continue;
        last = strrchr(line, '\t');
        if (last)
            inner = (pid_t)atoi(last + 1);
        break;
    }
    free(line);
    fclose(f);
    return inner;
}

bool process_name(pid_t pid, char *name, size_t size)
{
    FILE *f = open_proc(pid, "comm");
    bool ok = f && fgets(name, (int)size, f);

    if (ok)
        name[strcspn(name, "\n")] = '\0';
    if (f)
        fclose(f);
    return ok;
}
