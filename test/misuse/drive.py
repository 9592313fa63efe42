#!/usr/bin/env python3
"""Runs every case of misuse.c under the library and checks how it ended and what it said.

By default the process must die by SIGABRT after one line that names the function and the address
and says what the address is. With misuse:report the line must be the same and the program must go
on to its end. Prints TAP.
"""
import argparse
import os
import re
import signal
import subprocess
import sys

# What a message may say about an address. Sizes and offsets are checked where they are known.
KINDS = {
    "INSIDE": r"inside a live object of size (?P<size>\d+) at (?P<base>0x[0-9a-f]+) "
              r"\(offset (?P<offset>\d+)\)",
    "FREED": r"already free \((?:object of size (?P<freed>\d+)|its pages are back in the page "
             r"allocator|a large block)\)",
    "NEVER": r"never handed out \(memory for objects of size (?P<never>\d+)\)",
    "BOUNDARY": r"not on an object boundary.*",
    "FOREIGN": r"not quire's.*",
    "SIZE": r".*\bsize\b.*\d.*",
}


def run(options, arguments, conf):
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("LD_", "QUIRE_", "MALLOC_"))}
    env["LD_PRELOAD"] = options.quire
    if conf:
        env["QUIRE_CONF"] = conf
    return subprocess.run([options.program, *arguments], env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, errors="replace", timeout=300)


def faults_of_message(lines, function, kinds, said):
    """What is wrong with the messages of one case; an empty list if nothing is."""
    noted = re.search(r"^address (\S+)$", said, re.M)
    if not noted:
        return [f"the program did not get as far as the misuse: {said!r}"]
    address = noted.group(1).replace("(nil)", "0x0")
    if not lines:
        return ["no message"]
    alternatives = "|".join(f"(?:{kind_pattern(kind, i)})" for i, kind in enumerate(kinds))
    pattern = rf"quire: (?:{function})\({address}(?:, [^)]*)?\): (?:{alternatives})"
    match = re.fullmatch(pattern, lines[0])
    if not match:
        return [f"the message is\n  {lines[0]}\nbut should match\n  {pattern}"]
    faults = []
    known = re.search(r"^object (\S+) (\d+)$", said, re.M)
    found = {name.rstrip("0123456789"): value for name, value in match.groupdict().items()
             if value is not None}
    if "base" in found and known:
        base, size = int(known.group(1), 16), int(known.group(2))
        if int(found["base"], 16) != base:
            faults.append(f"the object is at {base:#x}, not {found['base']}")
        if int(found["offset"]) != int(address, 16) - base:
            faults.append(f"the offset is {int(address, 16) - base}, not {found['offset']}")
        if not size <= int(found["size"]) <= size * 1.25 + 4096:
            faults.append(f"an object of {size} bytes was asked for, not {found['size']}")
    return faults


def kind_pattern(kind, number):
    """The kind's pattern with group names that may stand beside another kind's."""
    return re.sub(r"\(\?P<(\w+)>", rf"(?P<\g<1>{number}>", KINDS[kind])


def check_case(options, name, function, kinds):
    faults = []
    dead = run(options, [name], "")
    lines = [line for line in dead.stderr.splitlines() if line.startswith("quire")]
    if dead.returncode != -signal.SIGABRT:
        faults.append(f"ended with {ending(dead.returncode)}, not SIGABRT")
    faults += faults_of_message(lines, function, kinds, dead.stdout)

    alive = run(options, [name], "misuse:report")
    lines = [line for line in alive.stderr.splitlines() if line.startswith("quire")]
    if alive.returncode != 0:
        faults.append(f"with misuse:report it ended with {ending(alive.returncode)}")
    faults += [f"with misuse:report: {fault}"
               for fault in faults_of_message(lines, function, kinds, alive.stdout)]
    if alive.stdout.splitlines()[-1:] != ["went on"]:
        faults.append(f"with misuse:report it did not go on: {alive.stdout!r}")
    odd = [line for line in alive.stdout.splitlines() if "gave a" in line or "overlap" in line]
    return faults + odd


def check_wild(options, count):
    """Thousands of addresses that are no objects: one message each, and no harm done."""
    result = run(options, ["--wild", str(count)], "misuse:report")
    lines = [line for line in result.stderr.splitlines() if line.startswith("quire: ")]
    faults = []
    if result.returncode != 0:
        faults.append(f"ended with {ending(result.returncode)}")
    if result.stdout != "went on\n":
        faults.append(f"said {result.stdout[:500]!r}")
    if len(lines) != count:
        faults.append(f"{len(lines)} messages for {count} wrong addresses")
    return faults


def ending(code):
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the built misuse program")
    parser.add_argument("quire", metavar="LIBRARY", help="the library to preload")
    parser.add_argument("names", nargs="*", help="only these cases")
    options = parser.parse_args()

    listing = subprocess.run([options.program, "--list"], capture_output=True, text=True,
                             check=True)
    rows = [line.split("\t") for line in listing.stdout.splitlines()]
    if options.names:
        rows = [row for row in rows if row[0] in options.names]
    print(f"1..{len(rows) + 1}")
    failed = 0
    for number, (name, function, kinds) in enumerate(rows, 1):
        failed += report(number, name,
                         lambda: check_case(options, name, function, kinds.split("|")))
    failed += report(len(rows) + 1, "wild addresses", lambda: check_wild(options, 3000))
    return 1 if failed else 0


def report(number, name, check):
    try:
        faults = check()
    except subprocess.TimeoutExpired:
        faults = ["it did not end within 300 seconds"]
    for fault in faults:
        print("#   " + fault.replace("\n", "\n#   "))
    print(f"{'not ' if faults else ''}ok {number} - {name}", flush=True)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
