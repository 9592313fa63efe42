"""The tables in the terminal."""

from .machine import one_line
from .peers import BASELINE, SUBJECT
from .summary import MAIN

TITLES = {
    "cpu": "CPU time (user + system)",
    "wall": "elapsed time",
    "peak_kb": "peak resident memory",
    "minflt": "minor page faults",
    "majflt": "major page faults",
    "nvcsw": "context switches, voluntary",
    "nivcsw": "context switches, involuntary",
    "pss_kb": "peak proportional share of all its processes (one watched run)",
    "user": "user time",
    "sys": "system time",
}

LEGEND = ("Ratios to glibc, medians: below 1 is less than glibc. * least in the row, ~ undecided:\n"
          "the runs lie further apart than the difference, or its 95 % interval includes 1.")


COUNTS = ("minflt", "majflt", "nvcsw", "nivcsw")


def seconds(value):
    if value < 1e-4:
        return f"{value * 1e9:.1f} ns"
    return f"{value * 1000:.2f} ms" if value < 0.01 else f"{value:.3f} s"


def memory(kilobytes):
    return f"{kilobytes:.0f} kB" if kilobytes < 10240 else f"{kilobytes / 1024:.1f} MB"


def amount(metric, value):
    if metric.endswith("_kb"):
        return memory(value)
    return f"{value:.0f}" if metric in COUNTS else seconds(value)


def _line(name, base, cells, width=11):
    return f"{name:<21}{base:>12}" + "".join(f"{cell:>{width}}" for cell in cells)


def _ratio(cell, metric, least):
    if cell is None or metric not in cell or "ratio" not in cell[metric]:
        return "- "
    found = cell[metric]
    mark = "~" if found.get("undecided") else "*" if found["ratio"] == least else " "
    return f"{found['ratio']:.2f}{mark}"


def metric_table(summary, rows, others, metric, means="means"):
    """One line per row; only rows that mean something in this metric."""
    lines = [TITLES[metric], _line("", BASELINE, [name + " " for name in others])]
    for name, _, counts in rows:
        cells = summary["rows"][name]
        if metric not in cells.get(BASELINE, {}) or (metric in MAIN and metric not in counts):
            continue
        ratios = [cells[peer][metric]["ratio"] for peer in others
                  if peer in cells and "ratio" in cells[peer][metric]]
        least = min(ratios + [1.0])
        lines.append(_line(name, amount(metric, cells[BASELINE][metric]["median"]),
                           [_ratio(cells.get(peer), metric, least) for peer in others]))
    if len(lines) == 2:
        return None
    if metric in summary[means]:
        lines += _mean_lines(summary[means][metric], others)
    return "\n".join(lines)


def _mean_lines(mean, others):
    if not mean["allocators"]:
        return []
    found = mean["allocators"]
    lines = [_line("geometric mean", f"of {len(mean['rows'])}",
                   [f"{found[p]['ratio']:.3f} " if p in found else "- " for p in others]),
             _line("  95 %", "", [_interval(found.get(p)) for p in others]),
             _line("to best per row", _mean_to_best(mean, BASELINE),
                   [_mean_to_best(mean, p) for p in others])]
    if mean["left_out"]:
        lines.append(f"  not in the mean, as not all took part: {', '.join(mean['left_out'])}")
    if mean["best"]:
        words = f"  best peer: {mean['best']}"
        if mean["best"] in found:
            words += f" at {found[mean['best']]['ratio']:.3f} of glibc"
        if "subject_to_best" in mean:
            words += f"; {SUBJECT} takes {mean['subject_to_best']:.3f} of that"
        lines.append(words)
    return lines


def _mean_to_best(mean, peer):
    found = mean["to_best"].get(peer)
    return f"{found['ratio']:.3f} " if found else "- "


def _interval(mean):
    # one run has no interval
    return f"{mean['low']:.2f}-{mean['high']:.2f} " if mean and mean["runs"] > 1 else "- "


def small_table(summary, rows, others):
    """What an allocator adds to a program that hardly allocates: time to start, private memory."""
    names = [name for name, group, _ in rows if group == "small"]
    names = [name for name in names if BASELINE in summary["rows"][name]]
    if not names:
        return None
    lines = ["small programs: time per start, and memory of its own at the end, added to glibc's",
             _line("", BASELINE, [name + " " for name in others])]
    for name in names:
        cells = summary["rows"][name]
        for metric, unit, scale in (("wall", "ms", 1000), ("private_kb", "kB", 1)):
            base = cells[BASELINE][metric]["median"]
            added = [f"{(cells[p][metric]['median'] - base) * scale:+.{2 if unit == 'ms' else 0}f} "
                     f"{unit} " if p in cells else "- " for p in others]
            lines.append(_line(name if unit == "ms" else "", amount(metric, base), added))
    return "\n".join(lines)


FIGURES = [
    ("idle", "held_kb", "400 idle threads"),
    ("burst", "at_once_kb", "burst, at once"),
    ("burst", "after_1_kb", "burst, 1 s"),
    ("residue", "at_once_kb", "residue, at once"),
    ("residue", "after_1_kb", "residue, 1 s"),
    ("residue", "later_kb", "residue, later"),
    ("scatter", "at_once_kb", "scatter, at once"),
    ("scatter", "after_1_kb", "scatter, 1 s"),
    ("scatter", "later_kb", "scatter, later"),
]


def figure_table(summary, others):
    """What is still resident when nothing is in use any more."""
    lines = ["resident after everything was freed (residue: all but 1 in 100, scatter: 1 in 10)",
             _line("", BASELINE, [name + " " for name in others])]
    for row, figure, title in FIGURES:
        cells = summary["rows"].get(row, {})
        if BASELINE not in cells:
            continue
        lines.append(f"{title:<23}{memory(cells[BASELINE][figure]['median']):>10}" + "".join(
            f"{memory(cells[p][figure]['median']) + ' ' if p in cells else '- ':>11}"
            for p in others))
    return "\n".join(lines) if len(lines) > 2 else None


def layer_table(summary, rows):
    """quire's own layers, below malloc: times per operation."""
    lines = ["quire's layers, CPU time per operation", f"{'':<21}{'median':>12}{'spread':>10}"]
    for name, group, _ in rows:
        cell = summary["rows"][name].get(BASELINE) if group == "layers" else None
        if cell:
            lines.append(f"{name:<21}{seconds(cell['cpu']['median']):>12}"
                         f"{100 * cell['cpu']['spread']:>8.0f} %")
    return "\n".join(lines) if len(lines) > 2 else None


def notes(result):
    """Everything that a reader must know about what is not in the tables."""
    lines = [f"{name}: skipped, {reason}" for name, reason in result["skipped_rows"].items()]
    lines += result["absent"]
    load = float(result["machine"].get("load", "0").split()[0])
    if load > 0.5:
        lines.append(f"the machine was not idle: load {load:.1f} before the first run; expect wider "
                     "spreads, and wall times that say little")
    faults = {}
    for event in result["events"]:
        pair = f"{event['row']} under {event['allocator']}"
        if event["event"] in ("failed", "refused"):
            faults.setdefault((event["event"], event["reason"]), []).append(pair)
        elif event.get("note"):
            lines.append(f"{pair}: {event['note']}")
    for (kind, reason), pairs in faults.items():
        more = f", and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        lines.append(f"{kind.upper()}: {', '.join(pairs[:5])}{more}: {reason}")
    return lines


def text(result, every_metric=False):
    """The whole report as text."""
    summary = result["summary"]
    rows = [(row["name"], row["group"], row["counts"]) for row in result["rows"]]
    others = [name for name in result["allocators"] if name != BASELINE]
    rounds = {event["round"] for event in result["events"] if event["event"] == "run"}
    settings = result["settings"]
    parts = [f"{one_line(result['machine'])}\n{len(rounds)} interleaved runs after a warm-up"
             f"{', quick sizes' if settings['quick'] else ''}"
             f"{', pinned to CPU ' + settings['pin'] if settings['pin'] else ''}"
             f"{'' if result['complete'] else ', STOPPED before the end'}\n{LEGEND}"]
    if not rounds:
        parts = ["nothing was counted"]
    elif not others:
        parts.append(_alone(summary, rows))
    else:
        micro = [row for row in rows if row[1] == "micro"]
        larger = [row for row in rows if row[1] not in ("micro", "layers")]
        metrics = list(MAIN) + (["pss_kb", *COUNTS, "user", "sys"] if every_metric else [])
        parts += [metric_table(summary, larger, others, metric) for metric in metrics]
        parts += [figure_table(summary, others), small_table(summary, rows, others)]
        if micro:
            parts.append(metric_table(summary, micro, others, "cpu", "micro_means"))
        parts.append(layer_table(summary, rows))
    parts.append("\n".join(notes(result)))
    return "\n\n".join(part for part in parts if part)


def _alone(summary, rows):
    """glibc by itself: no ratios, only what it took."""
    lines = [_line("", "CPU time", ["elapsed", "peak memory"], 13)]
    for name, _, _ in rows:
        cell = summary["rows"][name].get(BASELINE)
        if cell:
            lines.append(_line(name, seconds(cell["cpu"]["median"]),
                               [seconds(cell["wall"]["median"]), memory(cell["peak_kb"]["median"])],
                               13))
    return "\n".join(lines)
