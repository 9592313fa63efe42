#!/usr/bin/env python3
"""Drives jsonsort: its answers against Python's, and requests that ask for too much."""
import json
import os
import random
import subprocess
import sys

JSONSORT = os.path.abspath(sys.argv[1])


def run(lines, *options):
    return subprocess.run([JSONSORT, *options], input="\n".join(lines) + "\n", capture_output=True,
                          text=True, timeout=300, check=False)


def document(rng, depth=0):
    kind = rng.randrange(8 if depth < 6 else 4)
    if kind == 0:
        return rng.choice([True, False, None])
    if kind == 1:
        return rng.choice([rng.randrange(-10**9, 10**9), rng.random() * 1e-7, 1e300])
    if kind < 4:
        return "".join(rng.choice('abc "\\\n\u00e9\u4e2d/') for _ in range(rng.randrange(12)))
    if kind < 6:
        return [document(rng, depth + 1) for _ in range(rng.randrange(6))]
    return {f"{rng.choice('xyzXYZ_')}{rng.randrange(1000)}": document(rng, depth + 1)
            for _ in range(rng.randrange(9))}


def main():
    print("1..4")
    rng = random.Random(8)
    documents = [document(rng) for _ in range(3000)]
    done = run([json.dumps(d, indent=None) for d in documents])
    right = [json.dumps(d, sort_keys=True, separators=(",", ":")) for d in documents]
    good = done.returncode == 0 and done.stdout.splitlines() == right
    print("ok 1" if good else f"not ok 1 {done.stderr}", f"- {len(documents)} documents")

    wrong = ["", "{", "[1,]", '{"a":1,}', '{"a" 1}', "[1 2]", "01", "1.", "-", "nul", '"a', '"\\x"',
             '"\\u12g4"', "[]]", '{1:2}', "\t", "1e", '{"a":}']
    done = run([*wrong, "[ 1 , 2 ]"])
    good = done.stdout.splitlines() == ['{"error":"not JSON"}'] * len(wrong) + ["[1,2]"]
    print("ok 2" if good else f"not ok 2 {done.stdout}", "- no JSON")

    large, deep = json.dumps(list(range(50000))), "[" * 5000 + "]" * 5000
    done = run([large, "[1]", deep, "{}", large], "-l", "500000")
    error = '{"error":"too large"}'
    good = done.stdout.splitlines() == [error, "[1]", error, "{}", error]
    print("ok 3" if good else f"not ok 3 {done.stdout[:500]}", "- too large")

    done = run([large] * 20 + ["[]"], "-l", "20000000", "-v")
    held = [int(line.split()[2]) for line in done.stderr.splitlines()]
    good = len(set(held[:20])) == 1 and held[0] > 50000 * 56 and held[20] == 65536
    print("ok 4" if good else f"not ok 4 {done.stderr[:500]}", "- each with a heap of its own")


main()
