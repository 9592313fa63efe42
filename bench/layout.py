#!/usr/bin/env python3
"""Writes the list of functions in src/often.lds: what small programs run of the library.

    python3 bench/layout.py
    python3 bench/layout.py --check build/release/src/libquire.so

Builds a library that is not ordered, in build/layout: valgrind names only functions of one section.
Run it when the set-up or the slow paths of malloc have changed, and look at the difference: the
pages that the library adds to every program depend on it (./dev bench small). --check says what sed
runs outside of the first 64 KiB, from its start to its end, and fails if there is anything.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

from harness import callgrind

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPT = os.path.join(ROOT, "src", "often.lds")
SMALL = (["/bin/true"], ["/bin/ls", "-l", "/"], ["/bin/sh", "-c", "/bin/true"],
         [sys.executable, "-c", "print(sum(len(str(i)) for i in range(9999)))"])
# what these call besides: blocks that grow, a heap that shrinks, mappings
LARGER = ([sys.executable, "-c", "a = [str(i) * 9 for i in range(70000)]\ndel a[::2]\n"
           "b = [str(i) for i in range(30000)]\ndel a\nc = bytes(9 << 20)"],
          ["perl", "-e", "for (1..30000) { $h{$_} = 'x' x ($_ % 300); $s .= $h{$_} } "
           "delete $h{$_} for (1..29000); $t = $s x 3; $u{$_} = $_ for (1..9000)"])
# called seldom by those, but by others all the time
ALWAYS = {"calloc", "calloc_slow", "realloc", "memalign"}
# there is only one section for what libc and the compiler add: named in the script itself
OTHERS = {"pthread_atfork", "__popcountdi2", "_init", "_fini"}
LINE = 3
FIRST = 64 << 10
SKIP = 77


def build():
    folder = os.path.join(ROOT, "build", "layout")
    if not os.path.exists(os.path.join(folder, "build.ninja")):
        subprocess.run(["meson", "setup", folder, ROOT, "--buildtype=release", "-Doften_first=false"],
                       check=True)
    subprocess.run(["meson", "compile", "-C", folder, "quire:shared_library"], check=True)
    return os.path.realpath(os.path.join(folder, "src", "libquire.so"))


def functions(library, programs):
    seen = set()
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out")
        for program in programs:
            callgrind.run(program, library, out, os.environ)
            for path, function, _, _ in callgrind.Reader(out).costs():
                if os.path.realpath(path) == library:
                    seen.add(re.sub(r"'\d+$", "", function))
    return {name for name in seen if re.fullmatch(r"[A-Za-z_][\w.]*", name)} - OTHERS


def symbols(library):
    """Addresses and names of the functions in it, in order."""
    out = subprocess.run(["nm", "-n", library], check=True, capture_output=True, text=True).stdout
    found = (line.split() for line in out.splitlines())
    return [(int(row[0], 16), row[2]) for row in found if len(row) == 3 and row[1] in "tT"]


def executed(library, folder):
    """Addresses in the file of what a small program runs of it. callgrind knows only one section as the
    library's; for the others there is what was mapped where."""
    out, maps = os.path.join(folder, "out"), os.path.join(folder, "maps")
    callgrind.run(["/bin/sed", f"w {maps}", "/proc/self/maps"], library, out, os.environ)
    ranges = callgrind.mapped_ranges(maps, library)
    if not ranges:
        raise callgrind.CallgrindError(f"{library} was not mapped under valgrind")
    start = min(first for first, _ in ranges)
    for path, _, address, _ in callgrind.Reader(out).costs():
        if os.path.realpath(path) == library:
            yield address
        elif path == callgrind.UNKNOWN and any(a <= address < b for a, b in ranges):
            yield address - start


def check(library):
    library = os.path.realpath(library)
    with tempfile.TemporaryDirectory() as folder:
        addresses = set(executed(library, folder))
    if not addresses:
        sys.exit(f"nothing was executed in {library}")
    known = symbols(library)
    names = {next((name for start, name in reversed(known) if start <= address), "?")
             for address in addresses if address >= FIRST}
    if names:
        sys.exit(f"run at every start, and not in the first 64 KiB: {' '.join(sorted(names))}\n"
                 "bench/layout.py puts them there")
    print(f"what runs at every start lies in the first 64 KiB: it ends at {max(addresses):#x}")


def rows(names):
    names = sorted(names)
    return "".join(f"    *({' '.join(f'.text.{name}' for name in names[i:i + LINE])})\n"
                   for i in range(0, len(names), LINE))


def write(first, then):
    with open(SCRIPT) as file:
        text = file.read()
    at = 0
    for section, names in ((".text_often :", first), (".text_then :", then)):
        begin = text.index("    *(.text.", text.index(section, at))
        at = text.index("  }\n", begin)
        text = text[:begin] + rows(names) + text[at:]
    with open(SCRIPT, "w") as file:
        file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", metavar="LIBRARY", help="only say what lies elsewhere")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed (Debian package valgrind)")
        sys.exit(SKIP)
    try:
        if arguments.check:
            check(arguments.check)
            return
        library = build()
        first = functions(library, SMALL) | ALWAYS
        then = functions(library, LARGER) - first
    except (callgrind.CallgrindError, subprocess.SubprocessError) as error:
        sys.exit(f"layout: {error}")
    write(first, then)
    print(f"{len(first)} and {len(then)} functions in {os.path.relpath(SCRIPT)}; now build again")


if __name__ == "__main__":
    main()
