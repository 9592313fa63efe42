#!/usr/bin/env python3
"""Drives lineat: lines by number, with room for all blocks and with room for few."""
import os
import random
import re
import subprocess
import sys
import tempfile


def ask(path, numbers, conf=""):
    return subprocess.run([sys.argv[1], "-s", path], input="\n".join(map(str, numbers)).encode(),
                          env=dict(os.environ, QUIRE_CONF=conf), capture_output=True, timeout=300,
                          check=False)


def main():
    dice = random.Random(6)
    lines = [b"%d " % i + b"x" * dice.randrange(300) + b"\n" for i in range(1, 200001)]
    lines[777] = b"y" * 600000 + b"\n"
    lines[-1] = lines[-1][:-1]
    numbers = [dice.randrange(1, len(lines) + 1) for _ in range(3000)] + [778, len(lines), 1]
    expect = b"".join(lines[n - 1] for n in numbers)
    print("1..3")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text")
        with open(path, "wb") as file:
            file.write(b"".join(lines))
        for number, conf in enumerate(["", "limit:12M"], 1):
            done = ask(path, numbers, conf)
            count = [int(n) for n in re.findall(rb"\d+", done.stderr)]
            good = done.returncode == 0 and done.stdout == expect
            good = good and (count[3] > 100 if conf else count[2] == count[0] and count[3] == 0)
            print("ok" if good else "not ok", number, f"- {conf or 'no limit'}:",
                  done.stderr.decode().strip()[-120:])
        done = ask(path, [0, len(lines) + 1])
        good = done.stdout == b"" and done.stderr.count(b"there is no line") == 2
        print("ok 3" if good else f"not ok 3 {done}", "- no such line")


main()
