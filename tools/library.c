/*
 * Where libquire.so is, and how it gets into a program's environment.
 *
 * The command works from a build tree (tools/quire beside src/libquire.so), from where it was
 * installed, and from an installation that was moved as a whole.
 */
#include "program.h"
#include "tool.h"

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* QUIRE_LIBDIR, where the library is installed, comes from meson.build; so does the way there. */

/* The second name is there where only a distribution's run-time package is installed. */
static const char *const names[] = {"libquire.so", "libquire.so.0"};

static bool try_dir(const char *dir, char path[PATH_MAX])
{
    char real[PATH_MAX];

    if (!realpath(dir, real))
        return false;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (snprintf(path, PATH_MAX, "%s/%s", real, names[i]) < PATH_MAX && access(path, R_OK) == 0)
            return true;
    }
    return false;
}

bool library_find(char path[PATH_MAX])
{
    char self[PATH_MAX], dir[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    if (n > 0) {
        self[n] = '\0';
        slash = strrchr(self, '/');
        *slash = '\0';
        /* Only a build tree keeps the command in "tools": /usr/local/src is no place to look. */
        if (strcmp(base_name(self), "tools") == 0) {
            if (snprintf(dir, sizeof(dir), "%s/../src", self) < (int)sizeof(dir) &&
                try_dir(dir, path))
                return true;
        }
        if (snprintf(dir, sizeof(dir), "%s/%s", self, QUIRE_LIBDIR_FROM_BINDIR) <
                (int)sizeof(dir) &&
            try_dir(dir, path))
            return true;
    }
    if (try_dir(QUIRE_LIBDIR, path))
        return true;
    warnx("libquire.so is neither beside this command nor in %s; "
          "`meson install -C build/release` puts it there",
          QUIRE_LIBDIR);
    return false;
}

/* Is "path" one of the entries of LD_PRELOAD, which spaces and colons separate? */
static bool first_in_list(const char *list, const char *path)
{
    size_t len = strlen(path);

    list += strspn(list, " :");
    return strncmp(list, path, len) == 0 && (list[len] == '\0' || strchr(" :", list[len]));
}

bool library_preload(const char *path)
{
    const char *old = getenv("LD_PRELOAD");
    char *value;

    if (strpbrk(path, " :")) {
        warnx("%s: LD_PRELOAD separates names by spaces and colons, so it cannot carry this path; "
              "move the library to a directory without them",
              path);
        return false;
    }
    if (!old || !*old)
        return setenv("LD_PRELOAD", path, 1) == 0;
    if (first_in_list(old, path))
        return true;
    if (asprintf(&value, "%s:%s", path, old) < 0) {
        warn("LD_PRELOAD");
        return false;
    }
    if (setenv("LD_PRELOAD", value, 1) != 0) {
        warn("LD_PRELOAD");
        free(value);
        return false;
    }
    free(value);
    return true;
}

bool conf_append(const char *extra)
{
    const char *old = getenv("QUIRE_CONF");
    char *value;
    int rc;

    if (!old || !*old)
        return setenv("QUIRE_CONF", extra, 1) == 0;
    if (asprintf(&value, "%s,%s", old, extra) < 0)
        return false;
    rc = setenv("QUIRE_CONF", value, 1);
    free(value);
    return rc == 0;
}
