"""All rows of the benchmark, in the order of the report. Sizes are pairs: (full, quick)."""

import fnmatch
import os
import re

from . import inputs, micro, servers
from .rows import MEMORY, TIME, Command, Small, Workload

# words that stand for no rows here, and why
EMPTY = {"snapshot": "is measured apart, as the first word: ./dev bench snapshot [--quick]"}


def _thread_counts():
    """1, 2, 4 ... and how many there are: at least up to 2."""
    processors = len(os.sched_getaffinity(0))
    counts = [1, 2]
    while counts[-1] * 2 <= processors:
        counts.append(counts[-1] * 2)
    if processors > counts[-1]:
        counts.append(processors)
    return counts


def _scaling():
    """The same work in each thread: with enough processors, elapsed time stays what it is."""
    rows = []
    for n in _thread_counts():
        rows.append(Workload(f"trees-{n}", f"build and drop binary trees, {n} at a time",
                             (f"17 18 {n}", f"16 6 {n}"), "trees", family="trees", threads=n,
                             quick=n <= 2))
        rows.append(Workload(f"server-{n}", f"live objects handed on from thread to thread, {n} "
                             "at a time", (f"{n} 30 80000", f"{n} 10 50000"), "server",
                             family="server", threads=n, quick=n == 2))
        rows.append(Workload(f"prodcons-{n}", f"{n} allocate, {n} others free",
                             (f"{n * 2000000} {n}", f"{n * 400000} {n}"), "prodcons",
                             family="prodcons", threads=n, quick=n == 1))
    return sorted(rows, key=lambda row: row.family)


def workloads():
    return [
        *_scaling(),
        Workload("cache", "a cache under replacement, sizes shifting between phases",
                 ("64 3000000 12", "24 500000 8"), quick=True),
        Workload("churn", "threads come and go, leaving objects behind", ("8000", "800"),
                 quick=True),
        Workload("regrow", "realloc: four strings to 64 MiB (quick: 32), many small vectors",
                 ("64 20000 25", "32 10000 3"), quick=True),
        Workload("sharing-active", "threads write to small objects of their own",
                 ("active 2 100000 1000", "active 2 40000 1000"), "sharing", counts=TIME),
        Workload("sharing-passive", "the same after a neighbour was given away",
                 ("passive 2 100000 1000", "passive 2 40000 1000"), "sharing", counts=TIME),
        Workload("idle", "400 threads that have freed everything and wait", ("400", "400"),
                 counts=MEMORY, quick=True),
        # a second of it is waiting: wall time would say nothing
        Workload("burst", "300 MB (quick: 100) of small objects come and go", ("300 1", "100 1"),
                 counts=frozenset(["cpu", "peak_kb"]), quick=True),
        Workload("residue", "four bursts of 150 MB; one object in 100 stays, 10 s of little work",
                 ("150 10 4 100", "60 2 4 100"), "burst", counts=frozenset(["cpu", "peak_kb"]),
                 most_runs=3),
        Workload("scatter", "300 MB of up to 16 KB each; one object in 10 stays, 10 s of little work",
                 ("300 10 1 10 16000", "60 3 1 10 16000"), "burst",
                 counts=frozenset(["cpu", "peak_kb"]), most_runs=3),
        Workload("big", "blocks of 1 to 64 MiB, a tenth of them written", ("1200", "150"),
                 quick=True),
        Workload("awkward", "blocks of 1.05 times a power of two, to 2.1 MiB", ("4000", "500"),
                 quick=True),
        Workload("signals", "two threads allocate under 5000 signals a second",
                 ("2 2000000", "2 600000"), "signals"),
        Workload("forks", "a process with a heap of 32 MB forks 100 times", ("100 32", "30 16")),
    ]


def _pack_names(place, row):
    """git names a pack by the checksum of its content."""
    folder = os.path.join(row.input, "objects", "pack")
    return " ".join(sorted(os.listdir(folder))).encode()


def _object_file(place, row):
    with open(place.scratch("out.o"), "rb") as file:
        return file.read()


def _python(place, row):
    # not -I: it would ignore PYTHONMALLOC as well
    return ["/usr/bin/python3", "-s", "-S", "-B", place.script("objects.py"), str(row.size)], None


def _compile(compiler):
    return lambda place, row: ([compiler, "-x", "c", "-w", "-O2", "-c", row.input, "-o",
                                place.scratch("out.o")], None)


def _compiler(name, sizes, **known):
    return Command(name, f"{name} -O2 of a generated file", sizes, _compile(name),
                   input=inputs.c_source, artifact=_object_file, needs=name, package=name,
                   version=[name, "--version"], **known)


def _pictures(place, row):
    return ["gs", "-q", "-dBATCH", "-dNOPAUSE", "-dSAFER", "-r60", "-sDEVICE=ppmraw",
            "-sOutputFile=-", row.input], None


def _db_bench(place, row):
    folder = place.scratch("rocksdb")
    return ["db_bench", "--benchmarks=fillrandom,readrandom,overwrite", f"--num={row.size}",
            f"--db={folder}", "--value_size=400", "--threads=1", "--seed=1", "--verify_checksum=1",
            "--disable_wal=1", "--write_buffer_size=4000000", "--cache_size=8000000"], None


def _found(place, row, output):
    """The rest of its output is speeds."""
    return b" ".join(re.findall(rb"\(\d+ of \d+ found\)", output))


def programs():
    python = {"needs": "/usr/bin/python3", "package": "python3",
              "version": ["/usr/bin/python3", "--version"]}
    return [
        *servers.everything(),
        Command("python", "CPython: records, JSON, text, classes, buffers", (30, 4), _python,
                must_say="ok objects", quick=True, **python),
        Command("python-malloc", "the same with every object from malloc", (30, 4), _python,
                must_say="ok objects", environment={"PYTHONMALLOC": "malloc"}, quick=True,
                **python),
        Command("perl", "perl: hashes, strings, regular expressions", (20, 4),
                lambda place, row: (["perl", place.script("words.pl"), str(row.size)], None),
                must_say="ok words", needs="perl", package="perl",
                version=["perl", "-e", "print $^V"], quick=True),
        Command("lua", "lua: tables, closures, strings", (40, 8),
                lambda place, row: (["lua5.4", place.script("tables.lua"), str(row.size)], None),
                must_say="ok tables", needs="lua5.4", package="lua5.4", version=["lua5.4", "-v"],
                quick=True),
        Command("sqlite", "sqlite3: an in-memory database", (40000, 7000),
                lambda place, row: (["sqlite3", "-batch", "-bail", ":memory:"], row.input),
                input=inputs.sql_script, must_say="\nok\n", needs="sqlite3", package="sqlite3",
                version=["sqlite3", "--version"], quick=True),
        _compiler("gcc", (120, 20), quick=True),
        _compiler("clang", (80, 20)),
        Command("git", "git gc of a generated repository", (1500, 120),
                lambda place, row: (["git", "-C", row.input, "-c", "pack.threads=1", "-c",
                                     "gc.aggressiveWindow=20", "gc", "--aggressive", "--quiet",
                                     "--prune=now"], None),
                input=inputs.git_repository, artifact=_pack_names, needs="git", package="git",
                version=["git", "--version"], quick=True),
        Command("z3", "z3: bit vectors, linear arithmetic, arrays", (6, 2),
                lambda place, row: (["z3", "-smt2", row.input], None), input=inputs.smt_script,
                must_say="sat", needs="z3", package="z3", version=["z3", "--version"]),
        Command("ghostscript", "gs: pages of text, curves and pictures", (12, 3), _pictures,
                input=inputs.postscript, needs="gs", package="ghostscript",
                version=["gs", "--version"]),
        Command("rocksdb", "db_bench: random writes, reads, overwrites", (150000, 40000), _db_bench,
                answer=_found, fresh=["rocksdb"], must_say="found)",
                needs="db_bench", package="rocksdb-tools", version=["db_bench", "--version"]),
    ]


def small():
    return [
        Small("true", "nothing", ["/bin/true"], quick=True),
        Small("sh", "a shell and one command of its own", ["/bin/sh", "-c", "echo hello"],
              quick=True),
        Small("ls", "a folder, sorted, with owners", ["/bin/ls", "-la", "/usr/share"], quick=True),
    ]


def numa():
    """quire with invented nodes; a real machine with several needs no option. Other allocators run
    the same for comparison. In no mean."""
    return [Workload(f"numa-{nodes}", f"server with {nodes} nodes (invented where there are none)",
                     ("2 20 60000", "2 10 40000"), "server", group="numa",
                     environment={"QUIRE_CONF": f"numa_fake:{nodes}"}) for nodes in (1, 2, 4)]


def everything(build):
    """build: the build folder, which knows what micro benchmarks there are."""
    return [*workloads(), *programs(), *small(), *micro.everything(build), *numa()]


# what runs where nothing is named
DEFAULT_GROUPS = ("workload", "program", "small", "micro")


def select(rows, wanted, quick=False):
    """Rows by name or by group (workloads, programs, small, micro, layers, numa). With nothing
    wanted, all but layers and numa; a quick run then takes only those that are quick. Unknown names
    raise KeyError."""
    if not wanted:
        return [row for row in rows if row.group in DEFAULT_GROUPS and (row.quick or not quick)]
    chosen = set()
    for word in wanted:
        found = [row.name for row in rows
                 if word in (row.name, row.family, row.group, row.group + "s")]
        found = found or [row.name for row in rows if fnmatch.fnmatchcase(row.name, word)]
        if not found:
            raise KeyError(word)
        chosen.update(found)
    return [row for row in rows if row.name in chosen]
