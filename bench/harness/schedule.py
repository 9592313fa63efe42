"""The order of things: prove every pair once (which also warms it up), then round after round."""

import os
import random
import shutil
import sys
import time

from . import peers, prove
from .process import RunError


# seconds after which a run counts as hung
FULL_TIMEOUT, QUICK_TIMEOUT = 120, 30


class Progress:
    """One line on stderr that says what runs and how long the rest will take."""

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.seconds = {}
        self.counted = set()
        self.terminal = sys.stderr.isatty()
        self.last_line = 0.0

    def record(self, pair, seconds, counted):
        """What a pair took; once a counted run is known, its slower proof is forgotten."""
        self.done += 1
        if counted and pair not in self.counted:
            self.counted.add(pair)
            self.seconds.pop(pair, None)
        self.seconds.setdefault(pair, []).append(seconds)

    def left(self, upcoming):
        """Seconds for the pairs still to come, by what each took; unknown ones like the mean."""
        known = {pair: sum(took) / len(took) for pair, took in self.seconds.items()}
        if not known:
            return None
        mean = sum(known.values()) / len(known)
        return sum(known.get(pair, mean) for pair in upcoming)

    def show(self, text, upcoming):
        left = self.left(upcoming)
        clock = "" if left is None else f", {int(left) // 60}:{int(left) % 60:02d} left"
        line = f"[{100 * self.done // max(self.total, 1):3d} %] {text}{clock}"
        if self.terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self.last_line > 10:
            # a log file wants a line now and then, not one per run
            print(line, file=sys.stderr, flush=True)
            self.last_line = time.monotonic()

    def say(self, text):
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr)
        print(text, file=sys.stderr, flush=True)

    def close(self):
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class Schedule:
    """Runs rows under allocators. keep(record) is called with every event worth keeping."""

    def __init__(self, place, rows, allocators, runs, quick, keep, budget=None):
        self.place = place
        self.rows = rows
        self.allocators = allocators
        self.runs = runs
        self.quick = quick
        self.keep = keep
        # seconds for everything; a round that would not fit is not begun
        self.budget = budget
        self.started = time.monotonic()
        # (row, allocator) -> what to set in its process; only proven pairs are in here
        self.variables = {}
        self.answers = {}
        self.faults = 0
        for row in rows:
            row.timeout = QUICK_TIMEOUT if quick else FULL_TIMEOUT
        self.progress = Progress(len(rows) * len(allocators) * (runs + 1))

    def execute(self):
        self._prove_all()
        self._count_all()
        self.progress.close()

    def _prove_all(self):
        pairs = [(row, peer) for row in self.rows for peer in self.allocators.values()]
        rounds = [(row.name, peer.name) for row, peer in pairs] * self.runs
        for index, (row, peer) in enumerate(pairs):
            upcoming = [(r.name, p.name) for r, p in pairs[index:]] + rounds
            self.progress.show(f"preparing {row.name} under {peer.name}", upcoming)
            start = time.monotonic()
            if peer.name == peers.BASELINE:
                row.prepare(self.place, self.quick)
            try:
                self._prove(row, peer)
            except (prove.Refused, RunError) as reason:
                self._fault(row, peer, "refused" if isinstance(reason, prove.Refused) else "failed",
                            str(reason))
            self.progress.record((row.name, peer.name), time.monotonic() - start, False)

    def _prove(self, row, peer):
        """Two attempts for the C library: a program that is itself linked with another allocator
        (Debian's redis-server with jemalloc) gets it by having it preloaded first."""
        variables = peer.variables()
        answer, found = self._traced_run(row, variables)
        note = None
        try:
            proof = prove.check(found, peer.path)
        except prove.Refused as reason:
            library = prove.libc_of(found)
            if peer.path or not library:
                raise
            variables = {**variables, "LD_PRELOAD": library}
            answer, found = self._traced_run(row, variables)
            proof = prove.check(found, None)
            note = f"the C library is put first by LD_PRELOAD, since otherwise {reason}"
        self._check_answer(row, answer)
        self.variables[row.name, peer.name] = variables
        self.keep({"event": "proof", "row": row.name, "allocator": peer.name, **proof,
                   **({"note": note} if note else {})})

    def _traced_run(self, row, variables):
        folder = self.place.scratch("proof")
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        _, answer = row.run(self.place, {**variables, **prove.variables(folder)})
        found = prove.read_bindings(folder)
        shutil.rmtree(folder, ignore_errors=True)
        return answer, found

    def _check_answer(self, row, answer):
        """Every allocator must lead to the same answer; the first one to give one sets it."""
        if self.answers.setdefault(row.name, answer) != answer:
            raise RunError(f"its answer differs from that of the first run: {answer[:80]}")

    def _fault(self, row, peer, kind, reason):
        self.faults += 1
        self.variables.pop((row.name, peer.name), None)
        self.progress.say(f"{row.name} under {peer.name} {kind}: {reason}")
        self.keep({"event": kind, "row": row.name, "allocator": peer.name, "reason": reason})

    def _count_all(self):
        shuffle = random.Random(1)
        for number in range(self.runs):
            if number and self._too_late():
                self.progress.say(f"stopped after {number} rounds of {self.runs}: another would "
                                  f"take it beyond {self.budget} s")
                break
            for at, row in enumerate(self.rows):
                order = [peer for peer in self.allocators.values()
                         if (row.name, peer.name) in self.variables]
                # no allocator always runs first, or always after the same other one
                shuffle.shuffle(order)
                for index, peer in enumerate(order):
                    upcoming = [(row.name, p.name) for p in order[index:]]
                    upcoming += [pair for later in self.rows[at + 1:] for pair in self.variables
                                 if pair[0] == later.name]
                    upcoming += list(self.variables) * (self.runs - number - 1)
                    self.progress.show(f"round {number + 1} of {self.runs}: {row.name} under "
                                       f"{peer.name}", upcoming)
                    self._count(row, peer, number)

    def _too_late(self):
        round_takes = self.progress.left(list(self.variables)) or 0
        return self.budget and time.monotonic() - self.started + round_takes > self.budget

    def _count(self, row, peer, number):
        start = time.monotonic()
        try:
            if not peer.unchanged():
                raise prove.Refused(f"{peer.path} has changed since it was proven")
            cost, answer = row.run(self.place, self.variables[row.name, peer.name])
            self._check_answer(row, answer)
        except (prove.Refused, RunError) as reason:
            self._fault(row, peer, "refused" if isinstance(reason, prove.Refused) else "failed",
                        str(reason))
            return
        self.progress.record((row.name, peer.name), time.monotonic() - start, True)
        self.keep({"event": "run", "row": row.name, "allocator": peer.name, "round": number,
                   **cost})
