"""Rows of Google Benchmark: one per benchmark of bench/gbench, times per operation.

`micro` calls malloc and its relatives and runs under every allocator. `layers` has quire's own
layers linked into it, below malloc; it runs on the C library's allocator alone, and is compared
with nothing.
"""

import json
import os
import subprocess

from . import process
from .process import RunError
from .rows import TIME, Row

MISSING = "is not built: it wants g++ and Debian package libbenchmark-dev"


class Benchmark(Row):
    watchable = False

    def __init__(self, program, test=None, group="micro"):
        name, _, threads = (test or program).partition("/real_time/threads:")
        # layers have the names of what they are; calls of malloc that of the call
        super().__init__(f"{name}-t{threads}" if threads else name,
                         _about(name, threads) if test else "single calls, with Google Benchmark")
        self.program = program
        self.test = test
        self.group = group
        self.counts = TIME if threads else frozenset(["cpu"])
        if threads:
            self.family, self.threads = name, int(threads)
        self.alone = group == "layers"
        self.min_time = 0.1

    def path(self, place):
        return os.path.join(place.build, "bench", "gbench", self.program)

    def missing(self, place):
        return None if self.test else f"{self.program} {MISSING}"

    def prepare(self, place, quick):
        self.min_time = 0.03 if quick else 0.1

    def run(self, place, variables):
        command = [self.path(place), f"--benchmark_filter=^{self.test}$",
                   f"--benchmark_min_time={self.min_time}", "--benchmark_format=json"]
        cost, output = process.run(place, command, variables, self.timeout)
        found = times(output)
        # costs of the whole process depend on how often the operation was tried: they mean nothing
        return {"cpu": found["cpu"], "wall": found["wall"], "times": found["operations"]}, self.test


def times(output):
    """Seconds per operation, from what Google Benchmark has printed."""
    try:
        found, = json.loads(output)["benchmarks"]
        unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[found["time_unit"]]
        return {"cpu": found["cpu_time"] * unit, "wall": found["real_time"] * unit,
                "operations": found["iterations"]}
    except (ValueError, KeyError, TypeError) as reason:
        raise RunError(f"not what Google Benchmark prints: {reason}") from None


HABITS = {
    "pair": "malloc, free", "lifo": "128 objects, the last freed first",
    "fifo": "128 objects, the first freed first", "random": "128 objects, freed in random order",
    "mixed": "1000 live objects of random sizes to", "calloc": "calloc, free",
    "grow": "realloc by halves more, to", "aligned": "aligned_alloc, free",
    "cross": "one thread allocates, another frees",
}


def _about(name, threads):
    habit, _, size = name.partition("-")
    size = size.removeprefix("threads-")
    return f"{HABITS.get(habit, habit)}, {size}" + (f", {threads} threads" if threads else "")


def _tests(build, program):
    path = os.path.join(build, "bench", "gbench", program)
    try:
        said = subprocess.run([path, "--benchmark_list_tests"], capture_output=True, text=True,
                              timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return said.stdout.split() if said.returncode == 0 else []


def everything(build):
    rows = []
    for program, group in (("micro", "micro"), ("layers", "layers")):
        tests = _tests(build, program)
        rows += [Benchmark(program, test, group) for test in tests] or [Benchmark(program, None,
                                                                                  group)]
    return rows
