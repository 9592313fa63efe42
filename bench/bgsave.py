#!/usr/bin/env python3
"""redis-server's BGSAVE: how long fork(2) stops it, and how long writes take while the child saves.

    ./dev bench redis-bgsave [--quick] [--keys N] [--rounds N] [--saves N] [--rest S]

The same data under each allocator: small values, 1 GiB of memory in all. redis measures fork itself
(latest_fork_usec of INFO). Meanwhile a client sets existing keys at a steady rate; a write's latency
counts from when it was due, so a pause counts for every write that it delays. Between two saves the
client goes on for a while, as between the saves of a real server: writes during a save split huge
pages, and quire puts them together again. Each run first proves which allocator is live (Debian's
redis is linked with jemalloc; glibc is preloaded like the others). On a busy machine fork's time is
mostly waiting for a processor: how long the command ran is printed beside it.
"""
import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from harness import peers, prove, stats
from harness.process import ENVIRONMENT, RunError, find_program
from harness.redis import Connection

ROOT = pathlib.Path(__file__).resolve().parent.parent
VALUE_BYTES = 64
# what a key of DEBUG POPULATE with such a value takes, about
KEY_BYTES = 153
PERIOD = 0.0005
SAVE_TIMEOUT = 180
THP = "/sys/kernel/mm/transparent_hugepage/enabled"


class Server:
    """redis-server under one allocator, on a unix socket in a folder of its own."""

    def __init__(self, library, variables, folder):
        self.folder = folder
        path = os.path.join(folder, "s")
        # --disable-thp no: where huge pages are always given, redis would switch them off (prctl)
        command = [find_program("redis-server"), "--port", "0", "--unixsocket", path, "--save", "",
                   "--appendonly", "no", "--dir", folder, "--rdbcompression", "no", "--disable-thp",
                   "no", "--enable-debug-command", "local"]
        environment = {**ENVIRONMENT, "HOME": folder, **variables,
                       **({"LD_PRELOAD": library} if library else {})}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connection = Connection(path)
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.kill()
                    raise RunError("redis-server did not start") from None
                time.sleep(0.01)
        self.connection.socket.settimeout(SAVE_TIMEOUT)
        self.path = path

    def info(self):
        lines = self.connection.ask("INFO").decode().split("\r\n")
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def on_cpu(self):
        """Microseconds that the server has run, waiting for a processor not counted."""
        with open(f"/proc/{self.process.pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1000

    def save(self):
        """BGSAVE, to its end; microseconds that fork took, and that the command ran on a CPU."""
        before = self.on_cpu()
        self.connection.ask("BGSAVE")
        ran = self.on_cpu() - before
        deadline = time.monotonic() + SAVE_TIMEOUT
        while True:
            time.sleep(0.05)
            info = self.info()
            if info["rdb_bgsave_in_progress"] == "0":
                break
            if time.monotonic() > deadline:
                raise RunError("redis-server did not finish BGSAVE")
        if info["rdb_last_bgsave_status"] != "ok":
            raise RunError("redis-server failed to save")
        return float(info["latest_fork_usec"]), ran

    def huge_mib(self):
        """MiB of its memory that are in huge pages."""
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) / 1024 for line in file if line.startswith("AnonHuge"))

    def end(self):
        self.connection.send("SHUTDOWN", "NOSAVE")
        self.process.wait(30)
        self.connection.close()

    def kill(self):
        self.process.kill()
        self.process.wait()


class Writer(threading.Thread):
    """Sets existing keys, one each PERIOD as planned from the beginning."""

    def __init__(self, path, keys):
        super().__init__()
        self.connection = Connection(path)
        self.keys = keys
        self.latency = []
        self.over = threading.Event()

    def run(self):
        value = b"w" * VALUE_BYTES
        pick = random.Random(1)
        due = time.monotonic()
        while not self.over.is_set():
            due += PERIOD
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self.connection.ask("SET", f"key:{pick.randrange(self.keys)}", value)
            self.latency.append((time.monotonic() - due) * 1e6)
        self.connection.close()


def library_of(peer):
    """What to preload: the C library's own malloc has to come before the one redis is linked with."""
    if peer.path:
        return peer.path
    done = subprocess.run(["ldd", find_program("redis-server")], capture_output=True, text=True,
                          check=True)
    return next(line.split()[2] for line in done.stdout.splitlines() if "libc.so" in line)


def prove_live(library, work):
    folder = tempfile.mkdtemp(dir=work)
    server = Server(library, prove.variables(folder), folder)
    server.end()
    prove.check(prove.read_bindings(folder), library)


def one_server(library, work, keys, saves, rest):
    """Fork times and write latencies of so many saves."""
    server = Server(library, {}, tempfile.mkdtemp(dir=work))
    writer = None
    try:
        server.connection.ask("DEBUG", "POPULATE", keys, "key", VALUE_BYTES)
        found = {"fork": [], "ran": [], "latency": [], "memory": 0, "huge": 0}
        writer = Writer(server.path, keys)
        found["memory"] = int(server.info()["used_memory_rss"]) / (1 << 20)
        found["huge"] = server.huge_mib()
        writer.start()
        for n in range(saves):
            time.sleep(rest if n > 0 else 0)
            start = len(writer.latency)
            took, ran = server.save()
            found["fork"].append(took)
            found["ran"].append(ran)
            found["latency"] += writer.latency[start:]
        writer.over.set()
        writer.join()
        writer = None
        server.end()
        return found
    finally:
        if writer:
            writer.over.set()
            writer.join()
        if server.process.poll() is None:
            server.kill()
        shutil.rmtree(server.folder, ignore_errors=True)


def quantile(values, part):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def row(what, ours, theirs, target):
    verdict = "met" if ours <= theirs * target else "not met"
    ratio = f"1/{theirs / ours:.1f}" if ours < theirs else f"{ours / theirs:.2f}"
    wanted = f"1/{1 / target:.0f}"
    print(f"  {what:<60} {ours:>11.0f} {theirs:>11.0f}  {ratio:<9} {wanted:>9}  {verdict}",
          flush=True)
    return what, f"{ours:.0f}", f"{theirs:.0f}", ratio, wanted, verdict


def compare(keys, rounds, saves, rest, build, work):
    """Print the table; its rows, the verdict last."""
    found, absent = peers.find(build)
    wanted = [name for name in ("quire", "glibc", "jemalloc", "mimalloc") if name in found]
    libraries = {name: library_of(found[name]) for name in wanted}
    for name in wanted:
        prove_live(libraries[name], work)
    runs = {name: {"fork": [], "ran": [], "latency": [], "memory": [], "huge": []} for name in wanted}
    for _ in range(rounds):
        for name in wanted:
            one = one_server(libraries[name], work, keys, saves, rest)
            for key, value in one.items():
                runs[name][key] += value if isinstance(value, list) else [value]
    print(f"redis-server, BGSAVE of {keys} values of {VALUE_BYTES} bytes, {rounds * saves} saves each")
    for line in absent:
        print(f"  {line}")
    for name, run in runs.items():
        print(f"  {name:<9} {stats.median(run['memory']):5.0f} MiB resident, "
              f"{stats.median(run['huge']):5.0f} in huge pages; fork "
              f"{', '.join(f'{us:.0f}' for us in run['fork'])} us (BGSAVE ran for "
              f"{', '.join(f'{us:.0f}' for us in run['ran'])}); a write takes {quantile(run['latency'], .5):.0f} us, "
              f"p99 {quantile(run['latency'], .99):.0f}, max {max(run['latency']):.0f}")
    print(f"  {'':<60} {'quire':>11} {'other':>11}  ratio        target")
    rows = []
    ours = runs.get("quire")
    for name, run in runs.items():
        if name != "quire" and ours:
            rows.append(row(f"fork pause, us: against {name}", stats.median(ours["fork"]),
                            stats.median(run["fork"]), 1 / 30))
    for name, run in runs.items():
        if name != "quire" and ours:
            rows.append(row(f"write's p99.9 while saving, us: against {name}",
                            quantile(ours["latency"], .999), quantile(run["latency"], .999), 1))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one save for each allocator")
    parser.add_argument("--keys", type=int, default=(1 << 30) // KEY_BYTES)
    parser.add_argument("--rounds", type=int, help="servers for each allocator, in turns")
    parser.add_argument("--saves", type=int, help="for each server")
    parser.add_argument("--rest", type=float, default=30, help="seconds between two of them")
    parser.add_argument("--build", default=ROOT / "build/release")
    args = parser.parse_args()
    # ends like Ctrl-C: no server is left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not find_program("redis-server"):
        sys.exit("redis-server is not installed (Debian package redis-server)")
    with open(THP, encoding="ascii") as file:
        if "[never]" in file.read():
            print(f"huge pages are switched off here ({THP}): quire has no advantage then")
    with tempfile.TemporaryDirectory(prefix="quire-bgsave-") as work:
        rows = compare(args.keys, args.rounds or (1 if args.quick else 3),
                       args.saves or (1 if args.quick else 2), args.rest, args.build, work)
    print(f"{sum(row[-1] == 'met' for row in rows)} of {len(rows)} met")


if __name__ == "__main__":
    main()
