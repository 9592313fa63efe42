"""gdb: breakpoints, a backtrace, types, values and disassembly of a small program."""
import re

SECONDS = 60
SOURCE = r"""
#include <stdlib.h>
#include <string.h>
struct node { int number; char name[20]; struct node *next; };
static struct node *push(struct node *list, int number)
{
    struct node *n = calloc(1, sizeof(*n));
    n->number = number;
    strcpy(n->name, number % 2 ? "odd" : "even");
    n->next = list;
    return n;
}
int main(void)
{
    struct node *list = NULL;
    for (int i = 0; i < 20; i++)
        list = push(list, i * i);
    return list->number & 0x7f;
}
"""
COMMANDS = ["set pagination off", "set confirm off", "break push if number == 81", "run",
            "backtrace", "info locals", "print *list", "print list->next->name",
            "ptype struct node", "finish", "next", "print list->next->next->number",
            "disassemble push", "info types node", "info functions push", "python print(gdb.parse_and_eval('list')['number'] + 1)",
            "delete", "continue"]


def mask(text):
    text = re.sub(r"0x[0-9a-f]+", "0x~", text)
    return re.sub(r"process \d+|LWP \d+|warning: .*\n", "~", text)


def check(box):
    gdb = box.need("gdb", "gdb")
    gcc = box.need("gcc", "gcc")

    def setup(preload):
        box.write("small.c", SOURCE)
        box.run([gcc, "-g", "-O0", "small.c", "-o", "small"], False)

    command = [gdb, "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off",
               "-iex", "set startup-with-shell off",
               # It is gdb that is under test; what it debugs is to be the same both times.
               "-iex", "unset environment LD_PRELOAD", "-iex", "unset environment QUIRE_CONF"]
    for line in COMMANDS:
        command += ["-ex", line]
    seen = box.both_commands([[*command, "./small"]], mask=mask, names=["gdb"], setup=setup,
                             ok=None)
    for words in ("number = 64", "struct node {", "Breakpoint 1, push", "[Inferior 1"):
        assert words in seen["output of command 1"], f"gdb did not get to '{words}'"
