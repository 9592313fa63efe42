#!/usr/bin/env python3
"""Counts the instructions that an allocator executes per malloc/free pair, exactly.

callgrind counts every instruction; only those in the allocator's own object file are taken, and
only the difference between a short and a long run of the same loop, so that neither the loop, nor
the way into the library, nor start-up is counted. The counts repeat exactly, so they can be kept in
git (bench/golden) and a test can fail when one rises.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

BENCH = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)

from harness import callgrind, elf, prove  # noqa: E402

# how much a count may rise before the check fails
TOLERANCE = 0.5
SKIP = 77


def parse(arguments):
    root = os.path.dirname(BENCH)
    build = os.path.join(root, "build", "release")
    parser = argparse.ArgumentParser(
        prog="instructions.py",
        description="Count an allocator's instructions per malloc/free pair.")
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only these cases")
    parser.add_argument("--lib", metavar="PATH",
                        help="the allocator's shared library, or glibc (quire of the build folder)")
    parser.add_argument("--build", default=build, metavar="DIR",
                        help="the build folder (build/release)")
    parser.add_argument("--golden", metavar="FILE",
                        help="file of expected counts (bench/golden/COMPILER-MAJOR.txt, by the "
                             "compiler that made the library)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true",
                        help=f"fail where a count is more than {TOLERANCE} above the golden one")
    action.add_argument("--update", action="store_true", help="write the counts as the golden ones")
    action.add_argument("--list", action="store_true", help="list the cases")
    options = parser.parse_args(arguments)
    options.build = os.path.abspath(options.build)
    if options.cases and options.update:
        parser.error("--update writes all cases: name none")
    return options


def list_cases(program):
    """[(name, operations per loop, low, high, about)] as the program itself has them."""
    if not os.access(program, os.X_OK):
        sys.exit(f"instructions: {program} is not there: build first (./dev build), or name the "
                 "build folder with --build")
    lines = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    cases = []
    for line in lines.splitlines():
        name, operations, low, high, about = line.split(" ", 4)
        cases.append((name, int(operations), int(low), int(high), about))
    return cases


def compiler_of(library):
    """('gcc', '12', 'GCC: (Debian ...) 12.2.0'): who compiled a library.

    Start-up files bring gcc's name into everything, so any other compiler's name wins.
    """
    comments = elf.Elf(library).compilers()
    for kind, pattern in (("clang", r"clang version (\d+)"), ("gcc", r"GCC: .*?(\d+)\.\d+\.\d+$")):
        for comment in comments:
            match = re.search(pattern, comment)
            if match:
                return kind, match[1], comment
    return None


def read_golden(path):
    """{case: count}; lines that start with # are remarks."""
    counts = {}
    with open(path) as file:
        for number, line in enumerate(file, 1):
            words = line.split("#")[0].split()
            if not words:
                continue
            try:
                name, value = words
                counts[name] = float(value)
            except ValueError:
                sys.exit(f"{path}:{number}: not 'CASE COUNT': {line.strip()}")
    return counts


def write_golden(path, compiler, counts):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w") as file:
        file.write("# Instructions in the library per operation: bench/instructions.py.\n"
                   f"# {compiler}\n")
        for name, (inside, _) in counts.items():
            file.write(f"{name} {inside:.2f}\n")


class Counter:
    def __init__(self, program, library, folder):
        self.program = os.path.realpath(program)
        self.preload = library
        self.folder = folder
        self.environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C",
                            "HOME": folder}
        self.wanted = self._prove()

    def _prove(self):
        """The allocator's object file, once malloc is shown to be bound to it."""
        variables = {**self.environment, **prove.variables(self.folder)}
        if self.preload:
            variables["LD_PRELOAD"] = self.preload
        subprocess.run([self.program, "pair-32", "10"], env=variables, check=True)
        found = prove.read_bindings(self.folder)
        prove.check(found, self.preload)
        return os.path.realpath(self.preload or prove.libc_of(found))

    def costs(self, name, loops):
        """Instructions (in the library, in other libraries) of one run."""
        out, maps = (os.path.join(self.folder, name) for name in ("callgrind.out", "maps"))
        callgrind.run([self.program, name, str(loops), maps], self.preload, out, self.environment)
        ranges = callgrind.mapped_ranges(maps, self.wanted)
        if not ranges:
            raise callgrind.CallgrindError(f"{self.wanted} was not mapped under valgrind")
        return callgrind.split(callgrind.Reader(out).costs(), self.wanted, self.program, ranges)

    def per_operation(self, case):
        """(in the library, in other libraries on its behalf) per operation."""
        name, operations, low, high, _ = case
        few, many = self.costs(name, low), self.costs(name, high)
        if many[0] <= few[0]:
            raise callgrind.CallgrindError(f"{name}: nothing was executed in {self.wanted}")
        total = (high - low) * operations
        # what lies elsewhere may differ by a few instructions between two runs: not below zero
        return (many[0] - few[0]) / total, max(many[1] - few[1], 0) / total


def golden_path(options, library, checking):
    if options.golden:
        return options.golden
    found = compiler_of(library)
    if not found:
        sys.exit(f"instructions: {library} does not say which compiler made it: use --golden FILE")
    path = os.path.join(BENCH, "golden", f"{found[0]}-{found[1]}.txt")
    if checking and not os.path.exists(path):
        print(f"skipped: there are no golden counts for {found[0]} {found[1]} "
              f"(instructions.py --update makes {os.path.relpath(path)})")
        sys.exit(SKIP)
    return path


def choose_library(options):
    if options.lib == "glibc":
        return None
    library = options.lib or os.path.join(options.build, "src", "libquire.so")
    if not os.path.isfile(library):
        sys.exit(f"instructions: there is no file {library}")
    return os.path.realpath(library)


def compare(counts, golden, path):
    """Prints what rose, what fell; true if nothing rose."""
    good = True
    for name, (inside, _) in counts.items():
        if name not in golden:
            print(f"ROSE {name}: not in {path}: run instructions.py --update")
            good = False
        elif inside > golden[name] + TOLERANCE:
            print(f"ROSE {name}: {inside:.2f} instructions, golden {golden[name]:.2f}")
            good = False
        elif inside < golden[name] - TOLERANCE:
            print(f"fell {name}: {inside:.2f} instructions, golden {golden[name]:.2f}: keep it "
                  "with instructions.py --update")
    return good


def main():
    options = parse(sys.argv[1:])
    program = os.path.join(options.build, "bench", "instr")
    cases = list_cases(program)
    if options.list:
        for case in cases:
            print(f"{case[0]:<12}{case[4]}")
        return 0
    unknown = set(options.cases) - {case[0] for case in cases}
    if unknown:
        sys.exit(f"instructions: there is no case {', '.join(sorted(unknown))}; --list shows them")
    cases = [case for case in cases if not options.cases or case[0] in options.cases]
    if options.lib:  # another allocator has neither
        cases = [case for case in cases if not case[0].startswith(("cache-", "heap-"))]
    if not shutil.which("valgrind"):
        print("skipped: valgrind is not installed (Debian package valgrind)")
        return SKIP
    library = choose_library(options)
    golden = None
    if options.check or options.update:
        if library is None:
            sys.exit("instructions: golden counts are of a library of our own, not of glibc")
        golden = golden_path(options, library, options.check)
        expected = read_golden(golden) if options.check else {}

    counts = {}
    with tempfile.TemporaryDirectory(prefix="quire-instr-") as folder:
        try:
            counter = Counter(program, library, folder)
            print(f"instructions per operation in {counter.wanted}")
            print(f"{'case':<12}{'inside':>8}{'elsewhere':>11}")
            for case in cases:
                counts[case[0]] = inside, outside = counter.per_operation(case)
                print(f"{case[0]:<12}{inside:>8.2f}{outside:>11.2f}   {case[4]}", flush=True)
        except (callgrind.CallgrindError, prove.Refused, elf.ElfError) as reason:
            sys.exit(f"instructions: {reason}")
    if options.update:
        compiler = compiler_of(library)
        write_golden(golden, compiler[2] if compiler else "unknown compiler", counts)
        print(f"wrote {os.path.relpath(golden)}")
    elif options.check:
        if not compare(counts, expected, golden):
            return 1
        print(f"nothing rose above {os.path.relpath(golden)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
