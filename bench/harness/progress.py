"""One line on stderr that says what runs and how long the rest will take."""

import sys
import time


class Progress:
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
