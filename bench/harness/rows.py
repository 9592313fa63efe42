"""The rows of the benchmark: workloads of our own, real programs, and small programs.

A row knows how to prepare its input, how to run once under one allocator, and how to tell a right
answer from a wrong one. Sizes are pairs: (full, quick).
"""

import hashlib
import os
import re

from . import inputs, process, redis
from .machine import version_of
from .process import RunError

TIME_AND_MEMORY = frozenset(["cpu", "wall", "peak_kb"])


class Row:
    group = "program"
    # what of it enters the geometric means
    counts = TIME_AND_MEMORY
    # seconds; set by the schedule
    timeout = None

    def __init__(self, name, about, needs=None, package=None, version=None):
        self.name = name
        self.about = about
        self.needs = needs
        self.package = package
        self.version = version

    def missing(self, place):
        """Why it cannot run here; None where it can."""
        if self.needs and not process.find_program(self.needs):
            return f"{self.needs} is not installed (Debian package {self.package})"
        return None

    def versions(self):
        return version_of(self.version) if self.version else None

    def prepare(self, place, quick):
        """Once, before the first run."""

    def run(self, place, variables):
        """One run: (costs, answer). The same answer is due under every allocator."""
        raise NotImplementedError


# memory that a workload reports of itself changes from run to run; all else it says must not
_FIGURE = re.compile(r" (\w+_kb)=(\d+)")


class Workload(Row):
    """One of bench/workloads; prints 'ok NAME ...' when all its bytes were right."""

    group = "workload"

    def __init__(self, name, about, sizes, program=None, counts=TIME_AND_MEMORY):
        super().__init__(name, about)
        self.program = program or name
        self.sizes = sizes
        self.counts = counts
        self.arguments = []

    def missing(self, place):
        path = place.workload(self.program)
        return None if os.access(path, os.X_OK) else f"{path} is not built (./dev build)"

    def prepare(self, place, quick):
        self.arguments = self.sizes[quick].split()

    def run(self, place, variables):
        command = [place.workload(self.program), *self.arguments]
        cost, output = process.run(place, command, variables, self.timeout)
        said = output.decode(errors="replace").strip()
        if not said.startswith(f"ok {self.program} "):
            raise RunError(f"{self.program} printed {said[:100]!r} instead of 'ok {self.program}'")
        cost["figures"] = {name: int(value) for name, value in _FIGURE.findall(said)}
        return cost, _FIGURE.sub("", said)


class Command(Row):
    """A program run with arguments; its output (and the files it made) is the answer."""

    def __init__(self, name, about, sizes, command, input=None, artifact=None, must_say=None,
                 environment=None, **known):
        super().__init__(name, about, **known)
        self.sizes = sizes
        self.make_command = command
        self.make_input = input
        self.artifact = artifact
        self.must_say = must_say
        self.environment = environment or {}
        self.size = None
        self.input = None

    def prepare(self, place, quick):
        self.size = self.sizes[quick]
        if self.make_input:
            self.input = place.scratch(self.name + "-input")
            self.make_input(self.input, self.size)

    def run(self, place, variables):
        command, stdin = self.make_command(place, self)
        cost, output = process.run(place, command, {**variables, **self.environment}, self.timeout,
                                   stdin=stdin)
        if self.must_say and self.must_say not in output.decode(errors="replace"):
            raise RunError(f"{self.name} did not print {self.must_say!r}")
        answer = hashlib.sha256(output)
        if self.artifact:
            answer.update(self.artifact(place, self))
        return cost, answer.hexdigest()


class Redis(Row):
    def __init__(self):
        super().__init__("redis", "redis-server under redis-benchmark, unix socket, 16 in a pipe",
                         needs="redis-server", package="redis-server",
                         version=["redis-server", "--version"])
        self.requests = 0

    def missing(self, place):
        if not process.find_program("redis-benchmark"):
            return "redis-benchmark is not installed (Debian package redis-tools)"
        return super().missing(place)

    def prepare(self, place, quick):
        self.requests = (80000, 30000)[quick]

    def run(self, place, variables):
        return redis.run(place, variables, self.requests, self.timeout), "canaries"


class Small(Row):
    """Programs that allocate little: what an allocator costs them is its own start.

    Times are means over many starts. Memory is read when the program is about to end, exactly, as
    the kernel's running count of resident pages is too coarse here.
    """

    group = "small"
    counts = frozenset(["peak_kb"])
    starts = 20

    def __init__(self, name, about, command):
        super().__init__(name, about)
        self.command = command

    def run(self, place, variables):
        cost, output = process.run(place, self.command, variables, self.timeout,
                                   options=["-n", str(self.starts)])
        ending, _ = process.run(place, self.command, variables, self.timeout, options=["-x"])
        cost["peak_kb"] = ending["end_rss_kb"]
        cost["figures"] = {"private_kb": ending["end_private_kb"]}
        return cost, hashlib.sha256(output).hexdigest()


def _pack_names(place, row):
    """git names a pack by the checksum of its content."""
    folder = os.path.join(row.input, "objects", "pack")
    return " ".join(sorted(os.listdir(folder))).encode()


def _object_file(place, row):
    with open(place.scratch("out.o"), "rb") as file:
        return file.read()


def _python(place, row):
    # not -I: it would ignore PYTHONMALLOC as well
    return ["/usr/bin/python3", "-s", "-S", "-B", place.script("objects.py"), str(row.size)], None


def everything():
    """All rows, in the order of the report."""
    python = {"needs": "/usr/bin/python3", "package": "python3",
              "version": ["/usr/bin/python3", "--version"]}
    return [
        Workload("trees", "build and drop binary trees", ("17 18", "16 12")),
        Workload("trees-2", "the same in two threads", ("17 18 2", "16 12 2"), "trees"),
        Workload("cache", "a cache under replacement, sizes shifting between phases",
                 ("64 3000000 12", "24 800000 8")),
        Workload("prodcons", "one thread allocates, another frees", ("3000000", "1000000")),
        Workload("churn", "threads come and go, leaving objects behind", ("8000", "1500")),
        Workload("regrow", "realloc: four strings to 64 MiB (quick: 32), many small vectors",
                 ("64 20000 25", "32 10000 5")),
        Workload("idle", "400 threads that have freed everything and wait", ("400", "400"),
                 counts=frozenset(["peak_kb"])),
        # a second of it is waiting: wall time would say nothing
        Workload("burst", "300 MB (quick: 150) of small objects come and go", ("300 1", "150 1"),
                 counts=frozenset(["cpu", "peak_kb"])),
        Redis(),
        Command("python", "CPython: records, JSON, text, classes, buffers", (30, 6), _python,
                must_say="ok objects", **python),
        Command("python-malloc", "the same with every object from malloc", (30, 6), _python,
                must_say="ok objects", environment={"PYTHONMALLOC": "malloc"}, **python),
        Command("perl", "perl: hashes, strings, regular expressions", (20, 6),
                lambda place, row: (["perl", place.script("words.pl"), str(row.size)], None),
                must_say="ok words", needs="perl", package="perl",
                version=["perl", "-e", "print $^V"]),
        Command("lua", "lua: tables, closures, strings", (40, 12),
                lambda place, row: (["lua5.4", place.script("tables.lua"), str(row.size)], None),
                must_say="ok tables", needs="lua5.4", package="lua5.4", version=["lua5.4", "-v"]),
        Command("sqlite", "sqlite3: an in-memory database", (40000, 10000),
                lambda place, row: (["sqlite3", "-batch", "-bail", ":memory:"], row.input),
                input=inputs.sql_script, must_say="\nok\n", needs="sqlite3", package="sqlite3",
                version=["sqlite3", "--version"]),
        Command("gcc", "gcc -O2 of a generated file", (120, 28),
                lambda place, row: (["gcc", "-x", "c", "-O2", "-c", row.input, "-o",
                                     place.scratch("out.o")], None),
                input=inputs.c_source, artifact=_object_file, needs="gcc", package="gcc",
                version=["gcc", "--version"]),
        Command("git", "git gc of a generated repository", (1500, 200),
                lambda place, row: (["git", "-C", row.input, "-c", "pack.threads=1", "-c",
                                     "gc.aggressiveWindow=20", "gc", "--aggressive", "--quiet",
                                     "--prune=now"], None),
                input=inputs.git_repository, artifact=_pack_names, needs="git", package="git",
                version=["git", "--version"]),
        Small("true", "nothing", ["/bin/true"]),
        Small("sh", "a shell and one command of its own", ["/bin/sh", "-c", "echo hello"]),
        Small("ls", "a folder, sorted, with owners", ["/bin/ls", "-la", "/usr/share"]),
    ]


def select(rows, wanted):
    """Rows by name, by group (workloads, programs, small), or all; unknown names raise KeyError."""
    if not wanted:
        return rows
    chosen = set()
    for word in wanted:
        found = [row.name for row in rows if word in (row.name, row.group, row.group + "s")]
        if not found:
            raise KeyError(word)
        chosen.update(found)
    return [row for row in rows if row.name in chosen]
