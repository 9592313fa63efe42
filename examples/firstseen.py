#!/usr/bin/env python3
"""Drives firstseen: exact where memory is enough; else it forgets instead of failing."""
import os
import random
import re
import subprocess
import sys


def run(text, conf):
    return subprocess.run([sys.argv[1], "-s"], input=text, capture_output=True, timeout=300,
                          env=dict(os.environ, QUIRE_CONF=conf), check=False)


def main():
    dice = random.Random(3)
    lines = [b"%d %s\n" % (n, b"z" * dice.randrange(200)) for n in range(150000)]
    stream = [lines[min(i, dice.randrange(i + 1) + i // 2)] for i in range(len(lines))]
    distinct = list(dict.fromkeys(stream))
    print("1..2")
    done = run(b"".join(stream), "")
    good = done.returncode == 0 and done.stdout == b"".join(distinct)
    print("ok 1" if good and done.stderr.startswith(b"0 lines") else f"not ok 1 {done.stderr}",
          "- each line once")
    done = run(b"".join(stream), "limit:12M")
    out = done.stdout.splitlines(keepends=True)
    forgotten = int(re.match(rb"\d+", done.stderr)[0]) if done.returncode == 0 else 0
    good = list(dict.fromkeys(out)) == distinct and forgotten > 1000
    print("ok 2" if good else f"not ok 2 {done.stderr}",
          f"- with 12 MiB: {forgotten} forgotten, {len(out) - len(distinct)} came twice")


main()
