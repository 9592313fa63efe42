"""Runs a program under callgrind and adds up the instructions that lie in one object file."""

import os
import re
import subprocess


class CallgrindError(Exception):
    """valgrind is absent, failed, or wrote what this does not understand."""


UNKNOWN = "???"

_NAME = re.compile(r"\((\d+)\)(?: (.*))?$")


class Reader:
    """callgrind's output, line by line.

    'ob=(3) /lib/x.so' names the object of what follows, later 'ob=(3)' alone; 'fn=' the same for
    functions. A line of positions and a number is that many instructions; positions are relative
    to those of the line before. The line after 'calls=' is different: it is the cost of the whole
    call, which is counted where it is spent.
    """

    def __init__(self, path):
        self.path = path
        self.objects = {}
        self.functions = {}
        self.positions = None
        self.event = None
        self.last = []

    def costs(self):
        """Yields (object, function, address, instructions). The address is one in the file, or the
        one in memory where the object is UNKNOWN."""
        now = {"ob": UNKNOWN, "fn": UNKNOWN}
        names = {"ob": self.objects, "fn": self.functions}
        of_a_call = False
        with open(self.path, errors="replace") as file:
            for line in file:
                line = line.rstrip("\n")
                if line[:1].isdigit() or line[:1] in ("+", "-", "*"):
                    address, instructions = self._cost(line)
                    if not of_a_call:
                        yield now["ob"], now["fn"], address, instructions
                    of_a_call = False
                    continue
                key, equals, text = line.partition("=")
                if line.startswith("positions:"):
                    self.positions = line.split()[1:]
                    self.last = [0] * len(self.positions)
                elif line.startswith("events:"):
                    events = line.split()[1:]
                    self.event = events.index("Ir") if "Ir" in events else None
                elif equals and key in ("ob", "fn"):
                    now[key] = self._resolve(names[key], text)
                elif equals and key in ("cob", "cfn"):
                    # a callee's name may be given here first, and only its number later
                    self._resolve(names[key[1:]], text)
                elif key == "calls":
                    of_a_call = True
        if self.positions is None or self.event is None:
            raise CallgrindError(f"{self.path} is not what callgrind writes")

    @staticmethod
    def _resolve(names, text):
        match = _NAME.match(text)
        if not match:
            return text
        if match[2] is not None:
            names[match[1]] = match[2]
        return names.get(match[1], UNKNOWN)

    def _cost(self, line):
        if self.positions is None or self.event is None:
            raise CallgrindError(f"{self.path} has costs before it says of what")
        fields = line.split()
        columns = len(self.positions)
        for i, field in enumerate(fields[:columns]):
            if field[0] in "+-":
                self.last[i] += int(field, 0)
            elif field != "*":
                self.last[i] = int(field, 0)
        events = fields[columns:]
        # trailing zeros are left out
        instructions = int(events[self.event]) if len(events) > self.event else 0
        return self.last[0], instructions


def mapped_ranges(maps, library):
    """[(first, last address)] at which a library lay, from a copy of /proc/PID/maps."""
    ranges = []
    with open(maps) as file:
        for line in file:
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and os.path.realpath(fields[5].strip()) == library:
                first, last = fields[0].split("-")
                ranges.append((int(first, 16), int(last, 16)))
    return ranges


def split(costs, library, program, ranges):
    """Instructions (in library, in other libraries); what lies in program itself is left out.

    Code outside .text (tcmalloc's fast paths have a section of their own) has no known object: it
    is the library's if it lay where the library was mapped.
    """
    inside = outside = 0
    real = {UNKNOWN: None}
    for path, _, address, instructions in costs:
        if path not in real:
            real[path] = os.path.realpath(path)
        if real[path] == library or path == UNKNOWN and any(a <= address < b for a, b in ranges):
            inside += instructions
        elif real[path] != program:
            outside += instructions
    return inside, outside


def run(command, library, out, environment):
    """One run of command with library preloaded (None: no preload); callgrind writes to out."""
    if os.path.exists(out):
        os.unlink(out)
    variables = dict(environment)
    if library:
        variables["LD_PRELOAD"] = library
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--dump-instr=yes",
                # leave malloc alone, should any tool want to replace it
                "--soname-synonyms=somalloc=nouserintercepts", "--quiet"]
    try:
        done = subprocess.run(valgrind + command, env=variables, capture_output=True, text=True,
                              timeout=300)
    except FileNotFoundError:
        raise CallgrindError("valgrind is not installed (Debian package valgrind)") from None
    except subprocess.TimeoutExpired:
        raise CallgrindError(f"{' '.join(command)} did not end within 300 s") from None
    if done.returncode or not os.path.exists(out):
        raise CallgrindError(f"{' '.join(command)} ended with status {done.returncode} under "
                             f"valgrind: {done.stderr.strip()[-300:]}")
