#!/usr/bin/env python3
"""Snapshots against fork: each row with its target, and whether it is met.

    ./dev bench snapshot [--quick] [--html FILE] [--no-redis] [--program FILE]

--quick: heaps of 256 MiB and 1 GiB, in five minutes at most; otherwise 4 GiB as well. Heaps in 4 KiB
pages (huge:off) and in huge pages (huge:on). Both sides of a ratio come from the same run. Then fork()
of an unchanged program, and of redis-server, under each allocator. The page has the same tables, and
how long a writer's writes took while the heap was saved.
"""
import argparse
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from types import SimpleNamespace

import bgsave
from harness import machine, peers, snapshots
from harness.process import find_program

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOT_PAGES = 100
# the heap that going back was specified for
ROLLBACK_MIB = 512
READY_MS = 30


def measure(program, mib, huge, *words):
    env = {**os.environ, "QUIRE_CONF": "huge:on" if huge else "huge:off"}
    done = subprocess.run([program, str(mib), *words], env=env, capture_output=True, text=True,
                          timeout=900, check=True)
    found = {"histogram": {}}
    for line in done.stdout.splitlines():
        words = line.split()
        if words[0] == "histogram":
            found["histogram"].setdefault(words[1], []).append((float(words[2]), int(words[3])))
        else:
            found[words[0]] = float(words[1])
    return found


def writers(program, mib, huge):
    """First writes to a heap with QUIRE_HEAP_SIGBUS, in a process of its own."""
    found = measure(program, mib, huge, "sigbus")
    return {key: found[key] for key in ("sigbus", "sigbus_touch", "sigbus_fork")}


class Table:
    """Rows as they are printed, kept for the page."""

    def __init__(self, title, ours="quire", theirs="fork"):
        self.title, self.rows = title, []
        print(f"{title:<62} {ours:>11} {theirs:>11}  ratio        target", flush=True)

    def _add(self, what, ours, theirs, ratio, target, met):
        verdict = "met" if met else "not met"
        self.rows.append((what, ours, theirs, ratio, target, verdict))
        print(f"  {what:<60} {ours:>11} {theirs:>11}  {ratio:<9} {target:>9}  {verdict}", flush=True)

    def ratio(self, what, ours, theirs, target):
        """At most `target` times as much as theirs."""
        shown = f"1/{theirs / ours:.1f}" if ours < theirs else f"{ours / theirs:.2f}"
        wanted = f"1/{1 / target:.0f}" if target < 0.2 else f"{target:g}"
        self._add(what, f"{ours:.2f}", f"{theirs:.2f}", shown, wanted, ours <= theirs * target)

    def limit(self, what, value, limit):
        self._add(what, f"{value:.2f}", "", "", f"{limit:.2f}", value <= limit)


def heap_table(mib, small, huge):
    """small, huge: what was measured of the heap in 4 KiB pages, and in huge pages."""
    table = Table(f"heap of {mib} MiB")
    table.ratio("pause, us: huge pages, against fork in 4 KiB pages", huge["pause"],
                small["pause_fork"], 1 / 200)
    table.ratio("pause, us: huge pages, against fork in huge pages", huge["pause"],
                huge["pause_fork"], 1 / 6)
    lazy = small["pause_lazy"]
    table.ratio("pause, us: 4 KiB pages (target is for 4 GiB)" if lazy < 0 else
                "pause, us: 4 KiB pages, constant-time cut (target: 4 GiB)",
                small["pause"] if lazy < 0 else lazy, small["pause_fork"], 1 / 25)
    for name, run in (("4 KiB", small), ("huge", huge)):
        table.ratio(f"first write, dense, us a page: {name}", run["dense"], run["dense_fork"], 0.3)
        table.ratio(f"first write, sparse, us a page: {name}", run["sparse"], run["sparse_fork"], 3)
        table.ratio(f"first write, sparse, touched before, us a page: {name}", run["touch"],
                    run["sparse_fork"], 0.7)
        table.ratio(f"first write, sparse, SIGBUS heap, us a page: {name}", run["sigbus"],
                    run["sigbus_fork"], 2)
        table.ratio(f"writer's p99.9 while saving, us: {name}, fork in 4 KiB", run["writer_p999"],
                    small["writer_fork_p999"], 1 / 20)
        table.limit(f"memory while saving, MiB ({run['save_written_mib']:.0f} MiB written): {name}",
                    run["save_grown_mib"], run["save_written_mib"] + 0.02 * mib)
        table.limit(f"memory while draining, MiB ({run['drain_written_first_mib']:.0f} MiB written "
                    f"before saved): {name}", run["drain_grown_mib"],
                    run["drain_written_first_mib"] + 0.02 * mib)
        table.limit(f"bytes that differ from the cut, after {run['save_written_mib']:.0f} MiB of "
                    f"writes: {name}", run["save_wrong_bytes"], 0)
        if "map" in run:
            table.limit(f"load and map: ready in ms: {name}", run["map"] / 1000, READY_MS)
    for name, run in (("4 KiB", small), ("huge", huge)):
        print(f"  {name}: saved in {run['save_ms']:.0f} ms, {run['save_copied_mib']:.0f} MiB copied; "
              f"an increment of 1 % in {run['increment_ms']:.0f} ms; writer p50 "
              f"{run['writer_p50']:.1f} us, max {run['writer_max']:.0f} (fork: "
              f"{run['writer_fork_p50']:.1f}, {run['writer_fork_max']:.0f})")
    return table


def rollback_table(program):
    table = Table(f"going back, heap of {ROLLBACK_MIB} MiB, {HOT_PAGES} pages a round")
    for name, huge, what in (("4 KiB", False, "rollback"), ("huge", True, "rollback"),
                             ("one heap", False, "rollback-heap"),
                             ("one heap, SIGBUS", False, "rollback-sigbus")):
        run = measure(program, ROLLBACK_MIB, huge, what)
        table.ratio(f"pages anywhere, us a round: {name}", run["rollback"], run["rollback_fork"],
                    1 / 30)
        table.ratio(f"pages anywhere, touched first, us a round: {name}", run["rollback_touched"],
                    run["rollback_fork"], 1 / 30)
        table.ratio(f"the same pages, us a round: {name}", run["rollback_hot"],
                    run["rollback_hot_fork"], 1 / 30)
        table.limit(f"the same pages, us a page: {name}", run["rollback_hot"] / HOT_PAGES, 0.5)
    return table


def fork_table(build, mib):
    """fork() of a program that knows nothing of quire."""
    table = Table(f"fork() of an unchanged program, {mib} MiB of small values, us", theirs="other")
    found, absent = peers.find(build)
    took = {}
    for name in ("quire", "glibc", "jemalloc", "mimalloc"):
        if name in found:
            done = subprocess.run([os.path.join(build, "bench", "forkpause"), str(mib)],
                                  env={**os.environ, **found[name].variables()}, check=True,
                                  capture_output=True, text=True, timeout=300)
            took[name] = float(done.stdout)
    for name, us in took.items():
        if name != "quire":
            table.ratio(f"against {name}", took["quire"], us, 1 / 30)
    for line in absent:
        print(f"  {line}")
    return table


def redis(build, quick):
    with tempfile.TemporaryDirectory(prefix="quire-bgsave-") as work:
        rows = bgsave.compare((1 << 30) // bgsave.KEY_BYTES, 1, 1 if quick else 2, 30, build, work)
    return SimpleNamespace(title="redis-server, BGSAVE of 1 GiB of small values", rows=rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--build", default=str(ROOT / "build/release"))
    parser.add_argument("--program", help="bench/snapshot of another build")
    parser.add_argument("--mib", type=int, action="append", help="heap sizes instead of those")
    parser.add_argument("--html", default=str(ROOT / "bench/results/snapshot.html"), metavar="FILE",
                        help="where the page goes (bench/results/snapshot.html)")
    parser.add_argument("--no-redis", action="store_true", help="leave redis-server out")
    args = parser.parse_args()
    # ends like Ctrl-C: no server is left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    program = args.program or os.path.join(args.build, "bench", "snapshot")
    facts = machine.one_line(machine.describe())
    print(facts)
    tables, runs = [], []
    for mib in args.mib or ([256, 1024] if args.quick else [256, 1024, 4096]):
        small, huge = ({**measure(program, mib, huge), **writers(program, mib, huge)}
                       for huge in (False, True))
        if small["method"] != 1:
            sys.exit("snapshots are not made by write protection here: see `quire doctor`")
        tables.append(heap_table(mib, small, huge))
        runs.append((mib, small, huge))
    tables += [rollback_table(program), fork_table(args.build, 1024)]
    if not args.no_redis and find_program("redis-server"):
        tables.append(redis(args.build, args.quick))
    elif not args.no_redis:
        print("redis-server: skipped, not installed (Debian package redis-server)")
    verdicts = [row[-1] for table in tables for row in table.rows]
    print(f"{verdicts.count('met')} of {len(verdicts)} met")
    os.makedirs(os.path.dirname(os.path.abspath(args.html)), exist_ok=True)
    with open(args.html, "w", encoding="utf-8") as file:
        file.write(snapshots.html(facts, tables, runs))
    print(f"page: {args.html}")


if __name__ == "__main__":
    main()
