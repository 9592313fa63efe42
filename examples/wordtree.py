#!/usr/bin/env python3
"""Drives wordtree: it counts as Python does, and its tree takes half of what pointers take."""
import collections
import random
import re
import subprocess
import sys


def run(program, text, *options):
    return subprocess.run([program, *options], input=text.encode(), capture_output=True,
                          timeout=300, check=False)


def main():
    compact, wide = sys.argv[1:3]
    dice = random.Random(1)
    words = [f"w{dice.randrange(1 << 40):x}" for _ in range(60000)] * 2 + ["The", "the", "THE"]
    dice.shuffle(words)
    text = " ".join(words) + ".\n"
    counted = collections.Counter(text.lower().replace(".", "").split())
    expect = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    done = [run(program, text, "-s", "-n", "100000") for program in (compact, wide)]
    if b"no memory" in done[0].stderr:
        print("1..0 # SKIP there is no room below 4 GiB")
        return
    print("1..3")
    for number, one in enumerate(done, 1):
        got = [(line.split()[1], int(line.split()[0])) for line in one.stdout.decode().splitlines()]
        good = one.returncode == 0 and got == expect
        print("ok" if good else f"not ok {one.stderr}", number, "- counts")
    sizes = [int(re.search(rb"tree (\d+) bytes", one.stderr)[1]) for one in done]
    good = sizes[0] * 2 == sizes[1] == 32 * len(expect)
    print("ok" if good else "not ok", f"3 - the tree takes {sizes[0]} bytes instead of {sizes[1]}")


main()
