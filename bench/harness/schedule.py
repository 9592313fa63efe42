"""The order of things: prove every pair once (which also warms it up and watches its memory), then
round after round.

What an earlier, stopped run has already counted is not run again: `done` holds its events. Every
pair with rounds left is proven anew, since what was live yesterday need not be today.
"""

import os
import random
import shutil
import time

from . import prove
from .process import RunError
from .progress import Progress

# seconds after which a run counts as hung
FULL_TIMEOUT, QUICK_TIMEOUT = 120, 40
# kilobytes: programs that take more begin with that much memory at hand (bench/ready.c)
READY_FROM = 48 << 10


class Schedule:
    """Runs rows under allocators. keep(event) is called with everything worth keeping."""

    def __init__(self, place, rows, allocators, runs, quick, keep, budget=None, done=()):
        self.place = place
        self.rows = rows
        self.allocators = allocators
        self.runs = runs
        self.keep = keep
        self.quick = quick
        # seconds for everything; a round that would not fit is not begun
        self.budget = budget
        self.started = time.monotonic()
        # (row, allocator) -> what to set in its process; only proven pairs are in here
        self.variables = {}
        self.answers = {}
        # row -> the most memory that it took under any allocator, in kilobytes
        self.peaks = {}
        self.counted = set()
        self.bad = set()
        self.faults = 0
        for event in done:
            self._remember(event)
        for row in rows:
            row.timeout = QUICK_TIMEOUT if quick else FULL_TIMEOUT
        self.wanted = {row.name: min(runs, row.most_runs or runs) for row in rows}
        missing = sum(len(self._rounds_left(row, peer)) + bool(self._rounds_left(row, peer))
                      for row in rows for peer in allocators.values())
        self.progress = Progress(missing)

    def _remember(self, event):
        pair = (event["row"], event["allocator"])
        if event["event"] == "proof":
            self.answers.setdefault(event["row"], event["answer"])
        elif event["event"] == "run":
            self.counted.add((*pair, event["round"]))
        elif event["event"] in ("failed", "refused"):
            self.bad.add(pair)
            self.faults += 1

    def _rounds_left(self, row, peer):
        if (row.name, peer.name) in self.bad or (row.alone and peer.path):
            return []
        return [number for number in range(self.wanted[row.name])
                if (row.name, peer.name, number) not in self.counted]

    def execute(self):
        self._prove_all()
        self._count_all()
        self.progress.close()

    def _prove_all(self):
        pairs = [(row, peer) for row in self.rows for peer in self.allocators.values()
                 if self._rounds_left(row, peer)]
        rounds = [(row.name, peer.name) for row, peer in pairs
                  for _ in self._rounds_left(row, peer)]
        prepared = set()
        for index, (row, peer) in enumerate(pairs):
            upcoming = [(r.name, p.name) for r, p in pairs[index:]] + rounds
            self.progress.show(f"preparing {row.name} under {peer.name}", upcoming)
            start = time.monotonic()
            try:
                if row.name not in prepared:
                    prepared.add(row.name)
                    row.prepare(self.place, self.quick)
                self._prove(row, peer)
            except (prove.Refused, RunError) as reason:
                self._fault(row, peer, reason)
            self.progress.record((row.name, peer.name), time.monotonic() - start, False)

    def _prove(self, row, peer):
        """Two attempts for the C library: a program that is itself linked with another allocator
        (Debian's redis-server with jemalloc) gets it by having it preloaded first."""
        variables = peer.variables()
        cost, answer, found = self._traced_run(row, variables)
        note = None
        try:
            proof = prove.check(found, peer.path)
        except prove.Refused as reason:
            library = prove.libc_of(found)
            if peer.path or not library:
                raise
            variables = {**variables, "LD_PRELOAD": library}
            cost, answer, found = self._traced_run(row, variables)
            proof = prove.check(found, None)
            note = f"the C library is put first by LD_PRELOAD, since otherwise {reason}"
        self._check_answer(row, answer)
        self.variables[row.name, peer.name] = variables
        self.peaks[row.name] = max(self.peaks.get(row.name, 0), cost.get("peak_kb", 0))
        self.keep({"event": "proof", "row": row.name, "allocator": peer.name, "answer": answer,
                   **proof, **({"note": note} if note else {})})
        if "watch" in cost:
            self.keep({"event": "watch", "row": row.name, "allocator": peer.name, **cost["watch"]})

    def _traced_run(self, row, variables):
        folder = self.place.scratch("proof")
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        # processes of somebody else write here as well
        os.chmod(folder, 0o777)
        self.place.watching = row.watchable
        try:
            cost, answer = row.run(self.place, {**variables, **prove.variables(folder)})
            found = prove.read_bindings(folder)
        finally:
            self.place.watching = False
            shutil.rmtree(folder, ignore_errors=True)
        return cost, answer, found

    def _check_answer(self, row, answer):
        """Every allocator must lead to the same answer; the first one to give one sets it."""
        if self.answers.setdefault(row.name, answer) != answer:
            raise RunError(f"its answer differs from that of the first run: {answer[:80]}")

    def _fault(self, row, peer, reason):
        kind = "refused" if isinstance(reason, prove.Refused) else "failed"
        self.faults += 1
        self.bad.add((row.name, peer.name))
        self.variables.pop((row.name, peer.name), None)
        self.progress.say(f"{row.name} under {peer.name} {kind}: {reason}")
        self.keep({"event": kind, "row": row.name, "allocator": peer.name, "reason": str(reason)})

    def _order(self, row, number):
        """Who runs in this round of this row. No allocator always runs first, or always after the
        same other one; a run that was stopped and goes on has the same order."""
        order = [peer for peer in self.allocators.values()
                 if (row.name, peer.name) in self.variables
                 and number in self._rounds_left(row, peer)]
        random.Random(f"{row.name} {number}").shuffle(order)
        return order

    def _upcoming(self, number, at):
        """Pairs still to run from row `at` of round `number` on."""
        pairs = []
        for later in range(number, self.runs):
            for row in self.rows[at if later == number else 0:]:
                pairs += [(row.name, peer.name) for peer in self._order(row, later)]
        return pairs

    def _count_all(self):
        for number in range(self.runs):
            if number and self._too_late(number):
                self.progress.say(f"stopped after {number} rounds of {self.runs}: another would "
                                  f"take it beyond {self.budget} s")
                break
            for at, row in enumerate(self.rows):
                upcoming = self._upcoming(number, at)
                for index, peer in enumerate(self._order(row, number)):
                    self.progress.show(f"round {number + 1} of {self.runs}: {row.name} under "
                                       f"{peer.name}", upcoming[index:])
                    self._count(row, peer, number)

    def _too_late(self, number):
        if not self.budget:
            return False
        pairs = [(row.name, peer.name) for row in self.rows for peer in self._order(row, number)]
        round_takes = self.progress.left(pairs) or 0
        return time.monotonic() - self.started + round_takes > self.budget

    def _count(self, row, peer, number):
        start = time.monotonic()
        try:
            if not peer.unchanged():
                raise prove.Refused(f"{peer.path} has changed since it was proven")
            if self.peaks.get(row.name, 0) >= READY_FROM:
                self.place.have_memory_ready(self.peaks[row.name])
            cost, answer = row.run(self.place, self.variables[row.name, peer.name])
            self._check_answer(row, answer)
        except (prove.Refused, RunError) as reason:
            self._fault(row, peer, reason)
            return
        self.progress.record((row.name, peer.name), time.monotonic() - start, True)
        self.counted.add((row.name, peer.name, number))
        self.keep({"event": "run", "row": row.name, "allocator": peer.name, "round": number,
                   **cost})
