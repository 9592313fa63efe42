/*
 * quire run: start a program with the library preloaded.
 *
 * The program takes this process over, so signals, exit status and process id are its own.
 */
#include "program.h"
#include "tool.h"

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: quire run [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
    "Run PROGRAM with quire as its malloc, and return its exit status.\n"
    "\n"
    "  -s, --stats        print a table of what was allocated when the program ends\n"
    "  -c, --conf=STRING  options of the library, as in QUIRE_CONF: name:value,name:value\n"
    "                     (`quire options` lists them); may be given more than once\n"
    "  -h, --help         show this text\n"
    "\n"
    "An LD_PRELOAD that is set already is kept, behind quire. Programs that cannot be\n"
    "preloaded into (static, set-user-id, of another architecture) run all the same, with a\n"
    "warning. Without PROGRAM the exit status is 2; 125 where quire itself fails, 126 and 127\n"
    "where PROGRAM cannot be executed or found.\n";

/* Say so where the loader will not load quire into this program. The program runs anyway. */
static void warn_unloadable(const char *name, const struct program *p)
{
    char theirs[64], ours[64];

    if (!p->elf)
        return;
    if (program_foreign(p))
        warnx("warning: %s is a %s program and this quire is %s: it runs without quire", name,
              program_arch(p->elf_class, p->machine, theirs, sizeof(theirs)),
              program_own_arch(ours, sizeof(ours)));
    else if (!p->dynamic)
        warnx("warning: %s is statically linked: it runs without quire, unless quire was linked "
              "into it",
              name);
    else if (p->secure)
        warnx("warning: %s is set-user-id, set-group-id or has file capabilities: the loader "
              "ignores LD_PRELOAD, it runs without quire",
              name);
    else if (program_musl(p))
        warnx("warning: %s is linked with musl and this quire with glibc: it may not start", name);
}

int cmd_run(int argc, char **argv)
{
    static const struct option options[] = {
        {"stats", no_argument, NULL, 's'},
        {"conf", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    char library[PATH_MAX], path[PATH_MAX];
    bool stats = false;
    struct program p;
    int opt, error;

    while ((opt = getopt_long(argc, argv, "+sc:h", options, NULL)) != -1) {
        switch (opt) {
        case 's':
            stats = true;
            break;
        case 'c':
            if (!conf_append(optarg))
                err(EXIT_OURS, "QUIRE_CONF");
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            fputs("Try `quire run --help`.\n", stderr);
            return EXIT_USAGE;
        }
    }
    argv += optind;
    if (!argv[0]) {
        fputs("quire run: which program? (`quire run --help` says more)\n", stderr);
        return EXIT_USAGE;
    }
    if (!library_find(library) || !library_preload(library))
        return EXIT_OURS;
    /* Last, so that --stats holds whatever the environment says. */
    if (stats && !conf_append("stats:1"))
        err(EXIT_OURS, "QUIRE_CONF");

    error = program_lookup(argv[0], path);
    if (error == 0) {
        if (program_inspect(path, &p) == 0)
            warn_unloadable(argv[0], &p);
        program_exec(path, argv);
        error = errno;
    }
    warnx("%s: %s", argv[0], strerror(error));
    return error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}
