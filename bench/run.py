#!/usr/bin/env python3
"""Compares allocators on workloads and real programs; doc/bench.md explains the method."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time

BENCH = os.path.dirname(os.path.abspath(__file__))
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)

from harness import catalog, compare, machine, page, peers, report, results, summary  # noqa: E402
from harness.process import Place  # noqa: E402
from harness.schedule import Schedule  # noqa: E402

FULL_RUNS, QUICK_RUNS = 10, 3
# what is promised (60 and 3 minutes), less the time for the report
FULL_SECONDS, QUICK_SECONDS = 57 * 60, 170


def parse(arguments):
    root = os.path.dirname(BENCH)
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="Compare allocators on workloads and real programs.",
        epilog="Ctrl-C stops early: what was measured so far is kept and shown, and --resume FILE "
               "goes on with it.")
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="rows to run, or workloads, programs, small, micro, layers, numa, "
                             "with * and ?; or the one "
                             "word list, which shows rows and allocators and runs nothing")
    parser.add_argument("--list", action="store_true", help="the same as the word list")
    parser.add_argument("--quick", action="store_true",
                        help=f"fewer rows, smaller sizes and {QUICK_RUNS} runs (fewer on a slow "
                             "machine): under 3 minutes")
    parser.add_argument("--runs", type=int, metavar="N",
                        help=f"counted runs of each pair ({FULL_RUNS}, quick {QUICK_RUNS}; fewer "
                             "where they would take an hour)")
    parser.add_argument("--peers", metavar="A,B", default="",
                        help="only these allocators (glibc always takes part)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PATH.so",
                        help="another allocator; may be given several times")
    parser.add_argument("--env", action="append", default=[], metavar="PEER:VARIABLE=VALUE",
                        help="a variable for one allocator's processes, such as its options")
    parser.add_argument("--pin", metavar="CPU[,CPU]",
                        help="measured programs run on these CPUs alone")
    parser.add_argument("--resume", metavar="FILE", help="go on with a result that was stopped")
    parser.add_argument("--show", metavar="FILE.json", help="print the tables of an earlier result")
    parser.add_argument("--compare", nargs=2, metavar=("A.json", "B.json"),
                        help="what has changed from one result to another")
    parser.add_argument("--all-tables", action="store_true",
                        help="also tables of page faults, context switches, user and system time")
    parser.add_argument("--html", metavar="FILE",
                        help="where the report goes (beside the result); with --show, written anew")
    parser.add_argument("--build", default=os.path.join(root, "build", "release"), metavar="DIR",
                        help="the build folder (build/release)")
    parser.add_argument("--results", default=os.path.join(BENCH, "results"), metavar="DIR",
                        help="where results are kept (bench/results)")
    options = parser.parse_args(arguments)
    options.build = os.path.abspath(options.build)
    if options.names == ["list"]:
        options.list, options.names = True, []
    if options.runs is not None and options.runs < 1:
        parser.error("--runs must be at least 1")
    if options.pin:
        check_pin(parser, options.pin)
    if options.runs is None:
        options.runs = QUICK_RUNS if options.quick else FULL_RUNS
    return options


def check_pin(parser, text):
    there = os.sched_getaffinity(0)
    for word in text.split(","):
        if not word.isdigit() or int(word) not in there:
            parser.error(f"--pin {text}: there is no CPU {word!r} for this process; there are: "
                         f"{', '.join(str(cpu) for cpu in sorted(there))}")


def list_all(place, chosen, found, absent):
    width = max(len(row.name) for row in chosen) + 2
    for row in chosen:
        missing = row.missing(place)
        print(f"{row.name:<{width}}{row.group:<10}{'q ' if row.quick else '  '}{row.about}"
              f"{'  [skipped: ' + missing + ']' if missing else ''}")
    print("\n(q: part of a quick run)\n")
    for peer in found.values():
        print(f"{peer.name:<15}{peer.path or 'the C library'}"
              f"{'  ' + peer.about['version'] if 'version' in peer.about else ''}")
    for line in absent:
        print(line)


def take_over(options, head):
    """A result that goes on has the rows, allocators and settings that it was begun with."""
    settings = head["settings"]
    for name in ("quick", "runs", "pin"):
        setattr(options, name, settings[name])
    options.names = [row["name"] for row in head["rows"]]
    options.peers = ",".join(head["allocators"])
    options.peer = settings["extra"]
    options.env = settings["env"]


def make_head(options, rows, allocators, skipped, absent):
    return {
        "format": results.FORMAT,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine.describe(),
        "bench": machine.source_checksum(BENCH),
        "settings": {"runs": options.runs, "quick": options.quick, "pin": options.pin,
                     "extra": [absolute(text) for text in options.peer], "env": options.env},
        "allocators": {name: peer.about for name, peer in allocators.items()},
        "rows": [{"name": row.name, "group": row.group, "about": row.about, "family": row.family,
                  "threads": row.threads, "counts": sorted(row.counts), "version": row.versions()}
                 for row in rows],
        "skipped_rows": skipped,
        "absent": absent,
    }


def absolute(text):
    """NAME=PATH with the whole path: one may go on from another folder."""
    name, _, path = text.partition("=")
    return f"{name}={os.path.abspath(path)}"


def open_keeper(options, head, earlier):
    if not earlier:
        return results.Keeper(results.new_stem(options.results), head)
    stem, old_head, events = earlier
    results.check_same(old_head, head)
    return results.Keeper(stem, old_head, events)


def benchmark(options, place, chosen, allocators, absent, earlier=None):
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
    keeper = open_keeper(options, make_head(options, runnable, allocators, skipped, absent),
                         earlier)
    schedule = Schedule(place, runnable, allocators, options.runs, options.quick, keeper.keep,
                        budget=QUICK_SECONDS if options.quick else FULL_SECONDS,
                        done=list(keeper.events))
    complete = True
    try:
        schedule.execute()
    except KeyboardInterrupt:
        schedule.progress.close()
        complete = False
    # from here on a second Ctrl-C must not lose what was measured
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shape = [(row.name, row.group, row.counts) for row in runnable]
    result = {**keeper.head, "complete": complete, "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
              "summary": summary.summarise(keeper.events, shape, list(allocators)),
              "events": keeper.events}
    path = keeper.finish(result)
    print(report.text(result, options.all_tables))
    print(f"\nkept as {os.path.relpath(path)}")
    write_page(result, options.html or keeper.stem + ".html")
    if not complete:
        print(f"go on with: ./dev bench --resume {os.path.relpath(path)}")
        return 130
    return 1 if schedule.faults else 0


def write_page(result, path):
    with open(path, "w") as file:
        file.write(page.html(result))
    print(f"with plots: {os.path.relpath(path)}")


def show(options):
    if options.compare:
        before, after = (results.load(path) for path in options.compare)
        print(compare.text(before, after))
        return
    result = results.load(options.show)
    print(report.text(result, options.all_tables))
    if options.html:
        write_page(result, options.html)


def choose_rows(options):
    try:
        return catalog.select(catalog.everything(options.build), options.names, options.quick)
    except KeyError as word:
        name = word.args[0]
        if name in catalog.EMPTY:
            sys.exit(f"bench: {name}: {catalog.EMPTY[name]}")
        sys.exit(f"bench: there is no row {name}; ./dev bench list shows what there is")


def main():
    options = parse(sys.argv[1:])
    earlier = None
    try:
        if options.show or options.compare:
            show(options)
            return 0
        if options.resume:
            earlier = results.load_lines(options.resume)
            take_over(options, earlier[1])
        chosen = choose_rows(options)
        found, absent = peers.find(options.build, options.peer, options.env)
        wanted = [name for name in options.peers.split(",") if name]
        allocators = peers.select(found, absent, wanted)
    except (peers.PeerError, results.ResultError) as reason:
        sys.exit(f"bench: {reason}")
    # SIGTERM ends like Ctrl-C: results kept, scratch files gone
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = tempfile.mkdtemp(prefix="quire-bench-")
    # a server that runs as somebody else must reach its own folder in it
    os.chmod(work, 0o711)
    place = Place(BENCH, options.build, work)
    place.pin = options.pin
    try:
        if options.list:
            list_all(place, catalog.everything(options.build), found, absent)
            return 0
        place.require()
        return benchmark(options, place, chosen, allocators, absent, earlier)
    except results.ResultError as reason:
        sys.exit(f"bench: {options.resume}: {reason}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
