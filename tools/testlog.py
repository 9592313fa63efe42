#!/usr/bin/env python3
"""Count what `meson test` ran, and say again what failed: testlog.py LOGDIR...

What failed comes first: the build, the test, the names of its failed parts and the end of what it
said. The last line is "N passed, N failed, N skipped". A test program that reports its parts (TAP)
counts part by part; one that fails although all its parts passed (it crashed, or ran too long)
counts as one failure more. Exits 1 where something failed, or where nothing ran at all.
"""
import json
import os
import sys
import xml.etree.ElementTree as ElementTree

GOOD = ("OK", "EXPECTEDFAIL")
SAID = 40  # lines of a failed test's words


def parts_of(logdir):
    """Test name -> [(part, "passed" | "failed" | "skipped")], for tests that report their parts."""
    parts = {}
    try:
        tree = ElementTree.parse(os.path.join(logdir, "testlog.junit.xml"))
    except (OSError, ElementTree.ParseError):
        return parts
    for suite in tree.getroot().iter("testsuite"):
        # "project.test" is a program with parts; "project" holds all others.
        _, dot, name = suite.get("name", "").partition(".")
        if dot:
            parts[name] = [(case.get("name"), result_of(case)) for case in suite.iter("testcase")]
    return parts


def result_of(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def tests_of(logdir):
    """What meson wrote of each test: name, result, duration, stdout, stderr."""
    try:
        with open(os.path.join(logdir, "testlog.json"), encoding="utf-8") as log:
            return [json.loads(line) for line in log if line.strip()]
    except OSError:
        return []


def count(test, parts):
    """[passed, failed, skipped] of one test."""
    result = test["result"]
    failed = result not in GOOD + ("SKIP",)
    if not parts:
        return [int(result in GOOD), int(failed), int(result == "SKIP")]
    results = [result for _, result in parts]
    counts = [results.count(which) for which in ("passed", "failed", "skipped")]
    if failed and not counts[1]:
        counts[1] = 1
    return counts


def show(build, test, parts):
    print(f"\nfailed: {test['name']} ({build}), {test['result']} after {test['duration']:.1f} s")
    for part, result in parts:
        if result == "failed":
            print(f"  part: {part}")
    for stream in ("stdout", "stderr"):
        lines = (test.get(stream) or "").rstrip().splitlines()
        # Parts that passed say nothing of the failure.
        lines = [line for line in lines if not line.startswith("ok ")]
        if lines:
            print(f"  its {stream}{', the end' if len(lines) > SAID else ''}:")
            print("\n".join("    " + line for line in lines[-SAID:]))


def main(logdirs):
    total = [0, 0, 0]
    for logdir in logdirs:
        build = os.path.dirname(os.path.normpath(logdir))
        parts = parts_of(logdir)
        for test in tests_of(logdir):
            its = parts.get(test["name"], [])
            counts = count(test, its)
            total = [a + b for a, b in zip(total, counts)]
            if counts[1]:
                show(build, test, its)
    passed, failed, skipped = total
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed + skipped else 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
