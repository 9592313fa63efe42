#!/usr/bin/env python3
"""Runs real programs under the library and compares what they do with a run without it.

Every file in cases/ is one program: a docstring that says what is done, SECONDS that it may take
(in the whole run WHOLE_SECONDS, or four times as many), WHOLE = True if it belongs to the whole run
only, and check(box). Prints TAP; a program that is not
installed is skipped with the name of its Debian package.
"""
import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import box as boxes  # noqa: E402
import statpage  # noqa: E402


def load_cases():
    cases = []
    folder = os.path.join(HERE, "cases")
    for name in sorted(os.listdir(folder)):
        if name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(name[:-3], os.path.join(folder, name))
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            cases.append((name[:-3], module))
    return cases


def run_case(module, library, whole, keep):
    """Returns (kind, words): kind is ok, skip or failed."""
    folder = tempfile.mkdtemp(prefix="quire-programs-")
    os.chmod(folder, 0o755)
    # A copy, so that users without rights to the build tree can load it, and nobody rebuilds it.
    copy = os.path.join(folder, os.path.basename(os.path.realpath(library)))
    shutil.copyfile(library, copy)
    os.chmod(copy, 0o755)
    stats = os.path.join(folder, "stats")
    with open(stats, "wb"):
        os.chmod(stats, 0o666)
    seconds = module.SECONDS
    if whole:
        seconds = getattr(module, "WHOLE_SECONDS", 4 * seconds)
    box = boxes.Box(folder, copy, statpage.symbol_offset(library) is not None,
                    time.monotonic() + seconds)
    box.whole = whole
    try:
        module.check(box)
        return "ok", ""
    except boxes.Missing as missing:
        return "skip", str(missing)
    except boxes.Failed as failed:
        return "failed", str(failed)
    except (OSError, ValueError, AssertionError) as error:
        return "failed", f"{type(error).__name__}: {error}"
    finally:
        box.stop_all()
        if keep:
            print(f"# kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("quire", metavar="LIBRARY", nargs="?", help="the library to preload")
    parser.add_argument("--whole", action="store_true", help="also what takes long")
    parser.add_argument("--only", metavar="NAME", action="append", help="only this program")
    parser.add_argument("--list", action="store_true", help="list the programs and stop")
    parser.add_argument("--keep", action="store_true", help="leave the folders for a look")
    options = parser.parse_args()
    cases = load_cases()
    if options.list:
        for name, module in cases:
            print(f"{name:14} {(module.__doc__ or '').splitlines()[0]}")
        return 0
    if options.quire is None or not os.path.exists(options.quire):
        parser.error(f"no library at {options.quire!r}; build first, then give its path")
    if options.only:
        unknown = set(options.only) - {name for name, _ in cases}
        if unknown:
            parser.error(f"no such program: {', '.join(sorted(unknown))}; --list shows them")
        cases = [case for case in cases if case[0] in options.only]
    elif not options.whole:
        cases = [case for case in cases if not getattr(case[1], "WHOLE", False)]
    print(f"1..{len(cases)}", flush=True)
    failures = 0
    for number, (name, module) in enumerate(cases, 1):
        begun = time.monotonic()
        kind, words = run_case(module, os.path.abspath(options.quire), options.whole,
                               options.keep)
        took = time.monotonic() - begun
        if kind == "failed":
            failures += 1
            print("#   " + words.replace("\n", "\n#   "))
        print(f"{'not ' if kind == 'failed' else ''}ok {number} - {name}"
              f"{f' # SKIP {words}' if kind == 'skip' else f' ({took:.1f} s)'}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
