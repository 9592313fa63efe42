#!/usr/bin/env python3
"""Drives nodespeed: a line for each pair of nodes, with numbers that can be."""
import os
import subprocess
import sys


def lines(conf):
    done = subprocess.run([os.path.abspath(sys.argv[1]), "-m", "2"], capture_output=True, text=True,
                          env=dict(os.environ, QUIRE_CONF=conf), timeout=300, check=True)
    return [line.split() for line in done.stdout.splitlines()[1:]]


def main():
    print("1..3")
    for number, nodes in enumerate((1, 3), 1):
        rows = lines(f"numa_fake:{nodes}")
        pairs = [(int(r[0]), int(r[1])) for r in rows]
        wanted = [(a, b) for a in range(nodes) for b in range(nodes)]
        good = pairs == wanted and all(float(r[2]) > 0 and float(r[3]) > 0 for r in rows)
        print("ok" if good else "not ok", number, f"- {nodes} nodes, pretended {'' if good else rows}")
    wrong = subprocess.run([sys.argv[1], "-m", "0"], capture_output=True, timeout=300, check=False)
    print("ok" if wrong.returncode == 2 and b"usage" in wrong.stderr else "not ok", 3, "- usage")


main()
