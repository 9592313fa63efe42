#!/usr/bin/env python3
"""Drives flows: its list of flows against one made here, with and without a watcher."""
import os
import random
import re
import subprocess
import sys
import threading

FLOWS = os.path.abspath(sys.argv[1])


def text_of(packets):
    return "".join(f"{time:.3f} {a} {b} {size}\n" for time, a, b, size in packets)


def run(packets, *options):
    return subprocess.run([FLOWS, *options], input=text_of(packets), capture_output=True, text=True,
                          timeout=300, check=False)


def run_watched(packets, *options):
    """The same, with a pause in the middle until the watcher has said something."""
    half = len(packets) // 2
    with subprocess.Popen([FLOWS, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as flows:
        guard = threading.Timer(300, flows.kill)
        guard.start()
        out = []
        reader = threading.Thread(target=lambda: out.append(flows.stdout.read()))
        reader.start()
        flows.stdin.write(text_of(packets[:half]))
        flows.stdin.flush()
        said = flows.stderr.readline()
        feeder = threading.Thread(target=feed, args=(flows.stdin, text_of(packets[half:])))
        feeder.start()
        said += flows.stderr.read()
        for thread in (feeder, reader):
            thread.join()
        guard.cancel()
    return flows.returncode, out[0], said


def feed(pipe, text):
    with pipe:
        pipe.write(text)


def expected(packets, idle):
    """The same list, without regard to order."""
    live, ended = {}, []
    for time, a, b, size in packets:
        while live and time - live[oldest := next(iter(live))][3] > idle:
            ended.append((*oldest, *live.pop(oldest)))
        packets_of, bytes_of, first, _ = live.pop((a, b), (0, 0, time, time))
        live[a, b] = (packets_of + 1, bytes_of + size, first, time)  # last in the dictionary
    return sorted(ended + [(*key, *flow) for key, flow in live.items()])


def parsed(text):
    rows = [line.split() for line in text.splitlines()]
    return sorted((a, b, int(n), int(size), float(first), float(last))
                  for a, b, n, size, first, last in rows)


def main():
    print("1..3")
    rng = random.Random(5)
    packets, time = [], 0.0
    for _ in range(60000):
        time = round(time + rng.choice([0.001, 0.002, 0.03]), 3)
        packets.append((time, f"10.0.{rng.randrange(3)}.{rng.randrange(10)}:80",
                        f"h{rng.randrange(8)}", rng.randrange(1, 1500)))
    right = expected(packets, 5)
    done = run(packets, "-t", "5")
    good = done.returncode == 0 and not done.stderr and parsed(done.stdout) == right
    print("ok 1" if good else f"not ok 1 {done.stderr}", f"- {len(right)} flows")

    code, out, said = run_watched(packets, "-t", "5", "-i", "1")
    sights = [re.fullmatch(r"(\d+) flows, heaviest (\S+) (\S+) (\d+)", line)
              for line in said.splitlines()]
    names = {(a, b) for a, b, *_ in right}
    good = code == 0 and parsed(out) == right and sights and all(sights)
    good = good and all((s[2], s[3]) in names and int(s[1]) <= len(names) for s in sights)
    print("ok 2" if good else f"not ok 2 {code} {said[:500]}", f"- watched {len(sights)} times")

    done = run([(1.0, "a", "b", "many")])
    good = done.returncode == 1 and "not 'TIME FROM TO BYTES'" in done.stderr
    print("ok 3" if good else f"not ok 3 {done}", "- a line that is none")


main()
