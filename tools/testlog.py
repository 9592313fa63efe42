#!/usr/bin/env python3
"""Count what `meson test` ran: testlog.py LOGDIR...

Prints one line, "N passed, N failed, N skipped". A test program that reports its parts (TAP) counts
part by part; one that fails although all its parts passed (it crashed, or ran too long) counts as
one failure more. Exits 1 where something failed, or where nothing ran at all.
"""
import json
import os
import sys
import xml.etree.ElementTree as ElementTree

GOOD = ("OK", "EXPECTEDFAIL")


def parts_of(logdir):
    """Test name -> [passed, failed, skipped], for the tests that report their parts."""
    parts = {}
    try:
        tree = ElementTree.parse(os.path.join(logdir, "testlog.junit.xml"))
    except (OSError, ElementTree.ParseError):
        return parts
    for suite in tree.getroot().iter("testsuite"):
        # "project.test" is a program with parts; "project" holds all others.
        _, dot, name = suite.get("name", "").partition(".")
        if not dot:
            continue
        counts = [0, 0, 0]
        for case in suite.iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                counts[1] += 1
            elif case.find("skipped") is not None:
                counts[2] += 1
            else:
                counts[0] += 1
        parts[name] = counts
    return parts


def results_of(logdir):
    """(name, result) of each test."""
    try:
        with open(os.path.join(logdir, "testlog.json"), encoding="utf-8") as log:
            tests = [json.loads(line) for line in log if line.strip()]
    except OSError:
        return []
    return [(test["name"], test["result"]) for test in tests]


def count(logdir):
    parts = parts_of(logdir)
    total = [0, 0, 0]
    for name, result in results_of(logdir):
        counts = parts.get(name)
        if not counts or not sum(counts):
            counts = [result in GOOD, result not in GOOD + ("SKIP",), result == "SKIP"]
        elif result not in GOOD + ("SKIP",) and not counts[1]:
            counts[1] += 1
        total = [a + b for a, b in zip(total, counts)]
    return total


def main(logdirs):
    passed, failed, skipped = map(sum, zip(*map(count, logdirs)))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed + skipped else 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
