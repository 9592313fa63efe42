#!/usr/bin/env python3
"""Drives pagetee: what goes in comes out everywhere, whatever becomes of one output."""
import os
import subprocess
import sys
import tempfile

TEE = os.path.abspath(sys.argv[1])


def tee(data, *files):
    return subprocess.run([TEE, *files], input=data, capture_output=True, timeout=300, check=False)


def main():
    print("1..3")
    data = os.urandom(1 << 20) * 20 + b"end"
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("a", "b", "c")]
        done = tee(data, *files)
        good = done.returncode == 0 and done.stdout == data and not done.stderr
        for name in files:
            with open(name, "rb") as file:
                good = good and file.read() == data
        print("ok 1" if good else f"not ok 1 {done.stderr}", "- 20 MiB, four outputs")
        done = tee(data, files[0], "/dev/full")
        with open(files[0], "rb") as file:
            good = file.read() == data and done.stdout == data
        good = good and done.returncode == 1 and b"/dev/full" in done.stderr
        print("ok 2" if good else f"not ok 2 {done.stderr}", "- one output fails, the others do not")
        done = tee(b"", files[0])
        good = done.returncode == 0 and os.path.getsize(files[0]) == 0
        print("ok 3" if good else f"not ok 3 {done}", "- nothing")


main()
