#!/usr/bin/env python3
"""Drives wordindex: builds, resumes, follows a text that grows, and refuses what is damaged."""
import os
import random
import subprocess
import sys
import tempfile

PROGRAM = os.path.abspath(sys.argv[1])


def lines(nr, seed):
    pick = random.Random(seed)
    return [" ".join(f"word{pick.randrange(3000)}" for _ in range(8)) for _ in range(nr)]


def expect(text, word):
    found = [n for n, line in enumerate(text, 1) if word in line.split()]
    return " ".join([f"{word}: {len(found)} lines", *map(str, found[:10])])


def run(image, path, *words):
    done = subprocess.run([PROGRAM, image, path, *words], capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, done
    return done.stdout.splitlines(), done.stderr


def main():
    print("1..5")
    words = ["word7", "word2999", "nothing"]
    with tempfile.TemporaryDirectory() as folder:
        image, path = os.path.join(folder, "image"), os.path.join(folder, "text")

        def step(number, text, says, what):
            with open(path, "w", encoding="ascii") as file:
                file.write("".join(line + "\n" for line in text))
            out, said = run(image, path, *words)
            good = out == [expect(text, word) for word in words] and says in said
            print("ok" if good else "not ok", number, "-", what, "" if good else f"# {out} {said}")

        text = lines(20000, 1)
        step(1, text, "built:", "the first run builds")
        step(2, text, " 0 bytes read", "the second resumes")
        text = text + lines(500, 2)
        step(3, text, "resumed:", "a text that has grown is read from there on")
        text = text + lines(500, 3)
        step(4, text, "resumed:", "once more, from an image with an increment")
        with open(image, "r+b") as file:
            file.truncate(os.path.getsize(image) // 2)
        step(5, text, "built:", "half an image is not used")


main()
