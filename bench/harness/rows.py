"""What a row of the benchmark is: how to prepare its input, how to run it once under one allocator,
and how to tell a right answer from a wrong one. Which rows there are is in catalog.py.
"""

import hashlib
import os
import re
import shutil

from . import process
from .machine import version_of
from .process import RunError

TIME_AND_MEMORY = frozenset(["cpu", "wall", "peak_kb"])
TIME = frozenset(["cpu", "wall"])
MEMORY = frozenset(["peak_kb"])


class Row:
    group = "program"
    # what of it enters the geometric means
    counts = TIME_AND_MEMORY
    # seconds; set by the schedule
    timeout = None
    # rows of a family differ in their number of threads only, each thread doing the same work
    family = None
    threads = None
    # part of a quick run
    quick = False
    # fewer counted runs than were asked for, where one takes long
    most_runs = None
    # not a comparison: it runs on the C library's allocator only
    alone = False
    # its memory over time can be looked at
    watchable = True

    def __init__(self, name, about, needs=None, package=None, version=None, quick=False,
                 most_runs=None):
        self.name = name
        self.quick = quick
        self.most_runs = most_runs
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

    def __init__(self, name, about, sizes, program=None, counts=TIME_AND_MEMORY, family=None,
                 threads=None, group=None, environment=None, **known):
        super().__init__(name, about, **known)
        self.family = family
        self.threads = threads
        self.group = group or self.group
        self.environment = environment or {}
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
        cost, output = process.run(place, command, {**variables, **self.environment}, self.timeout)
        said = output.decode(errors="replace").strip()
        if not said.startswith(f"ok {self.program} "):
            raise RunError(f"{self.program} printed {said[:100]!r} instead of 'ok {self.program}'")
        cost["figures"] = {name: int(value) for name, value in _FIGURE.findall(said)}
        return cost, _FIGURE.sub("", said)


class Command(Row):
    """A program run with arguments; its output (and the files it made) is the answer."""

    def __init__(self, name, about, sizes, command, input=None, artifact=None, must_say=None,
                 environment=None, answer=None, fresh=(), **known):
        super().__init__(name, about, **known)
        self.sizes = sizes
        self.answer = answer or (lambda place, row, output: output)
        # scratch folders that must be gone before each run
        self.fresh = fresh
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
        for name in self.fresh:
            shutil.rmtree(place.scratch(name), ignore_errors=True)
        cost, output = process.run(place, command, {**variables, **self.environment}, self.timeout,
                                   stdin=stdin)
        if self.must_say and self.must_say not in output.decode(errors="replace"):
            raise RunError(f"{self.name} did not print {self.must_say!r}")
        answer = hashlib.sha256(self.answer(place, self, output))
        if self.artifact:
            answer.update(self.artifact(place, self))
        return cost, answer.hexdigest()


class Small(Row):
    """Programs that allocate little: what an allocator costs them is its own start.

    Times are means over many starts. Memory is read when the program is about to end, exactly, as
    the kernel's running count of resident pages is too coarse here.
    """

    group = "small"
    counts = frozenset(["peak_kb"])
    starts = 20
    watchable = False

    def __init__(self, name, about, command, **known):
        super().__init__(name, about, **known)
        self.command = command

    def run(self, place, variables):
        cost, output = process.run(place, self.command, variables, self.timeout,
                                   options=["-n", str(self.starts)])
        ending, _ = process.run(place, self.command, variables, self.timeout, options=["-x"])
        cost["peak_kb"] = ending["end_rss_kb"]
        cost["figures"] = {"private_kb": ending["end_private_kb"]}
        return cost, hashlib.sha256(output).hexdigest()
