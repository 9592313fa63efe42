#!/usr/bin/env python3
"""Compares allocators on workloads and real programs; see bench/README.md for the method."""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time

BENCH = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)

from harness import machine, peers, report, rows, summary  # noqa: E402
from harness.process import Place  # noqa: E402
from harness.schedule import Schedule  # noqa: E402

FULL_RUNS, QUICK_RUNS = 10, 3
# what --quick promises, less the time for the report
QUICK_SECONDS = 170


def parse(arguments):
    root = os.path.dirname(BENCH)
    parser = argparse.ArgumentParser(
        prog="bench", description="Compare allocators on workloads and real programs.",
        epilog="Ctrl-C stops early: what was measured so far is kept and shown.")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="rows to run, or workloads, programs, small; all by default")
    parser.add_argument("--list", action="store_true", help="list rows and allocators, run nothing")
    parser.add_argument("--quick", action="store_true",
                        help=f"smaller sizes and {QUICK_RUNS} runs (fewer on a slow machine): "
                             "under 3 minutes")
    parser.add_argument("--runs", type=int, metavar="N",
                        help=f"counted runs of each pair ({FULL_RUNS}, quick {QUICK_RUNS})")
    parser.add_argument("--peers", metavar="A,B", default="",
                        help="only these allocators (glibc always takes part)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH.so",
                        help="another allocator; may be given several times")
    parser.add_argument("--env", action="append", default=[], metavar="PEER:VARIABLE=VALUE",
                        help="a variable for one allocator's processes, such as its options")
    parser.add_argument("--all-tables", action="store_true",
                        help="also tables of page faults, user and system time")
    parser.add_argument("--build", default=os.path.join(root, "build", "release"), metavar="DIR",
                        help="the build folder (build/release)")
    parser.add_argument("--results", default=os.path.join(BENCH, "results"), metavar="DIR",
                        help="where results are kept as JSON (bench/results)")
    parser.add_argument("--show", metavar="FILE.json", help="print the tables of an earlier result")
    options = parser.parse_args(arguments)
    options.build = os.path.abspath(options.build)
    if options.runs is None:
        options.runs = QUICK_RUNS if options.quick else FULL_RUNS
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def list_all(place, chosen, found, absent):
    for row in chosen:
        missing = row.missing(place)
        print(f"{row.name:<15}{row.group:<10}{row.about}"
              f"{'  [skipped: ' + missing + ']' if missing else ''}")
    print()
    for peer in found.values():
        print(f"{peer.name:<15}{peer.path or 'the C library'}"
              f"{'  ' + peer.about['version'] if 'version' in peer.about else ''}")
    for line in absent:
        print(line)


class Keeper:
    """Every event goes to a file of JSON lines at once, so that nothing is lost by a crash."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.stem = os.path.join(folder, time.strftime("%Y%m%d-%H%M%S"))
        self.events = []
        self.file = open(self.stem + ".jsonl", "w")

    def write(self, record):
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def keep(self, event):
        self.events.append(event)
        self.write(event)

    def finish(self, result):
        self.file.close()
        with open(self.stem + ".json", "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
        return self.stem + ".json"


def benchmark(options, place, chosen, allocators, absent):
    skipped = {row.name: row.missing(place) for row in chosen if row.missing(place)}
    runnable = [row for row in chosen if row.name not in skipped]
    for name, reason in skipped.items():
        print(f"{name}: skipped, {reason}", file=sys.stderr)
    for line in absent:
        print(line, file=sys.stderr)
    copies = place.scratch("libraries")
    os.mkdir(copies)
    for peer in allocators.values():
        peer.settle(copies)
    keeper = Keeper(options.results)
    head = {
        "format": 1,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine.describe(),
        "settings": {"runs": options.runs, "quick": options.quick},
        "allocators": {name: peer.about for name, peer in allocators.items()},
        "rows": [{"name": row.name, "group": row.group, "about": row.about,
                  "counts": sorted(row.counts), "version": row.versions()} for row in runnable],
        "skipped_rows": skipped,
        "absent": absent,
    }
    keeper.write(head)
    schedule = Schedule(place, runnable, allocators, options.runs, options.quick, keeper.keep,
                        budget=QUICK_SECONDS if options.quick else None)
    complete = True
    try:
        schedule.execute()
    except KeyboardInterrupt:
        schedule.progress.close()
        complete = False
    # from here on a second Ctrl-C must not lose what was measured
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shape = [(row.name, row.group, row.counts) for row in runnable]
    result = {**head, "complete": complete, "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
              "summary": summary.summarise(keeper.events, shape, list(allocators)),
              "events": keeper.events}
    path = keeper.finish(result)
    print(report.text(result, options.all_tables))
    print(f"\nkept as {os.path.relpath(path)}")
    if not complete:
        return 130
    return 1 if schedule.faults else 0


def main():
    options = parse(sys.argv[1:])
    if options.show:
        try:
            with open(options.show) as file:
                result = json.load(file)
        except (OSError, ValueError) as reason:
            sys.exit(f"bench: {options.show} is not a result: {reason}")
        if not isinstance(result, dict) or result.get("format") != 1:
            sys.exit(f"bench: {options.show} is not a result of this benchmark")
        print(report.text(result, options.all_tables))
        return 0
    try:
        chosen = rows.select(rows.everything(), options.names)
    except KeyError as word:
        sys.exit(f"bench: there is no row {word}; --list shows what there is")
    # SIGTERM ends like Ctrl-C: results kept, scratch files gone
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        found, absent = peers.find(options.build, options.peer, options.env)
        wanted = [name for name in options.peers.split(",") if name]
        allocators = peers.select(found, absent, wanted)
    except peers.PeerError as reason:
        sys.exit(f"bench: {reason}")
    work = tempfile.mkdtemp(prefix="quire-bench-")
    place = Place(BENCH, options.build, work)
    try:
        if options.list:
            list_all(place, chosen, found, absent)
            return 0
        place.require()
        return benchmark(options, place, chosen, allocators, absent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
