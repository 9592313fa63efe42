#!/usr/bin/env python3
"""How often an allocator touches what threads share: atomic instructions per million operations.

An operation is one malloc and its free. Each case runs twice, for a short and a long time, and the
difference counts, so that starting up does not. The figures are the same on any number of
processors; see doc/bench.md for what they say about many.
"""

import argparse
import os
import subprocess
import sys
import tempfile

BENCH = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)

from harness import atomics, callgrind, prove  # noqa: E402

# name: workload, arguments with {} for how long, short, long, operations per unit, meaning
CASES = {
    "trees": ("trees", "12 {} 2", 2, 8, None, "trees in two threads, nothing crosses"),
    "server": ("server", "2 {} 10000", 2, 8, 2 * 10000, "live objects handed to the next thread"),
    "server-8": ("server", "8 {} 4000", 2, 8, 8 * 4000, "the same in eight threads"),
    "prodcons": ("prodcons", "{}", 64000, 256000, 1, "every object freed by another thread"),
    "churn": ("churn", "{} 400 4", 40, 160, 400, "threads of 400 objects come and go"),
    "cache": ("cache", "4 {} 4", 100000, 400000, None, "one thread, sizes shift"),
}
SKIP = 77


def parse(arguments):
    parser = argparse.ArgumentParser(prog="atomics.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--lib", help="the allocator (quire of the build), or the word glibc")
    parser.add_argument("--build", default=os.path.join(os.path.dirname(BENCH), "build", "release"))
    parser.add_argument("--functions", action="store_true", help="also where they were executed")
    options = parser.parse_args(arguments)
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    return options


class Runner:
    def __init__(self, build, preload, folder):
        self.build = build
        self.preload = os.path.realpath(preload) if preload else None
        self.folder = folder
        self.environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
        self.known = {}
        self.lib = self._prove()

    def program(self, name):
        return os.path.realpath(os.path.join(self.build, "bench", "workloads", name))

    def _prove(self):
        variables = {**self.environment, **prove.variables(self.folder)}
        if self.preload:
            variables["LD_PRELOAD"] = self.preload
        subprocess.run([self.program("churn"), "2", "40"], env=variables, check=True,
                       stdout=subprocess.DEVNULL)
        found = prove.read_bindings(self.folder)
        prove.check(found, self.preload)
        return os.path.realpath(self.preload or prove.libc_of(found))

    def run(self, name, arguments):
        out = os.path.join(self.folder, "callgrind.out")
        callgrind.run([self.program(name), *arguments.split()], self.preload, out,
                      self.environment)
        return atomics.count(callgrind.Reader(out).costs(), self.lib, self.program(name),
                             self.known)

    def operations(self, name, arguments):
        """Where the workload itself decides how many there are, it says so."""
        said = subprocess.run([self.program(name), *arguments.split()], capture_output=True,
                              text=True, check=True).stdout
        words = dict(word.split("=") for word in said.split() if "=" in word)
        return int(words["nodes"] if name == "trees" else words["misses"])

    def case(self, name, arguments, short, long, each):
        few, many = (self.run(name, arguments.format(n)) for n in (short, long))
        if each:
            operations = (long - short) * each
        else:
            operations = (self.operations(name, arguments.format(long))
                          - self.operations(name, arguments.format(short)))
        million = 1e6 / operations
        functions = {function: (times - few.functions.get(function, 0)) * million
                     for function, times in many.functions.items()}
        return ((many.inside - few.inside) * million, (many.releases - few.releases) * million,
                (many.outside - few.outside) * million, functions)


def choose(options):
    if options.lib == "glibc":
        return None
    library = options.lib or os.path.join(options.build, "src", "libquire.so")
    if not os.path.isfile(library):
        sys.exit(f"atomics: there is no file {library}")
    return library


def main():
    options = parse(sys.argv[1:])
    if os.uname().machine != "x86_64":
        print("skipped: it knows the atomic instructions of x86-64 only")
        return SKIP
    with tempfile.TemporaryDirectory(prefix="quire-atomics-") as folder:
        try:
            runner = Runner(options.build, choose(options), folder)
            print(f"per million of malloc and free, in {runner.lib}")
            print(f"{'case':<10}{'atomics':>10}{'releases':>10}{'elsewhere':>11}")
            for name in options.cases or CASES:
                *arguments, about = CASES[name]
                inside, releases, outside, functions = runner.case(*arguments)
                print(f"{name:<10}{inside:>10.0f}{releases:>10.0f}{outside:>11.0f}   {about}",
                      flush=True)
                if options.functions:
                    for function, times in sorted(functions.items(), key=lambda x: -x[1])[:8]:
                        print(f"    {times:>10.0f}  {function}")
        except (callgrind.CallgrindError, prove.Refused) as reason:
            sys.exit(f"atomics: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
