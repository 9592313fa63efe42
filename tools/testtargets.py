#!/usr/bin/env python3
"""What to build for some of the tests: testtargets.py BUILD-FOLDER SUITE...

Prints the targets for ninja: all that is built by default but for programs that only tests of these
suites run.
"""
import json
import os
import subprocess
import sys


def introspect(build, what):
    done = subprocess.run(["meson", "introspect", what, build], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def main(build, *suites):
    left_out, needed = set(), set()
    for test in introspect(build, "--tests"):
        names = {suite.partition(":")[2] for suite in test["suite"]}
        (left_out if names & set(suites) else needed).update(test["depends"])
    for target in introspect(build, "--targets"):
        # Libraries that are not installed come with the programs that are made of them.
        part = target["type"] == "static library" and not target["installed"]
        if target["build_by_default"] and not part and target["id"] not in left_out - needed:
            for path in target["filename"]:
                print(os.path.relpath(path, build))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
