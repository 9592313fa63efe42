#!/usr/bin/env python3
"""Does the benchmark notice what it claims to notice? usage: selftest.py BUILD [unittest options]

A corrupting allocator must fail every workload, an allocator that is loaded but not used must be
refused, a risen count must fail. What needs no program is in figures.py.
"""

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import unittest

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)

import instructions  # noqa: E402
from harness import atomics, callgrind, elf, process, prove  # noqa: E402

BUILD = ""

SMALL_SIZES = {
    "trees": ["10", "2", "2"],
    "cache": ["2", "40000", "4"],
    "prodcons": ["20000"],
    "churn": ["40", "200", "4"],
    "regrow": ["1", "1000", "2"],
    "idle": ["20", "200"],
    "burst": ["4", "0", "2", "50"],
    "server": ["2", "3", "2000"],
    "sharing": ["passive", "2", "400", "50", "24"],
    "big": ["600", "64", "512", "20"],
    "awkward": ["600", "60"],
    "signals": ["2", "20000"],
    "forks": ["6", "2", "400"],
}

# its objects are alone, each in its thread: whether the broken allocator spoils one is chance
BY_CHANCE = {"sharing"}


def program(*parts):
    return os.path.join(BUILD, "bench", *parts)


class InPlace(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="quire-selftest-")
        self.addCleanup(self.folder.cleanup)
        self.place = process.Place(BENCH, BUILD, self.folder.name)

    def run_program(self, command, variables=None, options=()):
        return process.run(self.place, command, variables or {}, 60, options=options)

    def bindings_of(self, command, variables):
        folder = self.place.scratch("proof")
        os.mkdir(folder)
        self.run_program(command, {**variables, **prove.variables(folder)})
        return prove.read_bindings(folder)


class Workloads(InPlace):
    def test_right_allocator_passes(self):
        for name, arguments in SMALL_SIZES.items():
            with self.subTest(name):
                _, output = self.run_program([program("workloads", name), *arguments])
                self.assertTrue(output.startswith(b"ok " + name.encode()), output)

    def test_corrupting_allocator_fails(self):
        for name, arguments in SMALL_SIZES.items():
            if name in BY_CHANCE:
                continue
            with self.subTest(name), self.assertRaises(process.RunError):
                self.run_program([program("workloads", name), *arguments],
                                 {"LD_PRELOAD": program("selftest", "libbroken.so")})

    def test_same_answer_every_time(self):
        for name in ("trees", "cache", "prodcons", "churn", "regrow", "server", "forks"):
            command = [program("workloads", name), *SMALL_SIZES[name]]
            self.assertEqual(self.run_program(command)[1], self.run_program(command)[1])

    def test_bad_argument_is_refused(self):
        for word in ("x", "-1", "", "99999999999999999999"):
            with self.assertRaisesRegex(process.RunError, "status 2"):
                self.run_program([program("workloads", "trees"), word])


class Measure(InPlace):
    def test_peak_is_the_programs_own(self):
        ballast = bytearray(64 << 20)
        cost, _ = self.run_program(["/bin/true"])
        self.assertGreater(len(ballast), cost["peak_kb"] << 10)
        self.assertLess(cost["peak_kb"], 16 << 10)

    def test_variables_reach_only_the_program(self):
        _, output = self.run_program(["/bin/sh", "-c", "echo $WORD; tr '\\0' '\\n' "
                                      "</proc/$PPID/environ | grep -c ^WORD= || true"],
                                     {"WORD": "here"})
        self.assertEqual(output.split(), [b"here", b"0"])

    def test_statuses(self):
        for command, words in (("exit 3", "status 3"), ("kill -SEGV $$", "SIGSEGV")):
            with self.assertRaisesRegex(process.RunError, words):
                self.run_program(["/bin/sh", "-c", command])
        with self.assertRaisesRegex(process.RunError, "status 127"):
            self.run_program(["/nowhere/to/be/found"])

    def test_hung_program_is_ended(self):
        with self.assertRaisesRegex(process.RunError, "did not end"):
            process.run(self.place, ["/bin/sleep", "50"], {}, 0.2)

    def test_watching_sees_children_too(self):
        watched = [program("workloads", "burst"), "20", "0"]
        cost, _ = self.run_program(["/bin/sh", "-c", " ".join(watched) + "; true"], options=["-w"])
        seen = cost["watch"]
        self.assertGreater(seen["peak_rss_kb"], 20 << 10)
        self.assertLessEqual(seen["peak_pss_kb"], seen["peak_rss_kb"])
        self.assertLessEqual(len(seen["samples"]), 128)
        self.assertEqual(max(s[1] for s in seen["samples"]), seen["peak_rss_kb"])
        self.assertNotIn("watch", self.run_program(["/bin/true"])[0])

    def test_pinning(self):
        cpu = max(os.sched_getaffinity(0))
        self.place.pin = str(cpu)
        _, output = self.run_program(["/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status"])
        self.assertEqual(output.split()[-1], str(cpu).encode())

    def test_memory_at_the_end(self):
        cost, _ = self.run_program(["/bin/true"], options=["-x"])
        self.assertGreater(cost["end_rss_kb"], cost["end_private_kb"])
        self.assertGreater(cost["end_private_kb"], 0)


class Proof(InPlace):
    def test_live_allocator_is_accepted(self):
        library = program("selftest", "libbroken.so")
        found = self.bindings_of(["/bin/ls", "/"], {"LD_PRELOAD": library})
        self.assertGreater(prove.check(found, library)["bindings"], 0)

    def test_baseline_is_told_from_a_peer(self):
        found = self.bindings_of(["/bin/ls", "/"], {})
        prove.check(found, None)
        with self.assertRaises(prove.Refused):
            prove.check(found, program("selftest", "libbroken.so"))

    def test_preloaded_peer_is_not_the_baseline(self):
        found = self.bindings_of(["/bin/ls", "/"],
                                 {"LD_PRELOAD": program("selftest", "libbroken.so")})
        with self.assertRaises(prove.Refused):
            prove.check(found, None)

    def test_own_malloc_is_refused(self):
        library = program("selftest", "libbroken.so")
        found = self.bindings_of([program("selftest", "own")], {"LD_PRELOAD": library})
        with self.assertRaises(prove.Refused):
            prove.check(found, library)

    def test_silence_is_refused(self):
        with self.assertRaises(prove.Refused):
            prove.check({}, None)


CALLGRIND = """\
# callgrind format
positions: instr line
events: Ir

ob=(1) /lib/libdemo.so
fl=(1) ???
fn=(1) malloc
0x100 0 10
+4 0 20
cob=(2) /lib/libc.so.6
cfn=(2) memset
calls=5 0x900
* 0 5000
+4 * 7
ob=(2)
fn=(2)
0x900 0 5000

ob=(3) ???
fn=(3) free
0x7005 0 300
+16 0 4
ob=(4) /bin/prog
fn=(4) main
0x1 0 99
"""


class Instructions(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="quire-selftest-")
        self.addCleanup(self.folder.cleanup)

    def write(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def test_reader(self):
        path = self.write("out", CALLGRIND)
        costs = list(callgrind.Reader(path).costs())
        self.assertEqual(costs, [
            ("/lib/libdemo.so", "malloc", 0x100, 10), ("/lib/libdemo.so", "malloc", 0x104, 20),
            ("/lib/libdemo.so", "malloc", 0x108, 7), ("/lib/libc.so.6", "memset", 0x900, 5000),
            ("???", "free", 0x7005, 300), ("???", "free", 0x7015, 4),
            ("/bin/prog", "main", 1, 99)])
        # code of unknown origin is the library's where the library was mapped, and only there
        real = os.path.realpath
        inside, outside = callgrind.split(costs, real("/lib/libdemo.so"), real("/bin/prog"),
                                          [(0x7000, 0x7010)])
        self.assertEqual((inside, outside), (337, 5004))

    def test_not_callgrind(self):
        with self.assertRaises(callgrind.CallgrindError):
            list(callgrind.Reader(self.write("out", "hello\n")).costs())

    def test_golden(self):
        path = self.write("gcc-1.txt", "# remark\npair-32 30.00\nother 5\n")
        golden = instructions.read_golden(path)
        self.assertEqual(golden, {"pair-32": 30, "other": 5})
        for count, good in ((29, True), (30.5, True), (30.6, False)):
            with contextlib.redirect_stdout(io.StringIO()) as said:
                self.assertEqual(instructions.compare({"pair-32": (count, 0)}, golden, path), good)
            self.assertEqual("ROSE" in said.getvalue(), not good)
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertFalse(instructions.compare({"new": (1, 0)}, golden, path))
        instructions.write_golden(path, "cc 1", {"pair-32": (31.0, 2.0)})
        self.assertEqual(instructions.read_golden(path), {"pair-32": 31})

    def test_compiler_of_a_library(self):
        found = instructions.compiler_of(program("selftest", "libbroken.so"))
        self.assertIn(found[0], ("gcc", "clang"))
        self.assertTrue(found[1].isdigit())

    def test_every_case_runs(self):
        for name, operations, low, high, _ in instructions.list_cases(program("instr")):
            self.assertGreater(high, low)
            self.assertGreater(operations, 0)
            # the same with any allocator, but for what only quire has
            own = name.startswith(("cache-", "heap-"))
            extra = {"LD_PRELOAD": program("..", "src", "libquire.so")} if own else {}
            subprocess.run([program("instr"), name, "10"], check=True, env=os.environ | extra)

    def test_atomics_are_recognised(self):
        found = atomics.parse("0000000000001000 <f>:\n"
                              "    1000:\tlock cmpxchg %edx,(%rbx)\n"
                              "    1004:\txchg   %eax,0x8(%rdi)\n"
                              "    1008:\txchg   %ax,%ax\n"
                              "    100a:\txchg   %r14,(%rdi,%r12,8)\n"
                              "    100e:\txchg   %r9d,(%rcx)\n"
                              "    1012:\tmov    %eax,(%rdi)\n")
        self.assertEqual(found, {0x1000: False, 0x1004: True, 0x100a: False, 0x100e: True})

    def test_atomics_are_counted_where_they_belong(self):
        library, other = program("selftest", "libbroken.so"), program("measure")
        known = {library: {0x10: False, 0x20: True}, other: {0x10: False}}
        costs = [(library, "malloc", 0x10, 5), (library, "malloc", 0x11, 100),
                 (library, "free", 0x20, 7), (other, "lock", 0x10, 3), ("???", "x", 0x10, 9)]
        found = atomics.count(costs, library, "/bin/prog", known)
        self.assertEqual((found.inside, found.releases, found.outside), (12, 7, 3))
        self.assertEqual(found.functions, {"malloc": 5, "free": 7})

    def test_symbols(self):
        library = elf.Elf(program("selftest", "libbroken.so"))
        self.assertIs(library.defines("malloc"), True)
        self.assertIs(library.defines("__errno_location"), False)
        self.assertIsNone(library.defines("no_such_symbol"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: selftest.py BUILD [unittest options]")
    BUILD = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
