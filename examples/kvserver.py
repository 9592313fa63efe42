#!/usr/bin/env python3
"""Drives kvserver: sets keys, saves in the background while it changes them, and reads the image."""
import os
import subprocess
import sys
import tempfile

SERVER, KEYS = os.path.abspath(sys.argv[1]), 20000


def run(commands, image):
    done = subprocess.run([SERVER, "serve", image], input="\n".join(commands) + "\nQUIT\n",
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.splitlines()


def dump(image):
    return subprocess.run([SERVER, "dump", image], capture_output=True, text=True, timeout=300,
                          check=False)


def main():
    print("1..3")
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "image")
        before = {f"key{i}": f"value {i} " + "x" * (i % 90) for i in range(KEYS)}
        commands = [f"SET {k} {v}" for k, v in before.items()] + ["SAVE"]
        commands += [f"SET {k} changed" for k in before] + [f"DEL key{i}" for i in range(0, KEYS, 3)]
        commands += ["COUNT", "WAIT"]
        out = run(commands, image)
        good = "saving 20000 keys" in out[0] and out[-1] == "saved" and int(out[1]) < KEYS
        print("ok 1" if good else f"not ok 1 {out}", "- saves while it serves")
        done = dump(image)
        found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        if "not supported" in done.stderr:
            print("ok 2 # SKIP there is no userfaultfd\nok 3 # SKIP")
            return
        print("ok 2" if found == before else f"not ok 2 {done.stderr}", "- the image is of the cut")
        with open(image, "r+b") as file:
            file.truncate(os.path.getsize(image) // 2)
        done = dump(image)
        print("ok 3" if done.returncode == 1 and "message" in done.stderr else f"not ok 3 {done}",
              "- half an image is refused")


main()
