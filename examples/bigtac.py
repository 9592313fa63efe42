#!/usr/bin/env python3
"""Drives bigtac: lines come out last first, also where they are more than there are addresses."""
import random
import resource
import subprocess
import sys

TAC = sys.argv[1]
ADDRESSES = 96 << 20


def reverse(data):
    lines = data.splitlines(keepends=True)
    return b"".join(reversed(lines))


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def tac(data, *options, limit=None):
    return subprocess.run([TAC, *options], input=data, capture_output=True, timeout=300,
                          preexec_fn=limit, check=False)


def main():
    dice = random.Random(4)
    texts = [b"", b"\n", b"one", b"one\n", b"a\n\n\nb\n", b"x" * 300000 + b"\ny\n"]
    for _ in range(20):
        texts.append(b"".join(b"%d" % dice.randrange(10**9) * dice.randrange(40) + b"\n"
                              for _ in range(dice.randrange(5000))))
    done = tac(b"a\nb\n")
    if b"Function not implemented" in done.stderr:
        print("1..0 # SKIP no memfd here")
        return
    print("1..3")
    bad = [i for i, text in enumerate(texts) if tac(text).stdout != reverse(text)]
    print("not ok 1" if bad else "ok 1", f"- {len(texts)} texts {bad or ''}")
    big = b"".join(b"%060d\n" % i for i in range(2500000))
    done = tac(big, limit=limited)
    good = done.returncode == 0 and done.stdout == reverse(big)
    print("ok 2" if good else f"not ok 2 {done.stderr[:200]}",
          f"- {len(big) >> 20} MiB with {ADDRESSES >> 20} MiB of addresses")
    done = tac(b"first\nlast\n", "-s")
    if done.returncode and (b"not supported" in done.stderr or b"allocate" in done.stderr):
        print("ok 3 # SKIP no memfd_secret here")
    else:
        print("ok 3" if done.stdout == b"last\nfirst\n" else f"not ok 3 {done}", "- secret")


main()
