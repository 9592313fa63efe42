#!/usr/bin/env python3
"""Snapshots against fork: each row with its target, and whether it is met.

    ./dev bench snapshot [--quick] [--program FILE]

--quick: heaps of 256 MiB and 1 GiB; otherwise 4 GiB as well. Heaps in 4 KiB pages (huge:off) and in
huge pages (huge:on). Both sides of a ratio come from the same run of the same program.
"""
import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def measure(program, mib, huge):
    env = {**os.environ, "QUIRE_CONF": "huge:on" if huge else "huge:off"}
    done = subprocess.run([program, str(mib)], env=env, capture_output=True, text=True, timeout=600,
                          check=True)
    return {name: float(value) for name, value in map(str.split, done.stdout.splitlines())}


def row(what, ours, theirs, target):
    ratio = ours / theirs
    verdict = "met" if ratio <= target else "not met"
    print(f"  {what:<58} {ours:>11.2f} {theirs:>11.2f}  1/{theirs / ours:<7.1f} "
          f"{target:>7.4f}  {verdict}", flush=True)
    return ratio <= target


def row_of_limit(what, value, limit):
    verdict = "met" if value <= limit else "not met"
    print(f"  {what:<58} {value:>11.2f} {'':>11}  {'':>9} {limit:>7.2f}  {verdict}", flush=True)
    return value <= limit


def report(mib, small, huge):
    """small, huge: what was measured of the heap in 4 KiB pages, and in huge pages."""
    print(f"{mib} MiB {'':<52} quire        fork      ratio    target")
    rows = [
        ("pause, us: huge pages, against fork in 4 KiB pages", huge["pause"],
         small["pause_fork"], 1 / 200),
        ("pause, us: huge pages, against fork in huge pages", huge["pause"],
         huge["pause_fork"], 1 / 6),
        ("pause, us: 4 KiB pages, at once", small["pause"], small["pause_fork"], 1),
        ("pause, us: 4 KiB pages, lazily (target is for 4 GiB)", small["pause_lazy"],
         small["pause_fork"], 1 / 25),
    ]
    for name, run in (("4 KiB", small), ("huge", huge)):
        rows += [
            (f"first write, dense, us a page: {name}", run["dense"], run["dense_fork"], 0.3),
            (f"first write, sparse, us a page: {name}", run["sparse"], run["sparse_fork"], 3),
            (f"writer's p99.9 while saving, us: {name}", run["writer_p999"],
             small["writer_fork_p999"], 1 / 20),
            (f"the same, lazily, us: {name}", run["writer_lazy_p999"], small["writer_fork_p999"],
             1 / 20),
            (f"going back, 100 pages anywhere, us a round: {name}", run["rollback"],
             run["rollback_fork"], 1 / 30),
            (f"going back, 100 pages, the same, us a round: {name}", run["rollback_hot"],
             run["rollback_hot_fork"], 1 / 30),
        ]
    met = [row(*r) for r in rows]
    for name, run in (("4 KiB", small), ("huge", huge)):
        met.append(row_of_limit(f"going back, us a hot page: {name}", run["rollback_hot"] / 100,
                                0.5))
    for name, run in (("4 KiB", small), ("huge", huge)):
        print(f"  while saving, {name}: {run['writer_copied_mib']:.0f} MiB copied in "
              f"{run['writer_save_ms']:.0f} ms; writer p50 {run['writer_p50']:.1f} us, "
              f"max {run['writer_max']:.0f} us (fork: {run['writer_fork_p50']:.1f}, "
              f"{run['writer_fork_max']:.0f})")
    return sum(met), len(met)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--program", default=ROOT / "build/release/bench/snapshot")
    parser.add_argument("--mib", type=int, action="append", help="heap sizes instead of those")
    args = parser.parse_args()
    met = rows = 0
    for mib in args.mib or ([256, 1024] if args.quick else [256, 1024, 4096]):
        small, huge = (measure(args.program, mib, huge) for huge in (False, True))
        if small["method"] != 1:
            sys.exit("snapshots are not made by write protection here: see `quire doctor`")
        got, all_rows = report(mib, small, huge)
        met, rows = met + got, rows + all_rows
    print(f"{met} of {rows} met")


if __name__ == "__main__":
    main()
