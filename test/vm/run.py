#!/usr/bin/env python3
"""Tests in machines that QEMU plays, and of 32-bit processes: run.py quick | all | NAME...

Each machine boots once and runs its commands; what these report as TAP is passed on, case by case.
Names are those of MACHINES below. VM_BUILD is the build folder, VM_CACHE where kernels are kept.
What is missing is named by its Debian package, and the machines that need it are skipped.
"""
import argparse
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
    "sort": "seq 40000 | tac | {} /t/sort --parallel=2 -S 8M",
    "bash": "{} /t/bash -c 'declare -A a; for i in {{1..3000}}; do a[$i]=x$i; done;"
            " for i in {{1..3000..7}}; do echo ${{a[$i]}}; done'",
    "perl": "{} /t/perl -e 'my %h; $h{{$_ * 7919 % 50021}} = \"v\" x ($_ % 90) for 1..30000;"
            " print scalar(keys %h), \" \", length(join(\"\", map {{ $h{{$_}} }} sort keys %h))'",
    "xz": "seq 60000 | {} /t/xz -T2 -2 | {} /t/xz -d",
}

# Those that a machine without KVM gets through in a minute.
CONFORM = ["contract", "aligned", "tuning"]
UNIT = ["topology", "mempolicy", "memmap", "zones", "pcp"]

# Each with the seconds that it may take.
NUMA = {"numa": 500, "numa-calls": 300, "numa-user": 100}

# What machines of another architecture need of the tests, as FOLDER/NAME.
MACHINE_PROGRAMS = ["vm/cgroup", "pages/numa", *(f"vm/{n}" for n in NUMA),
                    *(f"conform/{n}" for n in CONFORM)]

# Another architecture is built here; its programs come from Debian's packages.
CROSS = {"aarch64": ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu", "aarch64.ini"),
         "i386": ("i686-linux-gnu-gcc", "gcc-i686-linux-gnu", "i386.ini")}
FOREIGN = {"busybox": "bin/busybox", "perl": "usr/bin/perl", "bash": "bin/bash", "xz": "usr/bin/xz"}
FOREIGN_PACKAGES = {"aarch64": ["busybox-static", "perl-base", "libcrypt1"],
                    "i386": ["perl-base", "libcrypt1", "bash", "libtinfo6", "xz-utils", "liblzma5"]}
I386 = "/usr/i686-linux-gnu/lib"  # gcc-i686-linux-gnu's libc

RING = {(0, 1): 15, (1, 2): 15, (2, 3): 15, (0, 3): 15, (0, 2): 25, (1, 3): 25}
FAR = {(0, 1): 20, (0, 2): 40, (1, 2): 30}

# name: (machine, what to run)
MACHINES = {
    "two": (Machine([(208, 1), (208, 1)]),
            ["numa", "pages-numa", "cgroup-short", "sort", "perl"]),
    "balancing": (Machine([(256, 2), (256, 2)]),
                  ["set-balancing-on", "numa", "set-balancing-off", "numa-again", "sort", "xz"]),
    "four": (Machine([(224, 1)] * 4, RING), ["numa", "unit", "bash", "xz"]),
    "far": (Machine([(224, 1), (224, 1), (320, 0)], FAR), ["numa", "unit", "sort"]),
    "no-memory": (Machine([(224, 1), (224, 1), (0, 1)], {(0, 1): 20, (0, 2): 40, (1, 2): 15}),
                  ["numa", "sort"]),
    "unequal": (Machine([(160, 1), (448, 2)]), ["numa", "sort", "perl"]),
    "one": (Machine([(448, 2)], append="psi=1"), ["cgroup", "conform", "numa", "bash"]),
    "thp": (Machine([(256, 1), (256, 1)], append="transparent_hugepage=always"),
            ["set-huge", "numa", "cgroup-huge", "perl"]),
    "old": (Machine([(256, 1), (256, 1)], series="5.10", append="psi=1"),
            ["numa", "cgroup", "conform", "unit", "xz"]),
    "new": (Machine([(256, 1), (256, 1)], series="6.12", append="psi=1"),
            ["numa", "cgroup", "conform", "unit", "xz"]),
    "arm64": (Machine([(256, 1), (256, 1)], arch="aarch64", series="6.12-4k"),
              ["numa", "conform", "pages-numa", "perl"]),
    "arm64-16k": (Machine([(256, 1), (256, 1)], arch="aarch64", series="6.12-16k"),
                  ["numa", "conform", "pages-numa", "perl"]),
    "arm64-6.1": (Machine([(512, 2)], arch="aarch64", series="6.1"), ["conform", "perl"]),
    # No machine: qemu-user, which has no rseq, mbind, move_pages, userfaultfd.
    "arm64-user": (None, ["conform/aligned", "conform/tuning", "pages/numa"]),
    # No machine: 32-bit processes, which kernels for x86-64 run beside the others.
    "i386": (None, ["conform/contract", "conform/aligned", "conform/tuning", "conform/threads",
                    "conform/forks", "conform/resize", "conform/signals", "conform/early",
                    "pages/pages", "pages/special", "pages/highmem", "pages/highmem-file",
                    "pages/beyond", "pages/areas", "pages/movable", "pages/numa", "pages/shrink",
                    "slab/caches", "slab/heaps", "slab/wrong", "slab/wrong-heaps",
                    "stress/mixed", "stress/handoff", "stress/churn", "stress/caches",
                    "snapshot/cut", "snapshot/rollback-heap", "perl", "bash", "xz"]),
    "i386-short": (None, ["conform/contract", "conform/threads", "conform/forks", "pages/highmem",
                          "slab/wrong", "stress/mixed", "snapshot/rollback-heap"]),
}
QUICK = ["two"]


def say(line):
    print(line, flush=True)


def test_program(name):
    """Where the build has FOLDER/NAME."""
    folder, _, rest = name.partition("/")
    return f"test/{folder}/{folder}-{rest}"


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
        cases = re.findall(r"^(ok|not ok) +(?:\d+ +)?- ([^#\n]*?) *(#.*|\([\d.]+s\))?$", text, re.M)
        plan = re.search(r"^1\.\.(\d+)", text, re.M)
        failed = False
        for result, case, rest in cases:
            skipped = re.search(r"# *SKIP.*", rest, re.I)
            failed |= result != "ok"
            self.line(result == "ok", f"{name}: {case}",
                      f" {skipped.group(0)}" if skipped else "")
        whole = plan is None or int(plan.group(1)) == len(cases)
        if not cases or not whole or (status != 0 and not failed):
            self.line(status == 0 and whole, name)
        if status != 0 or failed or not whole:
            say(f"# exit status {status}")
            for line in text.splitlines()[-60:]:
                say(f"#   {line}")


class Kit:
    """What one architecture's machines are filled from."""

    def __init__(self, arch):
        self.arch, self.foreign, self.packages = arch, arch in CROSS, None
        self.build = os.path.join(CACHE, f"build-{arch}") if self.foreign else BUILD

    def missing(self):
        """The Debian package that is wanted, or None."""
        if self.arch in QEMU_PACKAGE and shutil.which(f"qemu-system-{self.arch}") is None:
            return QEMU_PACKAGE[self.arch]
        if self.foreign:
            compiler, package, _ = CROSS[self.arch]
            return package if shutil.which(compiler) is None else None
        busybox = shutil.which("busybox")
        return "busybox-static" if busybox is None or initramfs.dynamic(busybox)[0] else None

    def fetch(self):
        """Programs of Debian's for a foreign machine; raises OSError or SubprocessError."""
        if self.foreign:
            self.packages = kernels.programs(CACHE, self.arch, FOREIGN_PACKAGES[self.arch])

    def compile(self, programs=MACHINE_PROGRAMS):
        """Build for a foreign machine; here all is built."""
        if not self.foreign:
            return
        if not os.path.exists(os.path.join(self.build, "build.ninja")):
            quiet(["meson", "setup", self.build, "--cross-file",
                   os.path.join(HERE, CROSS[self.arch][2]), "--buildtype=debug",
                   "-Doptimization=g", "-Dchecks=true", "-Dtests=true"])
        quiet(["ninja", "-C", self.build, "src/libquire.so.0.1.0", *map(test_program, programs)])

    def built(self, *parts):
        path = os.path.join(self.build, *parts)
        return path if os.path.exists(path) else None

    def program(self, name):
        """The path of a program of Debian's, or None."""
        if not self.foreign:
            return shutil.which(name)
        return os.path.join(self.packages, FOREIGN[name]) if name in FOREIGN else None

    def tree(self):
        tree = initramfs.Tree(self.arch)
        if self.foreign:
            tree.dirs = tree.dirs + [os.path.join(self.packages, d) for d in
                                     ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")]
        tree.file(self.program("busybox"), "/bin/busybox")
        tree.program(self.built("src", "libquire.so.0"), "/lib/libquire.so.0")
        return tree


def quiet(command):
    done = subprocess.run(command, cwd=os.path.join(HERE, "..", ".."), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stdout[-2000:]}")


def compare(what, text, library, called):
    """Shell text: the program prints the same under quire, and was under it."""
    table = f"/tmp/quire-vm-{os.getpid()}-{what}"
    by_quire = f"LD_PRELOAD={library} QUIRE_CONF=stats:1,stats_file:{table}"
    plain, quire = text.format("", ""), text.format(by_quire, by_quire)
    return (f"a=$({plain} | md5sum)\nb=$({quire} | md5sum)\necho \"$a $b\"\n"
            "[ -n \"$a\" ] && [ \"$a\" = \"$b\" ] && "
            f"grep 'active in {called}' {table}; status=$?; rm -f {table}; (exit $status)")


def commands_for(what, kit, tree):
    """(name, shell text, seconds) of each command, its files put into the tree."""
    if what.startswith("numa"):
        for name, seconds in NUMA.items():
            tree.program(kit.built("test", "vm", "vm-" + name), "/t/" + name)
            yield name + what[len("numa"):], f"CONFORM_EXPECT=quire /t/{name}", seconds
    elif what.startswith("cgroup"):
        tree.program(kit.built("test", "vm", "vm-cgroup"), "/t/cgroup")
        case = {"cgroup-short": "enomem_and_not_the_oom_killer",
                "cgroup-huge": "huge_pages_stay_below_it"}.get(what, "")
        yield what, f"CONFORM_EXPECT=quire /t/cgroup {case}", 300
    elif what == "set-balancing-on":
        yield what, "echo 1 > /proc/sys/kernel/numa_balancing", 10
    elif what == "set-balancing-off":
        yield what, "echo 0 > /proc/sys/kernel/numa_balancing", 10
    elif what == "set-huge":
        yield what, "echo always > /sys/kernel/mm/transparent_hugepage/enabled", 10
    elif what == "conform":
        for name in CONFORM:
            tree.program(kit.built("test", "conform", "conform-" + name), "/t/" + name)
            yield name, f"{PRELOAD} CONFORM_EXPECT=quire /t/{name}", 600
    elif what == "unit":
        for name in UNIT:
            path = kit.built("test", "unit", "unit-" + name)
            if path is not None:
                tree.program(path, "/t/unit-" + name)
                yield "unit-" + name, f"/t/unit-{name} --tap --jobs 1", 900
    elif what == "pages-numa":
        tree.program(kit.built("test", "pages", what), "/t/" + what)
        yield what, f"CONFORM_EXPECT=quire /t/{what}", 900
    elif kit.program(what) is not None:
        tree.program(kit.program(what), "/t/" + what)
        yield what, compare(what, PROGRAMS[what], "/lib/libquire.so.0", what), 300


def run_here(name, command, seconds, report, shell=False, **more):
    """One command without a machine."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=seconds, text=True,
                              errors="replace", check=False, shell=shell, **more)
        report.command(name, done.returncode, done.stdout)
    except subprocess.TimeoutExpired:
        report.line(False, f"{name}: took more than {seconds} s")


def by_qemu_user(name, programs, report):
    """Programs of another architecture in this one's kernel, by qemu-user."""
    arch = "aarch64"
    kit = Kit(arch)
    if kit.missing() or shutil.which(f"qemu-{arch}-static") is None:
        report.skip(name, f"{kit.missing() or 'qemu-user-static'} is not installed")
        return
    kit.compile(programs)
    env = {"LD_LIBRARY_PATH": kit.built("src"), "LD_PRELOAD": kit.built("src", "libquire.so.0"),
           "CONFORM_EXPECT": "quire", "CONFORM_PATIENCE": "10"}
    for program in programs:
        run_here(f"{name}/{program}",
                 [f"qemu-{arch}-static", "-L", initramfs.ARCHES[arch][1],
                  *(f for name, value in env.items() for f in ("-E", f"{name}={value}")),
                  kit.built(test_program(program))], 900, report)


def runs_32_bits():
    """Whether the kernel runs 32-bit programs of x86."""
    try:
        return subprocess.run([f"{I386}/ld-linux.so.2", "--version"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def in_32_bits(name, programs, report):
    """32-bit processes in this kernel; what they run that has 64 bits goes without quire."""
    kit = Kit("i386")
    if kit.missing() or not runs_32_bits():
        report.skip(name, f"{kit.missing()} is not installed" if kit.missing()
                    else "this kernel runs no 32-bit programs")
        return
    kit.compile([p for p in programs if "/" in p])
    library = kit.built("src", "libquire.so.0")
    for program in programs:
        if "/" in program:
            run_here(f"{name}/{program}", [kit.built(test_program(program))], 900, report,
                     env={**os.environ, "CONFORM_EXPECT": "quire",
                          "LD_PRELOAD": os.path.abspath(library)})
            continue
        try:
            kit.fetch()
        except (OSError, subprocess.SubprocessError) as error:
            report.skip(f"{name}/{program}",
                        f"Debian's packages cannot be had: {error}".replace("\n", " "))
            continue
        where = [I386, *(os.path.join(kit.packages, d, "i386-linux-gnu") for d in ("lib", "usr/lib"))]
        start = f"{I386}/ld-linux.so.2 --library-path {':'.join(where)} {kit.program(program)}"
        text = PROGRAMS[program].replace(f"/t/{program}", start)
        run_here(f"{name}/{program}",
                 compare(program, text, os.path.abspath(library), "ld-linux.so.2"), 300, report,
                 shell=True)


def boot_nothing(name, programs, report):
    (by_qemu_user if name == "arm64-user" else in_32_bits)(name, programs, report)


def boot(name, report):
    machine, wanted = MACHINES[name]
    if machine is None:
        boot_nothing(name, wanted, report)
        return
    kit = Kit(machine.arch)
    package = kit.missing()
    if package is not None:
        report.skip(name, f"{package} is not installed")
        return
    try:
        kernel = kernels.kernel(CACHE, machine.arch, machine.series)
        kit.fetch()
    except (OSError, subprocess.SubprocessError) as error:
        report.skip(name, f"Debian's packages cannot be had: {error}".replace("\n", " "))
        return
    kit.compile()
    tree = kit.tree()
    commands = [c for what in wanted for c in commands_for(what, kit, tree)]
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
    parser = argparse.ArgumentParser(description=__doc__, epilog="machines: " + ", ".join(MACHINES),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="quick | all | NAME",
                        choices=["quick", "all", *MACHINES])
    given = parser.parse_args().names
    report = Report()
    for name in {"quick": QUICK, "all": [m for m in MACHINES if not m.endswith("-short")]}.get(given[0], given):
        try:
            boot(name, report)
        except RuntimeError as error:
            report.line(False, name)
            for line in str(error).splitlines():
                say(f"# {line}")
    say(f"1..{report.number}")
    return 1 if report.bad else 0


if __name__ == "__main__":
    sys.exit(main())
