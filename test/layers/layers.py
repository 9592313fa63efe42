#!/usr/bin/env python3
"""Checks the order of the layers: a file includes only its own layer and those below it.

Also that no source file is longer than 500 lines. Prints TAP.
"""

import os
import re
import sys

# from the ground up
LAYERS = ["base", "numa", "buddy", "zone", "slab", "cow", "stat", "malloc"]
MAX_LINES = 500
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def sources(root):
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".c", ".h", ".S", ".inc", ".def")):
                yield os.path.join(folder, name)


def layer_of(path):
    return path.split("/")[0]


def complaints(root, path):
    """What is wrong with one file, a line each."""
    name = os.path.relpath(path, root)
    layer = layer_of(name)
    if layer not in LAYERS:
        yield f"{name} is in no layer (they are {', '.join(LAYERS)})"
        return
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    if len(lines) > MAX_LINES:
        yield f"{name} has {len(lines)} lines, more than {MAX_LINES}"
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if not match or match[1] == "<":
            continue
        target = match[2]
        at = f"{name}:{number}: includes \"{target}\""
        if target.startswith("quire/"):
            continue  # the public face, which knows nothing of the inside
        if not os.path.isfile(os.path.join(root, target)):
            yield f"{at}: name it from src/ on"
        elif target.endswith(".c"):
            yield f"{at}: a .c file"
        elif layer_of(target) not in LAYERS:
            yield f"{at}, which is in no layer"
        elif LAYERS.index(layer_of(target)) > LAYERS.index(layer):
            yield f"{at}: {layer_of(target)} lies above {layer}"


def main():
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("usage: layers.py SRC-FOLDER")
    root = sys.argv[1]
    files = list(sources(root))
    if not files:
        sys.exit(f"layers: no source files under {root}")
    print(f"1..{len(files)}")
    bad = 0
    for number, path in enumerate(files, 1):
        found = list(complaints(root, path))
        bad += bool(found)
        print(f"{'not ok' if found else 'ok'} {number} - {os.path.relpath(path, root)}")
        for line in found:
            print(f"# {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
