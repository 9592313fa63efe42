/*
 * quire - run programs with quire as their malloc, and check that they do.
 *
 * This file has the commands' names and the texts about all of them; each command has its own.
 */
#include "tool.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static int cmd_version(int argc, char **argv);
static int cmd_path(int argc, char **argv);
static int cmd_help(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *usage, *meaning;
} commands[] = {
    {"run", cmd_run, "run [--stats] [--conf STR] -- PROGRAM ARGS...",
     "run a program with quire as its malloc"},
    {"check", cmd_check, "check PID | -- PROGRAM ARGS...",
     "does quire serve this process, and if not, why"},
    {"options", cmd_options, "options", "list the options of the library"},
    {"doctor", cmd_doctor, "doctor", "how snapshots work on this machine, and what to change"},
    {"path", cmd_path, "path", "print the library's path, for LD_PRELOAD"},
    {"version", cmd_version, "version", "print the version"},
    {"help", cmd_help, "help", "show this text"},
};

#define NR_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int cmd_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    puts("quire: the kernel's memory management as a malloc.\n\nUsage:");
    for (size_t i = 0; i < NR_COMMANDS; i++)
        printf("  quire %-46s %s\n", commands[i].usage, commands[i].meaning);
    puts("\nEach command has a --help of its own; the manual is quire(1).");
    return 0;
}

/* The commands that take nothing but --help. Returns an exit status, or -1 to go on. */
static int only_help(int argc, char **argv, const char *text)
{
    if (argc < 2)
        return -1;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        puts(text);
        return 0;
    }
    fprintf(stderr, "%s takes no arguments\n", argv[0]);
    return EXIT_USAGE;
}

static int cmd_version(int argc, char **argv)
{
    int status = only_help(argc, argv, "Usage: quire version\nPrint the version of this command.");

    if (status < 0)
        status = printf("quire %s\n", QUIRE_VERSION) < 0;
    return status;
}

static int cmd_path(int argc, char **argv)
{
    int status = only_help(argc, argv,
                           "Usage: quire path\nPrint the path of libquire.so, as in\n"
                           "  LD_PRELOAD=$(quire path) PROGRAM");
    char path[PATH_MAX];

    if (status < 0) {
        status = !library_find(path);
        if (!status)
            puts(path);
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;
    char title[64];

    if (!name) {
        cmd_help(argc, argv);
        return EXIT_USAGE;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    for (size_t i = 0; i < NR_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) != 0)
            continue;
        /* getopt's complaints begin with what it finds here. */
        snprintf(title, sizeof(title), "quire %s", name);
        argv[1] = title;
        return commands[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "quire: there is no command '%s'; `quire help` lists them\n", name);
    return EXIT_USAGE;
}
