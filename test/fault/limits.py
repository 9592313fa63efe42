#!/usr/bin/env python3
"""Runs programs under limits of memory: they must get most of it, see ENOMEM and live on.

The limits are RLIMIT_AS (ulimit -v) and RLIMIT_DATA, set before the program and the library start,
the library's own limit option, and the kernel's number of mappings. Prints TAP.
"""
import argparse
import os
import resource
import signal
import subprocess
import sys

MIB = 1 << 20

# name, limit, its size in MiB, share of it that must be allocatable, by mode
LIMITS = [("address space", resource.RLIMIT_AS, mib, share)
          for mib, share in ((64, 0.4), (256, 0.6), (1024, 0.7))]
LIMITS += [("data", resource.RLIMIT_DATA, mib, share)
           for mib, share in ((64, 0.5), (256, 0.7), (1024, 0.8))]
MODES = ["small", "medium", "large", "mixed"]


def run(options, arguments, limit=None, size=0, conf=""):
    env = {name: value for name, value in os.environ.items()
           if not name.startswith(("LD_", "QUIRE_", "MALLOC_"))}
    if options.quire:
        env["LD_PRELOAD"] = options.quire
    if conf:
        env["QUIRE_CONF"] = conf

    def set_limit():
        if limit is not None:
            resource.setrlimit(limit, (size, size))

    try:
        done = subprocess.run(arguments, env=env, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=600, preexec_fn=set_limit)
    except subprocess.TimeoutExpired:
        return "it did not end within 600 seconds"
    if done.returncode == 0 and done.stdout.endswith("done\n"):
        return None
    ending = (signal.Signals(-done.returncode).name if done.returncode < 0
              else f"exit status {done.returncode}")
    return f"{ending}: {done.stderr.strip()[-300:]}"


def rows(options):
    for name, limit, mib, share in LIMITS:
        yield (f"workload under {mib} MiB of {name}",
               lambda limit=limit, mib=mib: run(options, [options.workload, "-1", "fork"], limit,
                                                mib * MIB))
        for mode in MODES + (["huge"] if mib >= 256 else []):
            least = str(int(mib * MIB * share))
            yield (f"{mode} blocks under {mib} MiB of {name}",
                   lambda mode=mode, limit=limit, mib=mib, least=least:
                   run(options, [options.fill, mode, least], limit, mib * MIB))
    for mode in MODES + ["huge"]:
        yield (f"{mode} blocks under the option limit:256M",
               lambda mode=mode: run(options, [options.fill, mode, str(int(256 * MIB * 0.7))],
                                     resource.RLIMIT_AS, 1 << 40, "limit:256M"))
    yield ("workload where all mappings are used up",
           lambda: run(options, [options.fill, "maps", "0"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", help="the built workload program")
    parser.add_argument("fill", help="the built fill program")
    parser.add_argument("quire", metavar="LIBRARY", help="the library to preload; '' for libc's own malloc")
    parser.add_argument("--only", metavar="TEXT", help="only rows whose name contains TEXT")
    options = parser.parse_args()
    table = [row for row in rows(options) if not options.only or options.only in row[0]]
    print(f"1..{len(table)}")
    failed = 0
    for number, (name, check) in enumerate(table, 1):
        fault = check()
        if fault:
            print(f"#   {fault}")
            failed += 1
        print(f"{'not ' if fault else ''}ok {number} - {name}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
