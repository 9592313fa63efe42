"""Which instructions of a file are atomic, and how often a run executed them.

What an allocator shares between threads it touches by atomic instructions: on x86 those with a lock
prefix, and xchg with memory. Callgrind counts every instruction by its address, objdump says which
addresses those are. Threads take turns under valgrind, so nothing is ever contended: the counts say
how often something shared is touched, which does not depend on how many processors there are.
"""

import os
import re
import subprocess

from .callgrind import CallgrindError

_LINE = re.compile(r"^ *([0-9a-f]+):\t(.*)$")
# xchg of two registers is not atomic, nor needs it be
_ATOMIC = re.compile(r"lock\b|xchg[lqwb]? +.*\(")
# A release of a lock of four bytes, as quire's are: xchg of a 32-bit register with memory.
_RELEASE = re.compile(r"xchgl? +%(e[a-ds][xip]|e[sd]i|r\d+d),")


def addresses(path):
    """{address: is it a release of a lock?} of the atomic instructions in a file."""
    try:
        said = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], capture_output=True,
                              text=True, check=True)
    except FileNotFoundError:
        raise CallgrindError("objdump is not installed (Debian package binutils)") from None
    except subprocess.CalledProcessError as reason:
        raise CallgrindError(f"objdump {path}: {reason.stderr.strip()}") from None
    return parse(said.stdout)


def parse(listing):
    found = {}
    for line in listing.splitlines():
        match = _LINE.match(line)
        if match and _ATOMIC.match(match[2]):
            found[int(match[1], 16)] = bool(_RELEASE.match(match[2]))
    return found


class Count:
    """Atomic instructions executed in one run: in the allocator, in other libraries."""

    def __init__(self):
        self.inside = self.releases = self.outside = 0
        self.functions = {}

    def add(self, function, times, release, inside):
        if not inside:
            self.outside += times
            return
        self.inside += times
        self.releases += times if release else 0
        self.functions[function] = self.functions.get(function, 0) + times


def count(costs, library, program, known):
    """costs as callgrind.Reader has them; known: {path: addresses()}, filled as needed."""
    result = Count()
    real = {}
    for path, function, address, times in costs:
        if path not in real:
            real[path] = os.path.realpath(path)
        path = real[path]
        if path == program or not os.path.isfile(path):
            continue
        if path not in known:
            known[path] = addresses(path)
        if address in known[path]:
            result.add(function, times, known[path][address], path == library)
    return result
