"""The plots of the report, from a result: each function returns [(caption, SVG)]."""

from . import stats, summary, svg
from .peers import BASELINE
from .report import TITLES, amount

# rows whose plots would show nothing: too small, or not a comparison
QUIET = ("small", "micro", "layers")


class Look:
    """Colour and shape of every allocator, the same in all plots."""

    def __init__(self, allocators):
        self.index = {name: i % len(svg.PALETTE) for i, name in enumerate(allocators)}

    def of(self, name):
        return svg.SHAPES[self.index[name]], svg.PALETTE[self.index[name]]

    def legend(self):
        items = []
        for name in self.index:
            shape, colour = self.of(name)
            items.append('<span><svg viewBox="0 0 14 14" class="key">'
                         f"{svg.mark(shape, 7, 7, colour)}</svg>{svg.escape(name)}</span>")
        return f'<p class="legend">{"".join(items)}</p>'


def means(result, look):
    """Where each allocator lies on the whole, with intervals: glibc is 1."""
    found = result["summary"]["means"]
    plots = []
    for metric in summary.MAIN:
        cells = found[metric]["allocators"]
        if not cells:
            continue
        names = list(cells)
        x = svg.Scale([cell[end] for cell in cells.values() for end in ("low", "high")] + [1.0],
                      log=True)
        plot = svg.Plot(x, None, "relative to glibc, less is better", height=44 + 24 * len(names),
                        left=76)
        for i, name in enumerate(names):
            shape, colour = look.of(name)
            y, cell = plot.top + 14 + 24 * i, cells[name]
            low, high = x.at(cell["low"]), x.at(cell["high"])
            tip = f"{name}: {cell['ratio']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})"
            plot.add(svg.text(plot.left - 8, y + 4, name, "end"))
            plot.add(f'<path d="M{svg.coordinate(low)} {y}H{svg.coordinate(high)}" '
                     f'stroke="{colour}" stroke-width="3" stroke-opacity="0.45"/>')
            plot.add(svg.mark(shape, x.at(cell["ratio"]), y, colour, tip))
            beside = max(high, x.at(cell["ratio"]) + 5) + 5
            if beside < plot.right - 24:
                plot.add(svg.text(beside, y + 4, f"{cell['ratio']:.2f}", "start"))
            else:
                plot.add(svg.text(min(low, x.at(cell["ratio"]) - 5) - 5, y + 4,
                                  f"{cell['ratio']:.2f}", "end"))
        plots.append((f"{TITLES[metric]}, {len(found[metric]['rows'])} rows", plot.svg(metric)))
    return plots


def time_and_memory(result, look):
    """One plot per row: left is faster, down is smaller."""
    plots = []
    for row in result["rows"]:
        cells = result["summary"]["rows"][row["name"]]
        points = [(name, *(1.0 if name == BASELINE else cell[metric]["ratio"]
                           for metric in ("cpu", "peak_kb")))
                  for name, cell in cells.items() if row["group"] not in QUIET
                  and all(name == BASELINE or "ratio" in cell.get(metric, {})
                          for metric in ("cpu", "peak_kb"))]
        if len(points) < 2 or not {"cpu", "peak_kb"} <= set(row["counts"]):
            continue
        plot = svg.Plot(svg.Scale([p[1] for p in points], log=True),
                        svg.Scale([p[2] for p in points], log=True),
                        "CPU time / glibc", "peak memory / glibc")
        for name, time, memory in points:
            plot.point(time, memory, *look.of(name),
                       f"{name}: {time:.2f} of the time, {memory:.2f} of the memory")
        plots.append((row["name"], plot.svg(row["about"])))
    return plots


def scaling(result, look):
    """How much more is done with more threads: 1 is what glibc does with one."""
    families = {}
    for row in result["rows"]:
        if row.get("family"):
            families.setdefault(row["family"], []).append(row)
    plots = []
    for family, rows in families.items():
        base = result["summary"]["rows"][rows[0]["name"]].get(BASELINE)
        if len(rows) < 2 or not base:
            continue
        lines = {}
        for row in rows:
            # per operation in micro benchmarks; elsewhere every thread does the same work
            more = 1 if row["group"] == "micro" else row["threads"] / rows[0]["threads"]
            for name, cell in result["summary"]["rows"][row["name"]].items():
                speed = base["wall"]["median"] * more / cell["wall"]["median"]
                lines.setdefault(name, []).append((row["threads"], speed))
        everything = [point for points in lines.values() for point in points]
        plot = svg.Plot(svg.Scale([x for x, _ in everything], marks=[r["threads"] for r in rows]),
                        svg.Scale([y for _, y in everything]), "threads", "throughput")
        for name, points in lines.items():
            shape, colour = look.of(name)
            plot.line(points, colour, name)
            for x, y in points:
                plot.point(x, y, shape, colour, f"{name}, {x} threads: {y:.2f}")
        plots.append((family, plot.svg(f"{family}: throughput by threads")))
    return plots


# where the sum of resident memory is more than this times the sum of the shares, several processes
# hold the same pages, and the shares are shown: the copies of a forked child are not memory
SHARED = 1.5
# smaller than this, it is libc's pages that are shared
SHARED_FROM_KB = 16384


def _column(lines):
    """1, resident memory, or 2, the proportional share."""
    resident, share = (max(s[i] for samples in lines.values() for s in samples) for i in (1, 2))
    return 2 if resident > SHARED_FROM_KB and resident > SHARED * share else 1


def over_time(result, look):
    """Resident memory of all processes of a row, as one watched run went."""
    watched = {}
    for event in result["events"]:
        if event["event"] == "watch" and len(event["samples"]) > 2:
            watched.setdefault(event["row"], {})[event["allocator"]] = event["samples"]
    plots = []
    for row in result["rows"]:
        lines = watched.get(row["name"])
        if not lines or row["group"] in QUIET:
            continue
        kind = _column(lines)
        plot = svg.Plot(svg.Scale([samples[-1][0] for samples in lines.values()]),
                        svg.Scale([s[kind] / 1024 for samples in lines.values() for s in samples]),
                        "seconds", ("resident, MB", "proportional share, MB")[kind - 1])
        for name, samples in lines.items():
            plot.line([(s[0], s[kind] / 1024) for s in samples], look.of(name)[1], name)
            last = samples[-1]
            plot.point(last[0], last[kind] / 1024, *look.of(name), name, 3.5)
        plots.append((row["name"], plot.svg(f"{row['name']}: memory over time")))
    return plots


def distributions(result, look):
    """Every run of every allocator, relative to glibc's median: how far they lie apart."""
    table = summary.gather(result["events"])
    plots = []
    for row in result["rows"]:
        metric = "cpu" if "cpu" in row["counts"] else "peak_kb"
        cells = {name: list(cell[metric].values())
                 for name, cell in table.get(row["name"], {}).items() if metric in cell}
        if BASELINE not in cells or row["group"] == "layers" or min(cells[BASELINE]) <= 0:
            continue
        base = stats.median(cells[BASELINE])
        values = [max(v, base / 1e6) / base for runs in cells.values() for v in runs]
        x = svg.Scale(values, log=True)
        plot = svg.Plot(x, None, f"{'CPU time' if metric == 'cpu' else 'peak memory'} / glibc",
                        height=44 + 18 * len(cells), left=76)
        for i, (name, runs) in enumerate(cells.items()):
            shape, colour = look.of(name)
            y = plot.top + 10 + 18 * i
            plot.add(svg.text(plot.left - 8, y + 4, name, "end"))
            for value in runs:
                plot.add(svg.mark(shape, x.at(max(value, base / 1e6) / base), y, colour,
                                  f"{name}: {amount(metric, value)}", 3))
            middle = svg.coordinate(x.at(max(stats.median(runs), base / 1e6) / base))
            plot.add(f'<path d="M{middle} {y - 8}V{y + 8}" stroke="{colour}" stroke-width="2"/>')
        plots.append((row["name"], plot.svg(f"{row['name']}: all runs")))
    return plots
