/*
 * quire options: what QUIRE_CONF understands.
 *
 * The library has the table that counts (src/base/opt.c) and keeps no prose in memory; this is the
 * prose. A test compares the two.
 */
#include "tool.h"

#include <getopt.h>
#include <stdio.h>

static const struct {
    const char *name, *values, *preset, *meaning;
} table[] = {
    {"stats", "0|1", "0", "print a table on standard error when the program ends"},
    {"stats_file", "PATH", "", "append that table to this file instead"},
    {"misuse", "abort|report", "abort", "after a wrong free: end the program, or go on"},
    {"huge", "auto|off|on", "auto", "ask the kernel for 2 MiB pages"},
    {"decay_ms", "NUMBER", "500", "how long free memory stays resident, about"},
    {"limit", "SIZE", "0", "bytes the heap may hold, then ENOMEM; 0: no limit"},
    {"numa", "auto|off|interleave", "auto", "keep memory on the node that uses it"},
    {"numa_fake", "NUMBER", "0", "pretend that many nodes; 0: ask the kernel"},
    {"model", "auto|flat|sparse", "auto", "one address window, or sections as they are needed"},
    {"window", "SIZE", "0", "address space to reserve; 0: by the size of memory"},
    {"spare", "SIZE", "512K", "free memory kept at hand in the lists of the CPUs, in all"},
    {"populate", "0|1", "1", "fault pages in ahead of their use, in proportion"},
    {"kswapd", "0|1", "0", "give memory back by a thread in the background"},
    {"cgroup", "auto|PATH", "", "keep to the memory limits of a control group"},
    {"fork", "copy|shared", "copy", "children share the heap until one side writes (quire_fork)"},
    {"verbose", "0|1", "0", "say how the heap was set up"},
};

static const char help[] =
    "Usage: quire options\n"
    "List the options of the library: their names, values, defaults and meaning.\n"
    "\n"
    "  -h, --help  show this text\n";

void options_print(void)
{
    printf("%-11s %-19s %-8s %s\n", "OPTION", "VALUES", "DEFAULT", "MEANING");
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        printf("%-11s %-19s %-8s %s\n", table[i].name, table[i].values,
               *table[i].preset ? table[i].preset : "-", table[i].meaning);
}

int cmd_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int opt;

    while ((opt = getopt_long(argc, argv, "+h", options, NULL)) != -1) {
        if (opt == 'h') {
            fputs(help, stdout);
            return 0;
        }
        return EXIT_USAGE;
    }
    options_print();
    puts("\nSet them by QUIRE_CONF=\"name:value,name:value\" or by `quire run --conf`. Where one\n"
         "is given twice, the last counts. SIZE takes K, M, G or T. Set-user-id programs read\n"
         "none of it.");
    return 0;
}
