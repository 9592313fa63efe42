#!/usr/bin/env python3
"""Tests in machines that QEMU plays: run.py quick | all | NAME...

Each machine boots once and runs its commands; what these report as TAP is passed on, case by case.
Names are those of MACHINES below. VM_BUILD is the build folder, VM_CACHE where kernels are kept.
What is missing is named by its Debian package, and the machines that need it are skipped.
"""
import os
import re
import shutil
import subprocess
import sys
import time

import initramfs
import kernels
from machine import QEMU_PACKAGE, Machine, run

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("VM_BUILD", "build/debug")
CACHE = os.environ.get("VM_CACHE", "build/vm")
PRELOAD = "LD_PRELOAD=/lib/libquire.so.0"

# Real programs, with and without quire; what they print must be the same.
PROGRAMS = {
    "sort": "seq 40000 | md5sum -b > /dev/null; seq 40000 | tac | {} /t/sort --parallel=2 -S 8M",
    "bash": "{} /t/bash -c 'declare -A a; for i in {{1..3000}}; do a[$i]=x$i; done;"
            " for i in {{1..3000..7}}; do echo ${{a[$i]}}; done'",
    "perl": "{} /t/perl -e 'my %h; $h{{$_ * 7919 % 50021}} = \"v\" x ($_ % 90) for 1..30000;"
            " print scalar(keys %h), \" \", length(join(\"\", map {{ $h{{$_}} }} sort keys %h))'",
    "xz": "seq 60000 | {} /t/xz -T2 -2 | {} /t/xz -d",
}

CONFORM = ["contract", "aligned", "resize", "tuning", "threads", "forks", "signals"]
UNIT = ["topology", "mempolicy", "memmap", "zones", "pcp", "slabs"]

RING = {(0, 1): 15, (1, 2): 15, (2, 3): 15, (0, 3): 15, (0, 2): 25, (1, 3): 25}
FAR = {(0, 1): 20, (0, 2): 40, (1, 2): 30}

# name: (machine, what to run)
MACHINES = {
    "two": (Machine([(208, 1), (208, 1)]), ["numa", "sort", "perl"]),
    "balancing": (Machine([(256, 2), (256, 2)]),
                  ["set-balancing-on", "numa", "set-balancing-off", "numa-again", "sort", "xz"]),
    "four": (Machine([(224, 1)] * 4, RING), ["numa", "unit", "bash", "xz"]),
    "far": (Machine([(224, 1), (224, 1), (320, 0)], FAR), ["numa", "unit", "sort"]),
    "unequal": (Machine([(160, 1), (448, 2)]), ["numa", "sort", "perl"]),
    "one": (Machine([(448, 2)]), ["conform", "numa", "bash"]),
    "thp": (Machine([(256, 1), (256, 1)], append="transparent_hugepage=always"),
            ["set-huge", "numa", "perl"]),
    "old": (Machine([(256, 1), (256, 1)], series="5.10"), ["numa", "conform", "unit", "xz"]),
    "new": (Machine([(256, 1), (256, 1)], series="6.12"), ["numa", "conform", "unit", "xz"]),
}
QUICK = ["two"]


def say(line):
    print(line, flush=True)


class Report:
    """TAP of many machines in one."""

    def __init__(self):
        self.number = self.bad = 0

    def line(self, good, name, note=""):
        self.number += 1
        self.bad += not good
        say(f"{'ok' if good else 'not ok'} {self.number} - {name}{note}")

    def skip(self, name, why):
        self.line(True, name, f" # SKIP {why}")

    def command(self, name, status, text):
        """One command: its cases where it speaks TAP, else itself."""
        cases = re.findall(r"^(ok|not ok)\s+\d*\s*-?\s*(\S+)(.*)$", text, re.M)
        plan = re.search(r"^1\.\.(\d+)", text, re.M)
        failed = False
        for result, case, rest in cases:
            skipped = re.search(r"# *SKIP.*", rest, re.I)
            failed |= result != "ok"
            self.line(result == "ok", f"{name}:{case.rstrip(':')}",
                      f" {skipped.group(0)}" if skipped else "")
        whole = plan is None or int(plan.group(1)) == len(cases)
        if not cases or not whole or (status != 0 and not failed):
            self.line(status == 0 and whole, name)
        if status != 0 or failed or not whole:
            say(f"# exit status {status}")
            for line in text.splitlines()[-60:]:
                say(f"#   {line}")


def missing(machine):
    """The Debian package that is wanted, or None."""
    if shutil.which(f"qemu-system-{machine.arch}") is None:
        return QEMU_PACKAGE[machine.arch]
    busybox = shutil.which("busybox")
    if busybox is None or initramfs.dynamic(busybox)[0] is not None:
        return "busybox-static"
    return None


def built(*parts):
    path = os.path.join(BUILD, *parts)
    return path if os.path.exists(path) else None


def commands_for(what, tree):
    """(name, shell text, seconds) of each command, its files put into the tree."""
    if what.startswith("numa"):
        tree.program(built("test", "vm", "vm-numa"), "/t/numa")
        yield what, "CONFORM_EXPECT=quire /t/numa", 600
    elif what == "set-balancing-on":
        yield what, "echo 1 > /proc/sys/kernel/numa_balancing", 10
    elif what == "set-balancing-off":
        yield what, "echo 0 > /proc/sys/kernel/numa_balancing", 10
    elif what == "set-huge":
        yield what, "echo always > /sys/kernel/mm/transparent_hugepage/enabled", 10
    elif what == "conform":
        for name in CONFORM:
            tree.program(built("test", "conform", "conform-" + name), "/t/" + name)
            yield name, f"{PRELOAD} CONFORM_EXPECT=quire /t/{name}", 900
    elif what == "unit":
        for name in UNIT:
            path = built("test", "unit", "unit-" + name)
            if path is not None:
                tree.program(path, "/t/unit-" + name)
                yield "unit-" + name, f"/t/unit-{name} --tap --jobs 1", 900
    elif shutil.which(what) is not None:
        tree.program(shutil.which(what), "/t/" + what)
        text = PROGRAMS[what]
        plain, quire = text.format("", ""), text.format(PRELOAD, PRELOAD)
        yield what, (f"a=$({plain} | md5sum)\nb=$({quire} | md5sum)\n"
                     "echo \"$a $b\"\n[ -n \"$a\" ] && [ \"$a\" = \"$b\" ]"), 300


def boot(name, report):
    machine, wanted = MACHINES[name]
    package = missing(machine)
    if package is not None:
        report.skip(name, f"{package} is not installed")
        return
    try:
        kernel = kernels.get(CACHE, machine.arch, machine.series)
    except (OSError, subprocess.SubprocessError) as error:
        report.skip(name, f"no kernel {machine.series}: {error}".replace("\n", " "))
        return
    tree = initramfs.Tree(machine.arch)
    tree.file(shutil.which("busybox"), "/bin/busybox")
    tree.program(built("src", "libquire.so.0"), "/lib/libquire.so.0")
    commands = [c for what in wanted for c in commands_for(what, tree)]
    limit = 120 + sum(c[2] for c in commands)
    began = time.monotonic()
    results, trouble = run(machine, kernel, tree, commands, min(limit, 3600))
    say(f"# {name}: {os.path.basename(kernel)}, {time.monotonic() - began:.0f} s")
    seen = {r[0] for r in results}
    for command, status, text in results:
        report.command(f"{name}/{command}", status, text)
    for command, _, _ in commands:
        if command not in seen:
            report.line(False, f"{name}/{command}")
    for line in trouble.splitlines():
        say(f"# {line}")


def main():
    names = {"quick": QUICK, "all": list(MACHINES)}.get(sys.argv[1], sys.argv[1:])
    report = Report()
    for name in names:
        boot(name, report)
    say(f"1..{report.number}")
    return 1 if report.bad else 0


if __name__ == "__main__":
    sys.exit(main())
