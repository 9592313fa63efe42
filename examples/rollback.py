#!/usr/bin/env python3
"""Runs the fuzz loop of rollback.c: it finds the bug, and the store is as it was in the end."""
import re
import subprocess
import sys

done = subprocess.run([sys.argv[1], "3000"], capture_output=True, text=True, timeout=300, check=False)
print("1..2")
if done.returncode == 77:
    print("ok 1 # SKIP there is no userfaultfd\nok 2 # SKIP")
    sys.exit()
end = re.search(r"3000 runs, \d+ a second; (\d+) break it; the store is as it was", done.stdout)
print("ok 1" if end and done.returncode == 0 else f"not ok 1 {done}", "- every run is undone")
shown = re.findall(r"breaks the count: (.*);$", done.stdout, re.MULTILINE)
good = end and int(end[1]) > 0 and all(s.split()[-3] == "RENAME" for s in shown)
print("ok 2" if good else f"not ok 2 {shown}", "- the bug is found, and made short")
