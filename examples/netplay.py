#!/usr/bin/env python3
"""Runs netplay: both players must see the same game, having gone back often, and rarely."""
import re
import subprocess
import sys

print("1..2")
for number, (latency, least) in enumerate((("30", 10), ("0", 0)), 1):
    done = subprocess.run([sys.argv[1], "400", latency], capture_output=True, text=True, timeout=300,
                          check=False)
    what = f"- {latency} ms from player to player"
    if done.returncode == 77:
        print(f"ok {number} {what} # SKIP {done.stderr.strip()}")
        continue
    back = [int(n) for n in re.findall(r"player \d: (\d+) rollbacks", done.stdout)]
    good = (done.returncode == 0 and len(back) == 2 and min(back) >= least
            and "400 frames" in done.stdout and "the worlds are equal" in done.stdout)
    print(f"ok {number} {what}" if good else f"not ok {number} {what}: {done}")
