/*
 * quire check: say whether quire serves a process, and if not, why.
 */
#include "program.h"
#include "tool.h"
#include "trace.h"
#include "verdict.h"

#include "process.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "Usage: quire check [OPTION...] PID\n"
    "       quire check [OPTION...] -- PROGRAM [ARGUMENT...]\n"
    "Say whether quire serves a running process, or would serve a program.\n"
    "\n"
    "  -q, --quiet   print nothing, only return the exit status\n"
    "  -h, --help    show this text\n"
    "\n"
    "The second form starts PROGRAM under quire, watches it up to its first allocation and\n"
    "ends it there. Where PROGRAM starts another program (a shell, env, sudo), the answer is\n"
    "about PROGRAM itself.\n"
    "\n"
    "Exit status: 0 if quire serves it; 1 if not, with the reason: not loaded, set-user-id,\n"
    "static executable, wrong architecture, own malloc, no such process, permission denied;\n"
    "2 where the command line makes no sense.\n";

static int report(const struct verdict *v, const char *what, bool quiet)
{
    bool idle = v->state == VERDICT_IDLE && v->bound, yes = v->state == VERDICT_SERVED || idle;

    if (quiet)
        return !yes;
    if (yes)
        printf("yes: quire %s serves %s%s\n", v->version, what,
               idle ? ", which has not allocated anything" : "");
    else if (v->state == VERDICT_UNKNOWN)
        printf("no answer for %s: %s\n", what, v->why);
    else
        printf("no: quire does not serve %s: %s\n", what, v->why);
    return !yes;
}

static int check_pid(const char *arg, bool quiet)
{
    char name[64], what[128], *end;
    struct verdict v;
    long pid;

    errno = 0;
    pid = strtol(arg, &end, 10);
    if (errno || *end || pid <= 0 || pid > INT32_MAX) {
        fprintf(stderr,
                "quire check: '%s' is no process id; for a program, write: "
                "quire check -- %s\n",
                arg, arg);
        return EXIT_USAGE;
    }
    verdict_of((pid_t)pid, &v);
    if (process_name((pid_t)pid, name, sizeof(name)))
        snprintf(what, sizeof(what), "%s (process %ld)", name, pid);
    else
        snprintf(what, sizeof(what), "process %ld", pid);
    return report(&v, what, quiet);
}

static int check_program(char **argv, bool quiet)
{
    char library[PATH_MAX], path[PATH_MAX], theirs[64], ours[64];
    struct verdict v = {.state = VERDICT_UNKNOWN};
    struct program p;
    int error;

    if (!library_find(library) || !library_preload(library))
        return 1;
    error = program_lookup(argv[0], path);
    /* The kernel may well run it, by an emulator: what would be traced then is the emulator. */
    if (!error && program_inspect(path, &p) == 0 && program_foreign(&p)) {
        v.state = VERDICT_ABSENT;
        snprintf(v.why, sizeof(v.why),
                 "wrong architecture: it is a %s program and this quire is %s",
                 program_arch(p.elf_class, p.machine, theirs, sizeof(theirs)),
                 program_own_arch(ours, sizeof(ours)));
        return report(&v, argv[0], quiet);
    }
    if (!error)
        error = trace_program(path, argv, &v);
    if (error == EPERM)
        snprintf(v.why, sizeof(v.why),
                 "permission denied: tracing programs is not allowed here; "
                 "start it with `quire run --stats` and look for the line "
                 "`quire %s active in`",
                 QUIRE_VERSION);
    else if (error)
        snprintf(v.why, sizeof(v.why), "%s", strerror(error));
    return report(&v, argv[0], quiet);
}

int cmd_check(int argc, char **argv)
{
    static const struct option options[] = {
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    bool quiet = false, program;
    int opt;

    while ((opt = getopt_long(argc, argv, "+qh", options, NULL)) != -1) {
        switch (opt) {
        case 'q':
            quiet = true;
            break;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            fputs("Try `quire check --help`.\n", stderr);
            return EXIT_USAGE;
        }
    }
    program = optind > 0 && strcmp(argv[optind - 1], "--") == 0;
    if (!argv[optind]) {
        fputs("quire check: which process? (`quire check --help` says more)\n", stderr);
        return EXIT_USAGE;
    }
    if (program)
        return check_program(argv + optind, quiet);
    if (argv[optind + 1]) {
        fputs("quire check: one process id at a time; a program comes after --\n", stderr);
        return EXIT_USAGE;
    }
    return check_pid(argv[optind], quiet);
}
