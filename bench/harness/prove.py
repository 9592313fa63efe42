"""Proof that an allocator is live: not that its file is loaded, but that malloc is bound to it.

A preloaded library can be there and serve nobody: the program may bring its own malloc, be linked
statically, or be linked with another allocator by itself. So the dynamic linker is asked what it
did (LD_DEBUG=bindings) in a run of the very same command with the very same environment: in every
process that the command starts, every reference to the malloc family must be bound to the
allocator under test.
"""

import glob
import os
import re

from .elf import Elf, ElfError

# what a program may call; operator new and the like lead back to these
FAMILY = {"malloc", "free", "calloc", "realloc", "memalign", "posix_memalign", "aligned_alloc"}

_BINDING = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: \w+ symbol `([^']+)'")


class Refused(Exception):
    """The allocator is not live in this process; nothing may be counted."""


def variables(folder):
    """What makes the dynamic linker write down its bindings, one file per process in folder."""
    return {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": os.path.join(folder, "bindings")}


def read_bindings(folder):
    """{process id: [(from, to, symbol), ...]} for the malloc family."""
    processes = {}
    for path in glob.glob(os.path.join(folder, "bindings.*")):
        found = processes.setdefault(path.rpartition(".")[2], [])
        with open(path, errors="replace") as file:
            for line in file:
                match = _BINDING.search(line)
                if match and match[3] in FAMILY:
                    found.append(match.groups())
    return processes


def libc_of(processes):
    """The path of the C library, as the measured processes had it."""
    for bindings in processes.values():
        for source, target, _ in bindings:
            for path in (source, target):
                if os.path.basename(path).startswith("libc.so"):
                    return path
    return None


def _only_passes_on(path, symbol):
    """An executable at a fixed address that takes a function's address has an entry of its own for
    it, to which everyone is then bound; its code is one jump to where the executable itself is
    bound. Such a symbol is undefined in the file: what brings its own malloc defines it."""
    try:
        return Elf(path).defines(symbol) is False
    except (OSError, ElfError):
        return False


def check(processes, library):
    """Raises Refused unless every process is served by library (None: the C library).

    Returns how many processes and how many bindings were looked at.
    """
    if not processes:
        raise Refused("the dynamic linker reported nothing: is the program linked statically or "
                      "set-user-id?")
    looked_at = 0
    for pid, bindings in sorted(processes.items()):
        wanted = os.path.realpath(library or libc_of(processes) or "no C library")
        served = False
        for source, target, symbol in bindings:
            # what the allocator itself asks of the C library is its own affair
            if os.path.realpath(source) == wanted and library:
                continue
            if os.path.realpath(target) != wanted:
                if _only_passes_on(target, symbol):
                    continue
                raise Refused(f"{symbol} in {source} is bound to {target}, not to {wanted}")
            served |= symbol == "malloc"
            looked_at += 1
        if not served:
            raise Refused(f"process {pid} of the program bound no malloc to {wanted}")
    return {"processes": len(processes), "bindings": looked_at}
