#!/usr/bin/env python3
"""Drives workers: an index of 200000 words, four workers, each with counts of its own."""
import os
import re
import subprocess
import sys
import tempfile

PROGRAM, WORDS, WORKERS = os.path.abspath(sys.argv[1]), 200000, 4


def run(conf, path, commands):
    env = {**os.environ, "QUIRE_CONF": conf}
    done = subprocess.run([PROGRAM, path, str(WORKERS)], input="\n".join(commands) + "\n", env=env,
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout.splitlines()


def expected(commands):
    """What any kind of fork has to answer."""
    index = {f"word{i}": 1 + i % 3 for i in range(WORDS)}
    seen, asked, turn, out = dict(index), [{} for _ in range(WORKERS)], 0, []
    for line in commands:
        if line.startswith("+"):
            index[line[1:]] = index.get(line[1:], 0) + 1
        elif line == "!":
            seen, asked = dict(index), [{} for _ in range(WORKERS)]
        else:
            if line in seen:
                asked[turn][line] = asked[turn].get(line, 0) + 1
                out.append(f"worker {turn}: {line} {seen[line]}, asked {asked[turn][line]}")
            else:
                out.append(f"worker {turn}: {line} is not there")
            turn = (turn + 1) % WORKERS
    return out


def main():
    print("1..3")
    commands = [f"word{i * 7919 % WORDS}" for i in range(2000)] + ["word1"] * 8 + ["nowhere"]
    for i in range(0, WORDS, 5):
        commands.append(f"+word{i}")
    commands += [f"word{i}" for i in range(0, 1000, 5)] + ["+new", "new", "!", "new", "new"]
    commands += [f"word{i}" for i in range(0, 1000, 5)]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(f"word{i}" for i in range(WORDS) for _ in range(1 + i % 3)))
        file.flush()
        for number, conf in enumerate(("", "fork:shared"), 1):
            out = run(conf, file.name, commands)
            good = out == expected(commands)
            print("ok" if good else "not ok", number, f"- answers, QUIRE_CONF={conf}")
        out = run("fork:shared", file.name, [f"word{i}" for i in range(400)] + ["="])[-WORKERS - 1:]
        if "share them" not in out[-1]:
            print(f"ok 3 # SKIP {out[-1]}")
            return
        own = [int(re.search(r"(-?\d+) KiB", line)[1]) for line in out[:-1]]
        print("ok" if 0 <= max(own) < 4096 else f"not ok {out}", "3 - and little memory of their own")


main()
