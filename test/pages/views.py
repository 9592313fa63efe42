#!/usr/bin/env python3
"""The views of quire_procfs(): in the kernel's formats, agreeing with each other and with what the
program has in use. The patterns are tried on the kernel's own files, too, where those may be read.
Prints TAP.
"""
import json
import os
import re
import subprocess
import sys

MAPPINGS = 700  # as in show.c



def right(n, sort):
    """Characters of a sort, right-aligned in n columns, or more of them."""
    short = "|".join(f" {{{n - k}}}{sort}{{{k}}}" for k in range(1, n))
    return f"(?:{short}|{sort}{{{n},}})"


def left(n, sort):
    """The same, left-aligned."""
    short = "|".join(f"{sort}{{{k}}} {{{n - k}}}" for k in range(1, n))
    return f"(?:{short}|{sort}{{{n},}})"


def width(n):
    """A number in n columns."""
    return right(n, r"\d")


ORDERS = rf"(?:{width(6)} ){{11}}"
ZONE, TYPE = right(8, r"\w"), right(12, r"\w")
CACHE, COUNTER = left(17, r"\S"), left(12, r"\w")
PATTERNS = {
    "buddyinfo": [rf"Node \d+, zone {ZONE} {ORDERS}"],
    "pagetypeinfo": [
        r"Page block order: \d+", r"Pages per block:  \d+", r"",
        rf"Free pages count per migrate type at order  ?{ORDERS}",
        rf"Node {width(4)}, zone {ZONE}, type {TYPE} (?:>?{width(6)} ){{11}}",
        rf"Number of blocks type  ?(?:{TYPE} )+", rf"Node \d+, zone {ZONE} (?:{width(12)} )+"],
    "slabinfo": [
        r"slabinfo - version: 2\.1",
        r"# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : "
        r"tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> "
        r"<sharedavail>",
        rf"{CACHE} {width(6)} {width(6)} {width(6)} {width(4)} {width(4)} : "
        rf"tunables {width(4)} {width(4)} {width(4)} : slabdata {width(6)} {width(6)} {width(6)}"],
    "vmallocinfo": [rf"0x[0-9a-f]{{16}}-0x[0-9a-f]{{16}} {width(7)} \S.*"],
    "zoneinfo": [
        rf"Node \d+, zone {ZONE}", r"  per-node stats",
        r"  pages free     \d+",
        r"        (?:boost|min|low|high|promo|spanned|present|managed|cma)\b *\d+",
        r"        protection: \(\d+(?:, \d+)*\)", rf"      {COUNTER} \d+", r"  pagesets",
        r"    cpu: \d+", r"              (?:count|high|batch|high_min|high_max):? *\d+",
        r"  vm stats threshold: \d+", r"  node_unreclaimable:  \d+", r"  start_pfn:           \d+"],
    "numastat": [r"\w+ \d+", r" +node\d+(?: +node\d+)+", r"\w+ +\d+(?: +\d+)+"],
    "extfrag_index": [rf"Node \d+, zone {ZONE} (?:[- ]\d\.\d{{3}} ){{11}}"],
    "unusable_index": [rf"Node \d+, zone {ZONE} (?: ?\d\.\d{{3}} ){{11}}"],
}
KERNEL = {name: "/proc/" + name for name in PATTERNS}
KERNEL["numastat"] = "/sys/devices/system/node/node0/numastat"
KERNEL["extfrag_index"] = "/sys/kernel/debug/extfrag/extfrag_index"
KERNEL["unusable_index"] = "/sys/kernel/debug/extfrag/unusable_index"


def odd_lines(name, text):
    return [line for line in text.splitlines()
            if not any(re.fullmatch(pattern, line) for pattern in PATTERNS[name])]


def odd_line(name, text):
    return next(iter(odd_lines(name, text)), None)


def sections(program, conf):
    env = dict(os.environ, QUIRE_CONF=conf)
    out = subprocess.run([program], env=env, capture_output=True, text=True, timeout=300, check=True)
    parts = re.split(r"^== (.*) (\w+)\n", out.stdout, flags=re.M)[1:]
    return {(parts[i], parts[i + 1]): parts[i + 2] for i in range(0, len(parts), 3)}


def numbers(text):
    """Every number of a text, in order."""
    return [int(n) for n in re.findall(r"\b\d+\b", text)]


def wrong_indices(name, found, buddy):
    """An index is -1 or unusable part of a whole exactly where the free blocks say so."""
    for line, entry, free in zip(found[name, "text"].splitlines(), json.loads(found[name, "json"]),
                                 buddy, strict=True):
        shown = [float(n) for n in re.findall(r"-?\d\.\d+", line)]
        if shown != entry["index"] or entry["zone"] != free["zone"]:
            yield f"{name}: {line} is not {entry}"
        for order, index in enumerate(entry["index"]):
            fits = sum(n << k for k, n in enumerate(free["free"]) if k >= order)
            pages = sum(n << k for k, n in enumerate(free["free"]))
            if name == "extfrag_index" and (index == -1) != (fits > 0):
                yield f"{name}: {index} for order {order} of {free}"
            if name == "unusable_index" and abs(index - (1 - fits / pages if pages else 1)) > .0011:
                yield f"{name}: {index} for order {order} of {free}"


def agree(found):
    """Complaints about numbers of one view that are not those of another."""
    buddy = json.loads(found["buddyinfo", "json"])
    types = json.loads(found["pagetypeinfo", "json"])
    zones = json.loads(found["zoneinfo", "json"])
    slabs = json.loads(found["slabinfo", "json"])
    maps = json.loads(found["vmallocinfo", "json"])
    for line, entry in zip(found["buddyinfo", "text"].splitlines(), buddy, strict=True):
        if numbers(line) != [entry["node"], *entry["free"]] or entry["zone"] not in line:
            yield f"buddyinfo: {line} is not {entry}"
    for entry, zone in zip(buddy, zones, strict=True):
        mine = [t["free"] for t in types["free"]
                if (t["node"], t["zone"]) == (entry["node"], entry["zone"])]
        if [sum(column) for column in zip(*mine)] != entry["free"]:
            yield f"pagetypeinfo: {mine} does not add up to {entry}"
        if sum(n << order for order, n in enumerate(entry["free"])) != zone["free"]:
            yield f"zoneinfo: {zone['free']} pages free, not as {entry}"
        if not zone["free"] <= zone["managed"] <= zone["present"] <= zone["spanned"]:
            yield f"zoneinfo: {zone}"
        blocks = next(b for b in types["blocks"]
                      if (b["node"], b["zone"]) == (entry["node"], entry["zone"]))
        nr = sum(n for key, n in blocks.items() if key not in ("node", "zone"))
        if nr * types["pages_per_block"] != zone["managed"]:
            yield f"pagetypeinfo: {nr} blocks for {zone['managed']} pages"
    for name in "extfrag_index", "unusable_index":
        yield from wrong_indices(name, found, buddy)
    if numbers(found["zoneinfo", "text"])[1] != zones[0]["free"]:
        yield "zoneinfo: text and JSON differ"
    lines = found["slabinfo", "text"].splitlines()[2:]
    for line, slab in zip(lines, slabs, strict=True):
        if line.split()[:6] != [str(slab[key]) for key in ("name", "active_objs", "num_objs",
                                                           "objsize", "objperslab",
                                                           "pagesperslab")]:
            yield f"slabinfo: {line} is not {slab}"
        if slab["active_objs"] > slab["num_objs"]:
            yield f"slabinfo: {slab}"
    live = sum(s["active_objs"] for s in slabs if 96 <= s["objsize"] <= 112)
    if not 5000 <= live <= 5600:
        yield f"slabinfo: {live} objects live, not some more than 5000"
    if len(maps) != MAPPINGS or not all(9 << 19 <= m["size"] < 10 << 19 for m in maps):
        yield f"vmallocinfo: {len(maps)} mappings"
    if found["vmallocinfo", "text"].count("\n") != MAPPINGS:
        yield f"vmallocinfo: not {MAPPINGS} lines"
    if len({m["start"] for m in maps}) != len(maps):
        yield "vmallocinfo: a mapping twice"
    if not any(b["free"][0] > 100 for b in buddy):
        yield "buddyinfo: no holes, although every second page was put"


def complaints(program, conf):
    found = sections(program, conf)
    for (name, kind), text in found.items():
        if kind == "text" and (name, "text") in found and name in PATTERNS:
            line = odd_line(name, text)
            if line is not None:
                yield f"{name}: {line!r}"
    nodes = 3 if "numa_fake" in conf else 1
    stat = json.loads(found["numastat", "json"])
    if len(stat) != nodes or any(n["numa_hit"] + n["numa_miss"] != n["local_node"] + n["other_node"]
                                 for n in stat) or not sum(n["local_node"] for n in stat):
        yield f"numastat: {stat}"
    try:
        yield from agree(found)
    except (KeyError, ValueError) as error:
        yield f"cut short, or no JSON: {error!r}"


def main():
    program = os.path.abspath(sys.argv[1])
    confs = ["", "model:sparse", "numa_fake:3"]
    print(f"1..{len(PATTERNS) + len(confs) + 1}")
    bad = number = 0
    for name, path in KERNEL.items():
        number += 1
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
        except OSError as error:
            print(f"ok {number} - the kernel's {name} # SKIP {error.strerror}")
            continue
        # Kernels that are not known here may have lines of their own, but not only such.
        odd = odd_lines(name, text)
        wrong = len(odd) > len(text.splitlines()) / 4
        bad += wrong
        print(f"{'not ok' if wrong else 'ok'} {number} - the pattern for {name} is right")
        for line in odd[:10]:
            print(f"#   {path}: {line!r}")
    for conf in confs:
        number += 1
        faults = list(complaints(program, conf))
        bad += bool(faults)
        print(f"{'not ok' if faults else 'ok'} {number} - views, options '{conf}'")
        for fault in faults[:10]:
            print(f"#   {fault}")
    done = subprocess.run([program, "failures"], capture_output=True, text=True, timeout=300,
                          check=False)
    bad += done.returncode != 0
    print(f"{'not ok' if done.returncode else 'ok'} {number + 1} - failures have their errno")
    for line in done.stderr.splitlines():
        print(f"#   {line}")
    return bad > 0


sys.exit(main())
