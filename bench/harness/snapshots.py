"""The page of the benchmark of snapshots: its tables, and how long writes took during a save."""

import math
from html import escape

from . import svg
from .page import STYLE, section

# one decade has so many steps (bench/saving.c)
STEPS = 10


def _outline(found, x, y):
    """Steps of a histogram as places in the plot, left to right; empty steps lie on the ground."""
    ground = y.at(y.low)
    points, last = [], None
    for up_to, count in found:
        left, top = x.at(up_to / 10 ** (1 / STEPS)), y.at(count)
        if last is None or left - last > 0.5:
            if last is not None:
                points.append((last, ground))
            points.append((left, ground))
        points += [(left, top), (x.at(up_to), top)]
        last = x.at(up_to)
    return [*points, (last, ground)]


def _median(found):
    half = sum(count for _, count in found) / 2
    for up_to, count in found:
        half -= count
        if half <= 0:
            return up_to
    return found[-1][0]


def _powers(values):
    return [10.0 ** k for k in range(math.floor(math.log10(min(values))),
                                     math.ceil(math.log10(max(values))) + 1)]


def histogram(ours, theirs, caption):
    """Writes by how long they took, of a snapshot and of fork: both axes logarithmic."""
    everything = ours + theirs
    times = [up_to for up_to, _ in everything] + [everything[0][0] / 2]
    x = svg.Scale(times, log=True, marks=[])
    x.marks = [p for p in _powers(times) if x.low <= p <= x.high]
    y = svg.Scale([0.9] + [count for _, count in everything], log=True, marks=[])
    y.marks = [p for p in _powers([1, y.high]) if y.low <= p <= y.high]
    plot = svg.Plot(x, y, "us that a write took", "writes", width=420, height=250)
    for name, found, colour in (("fork", theirs, svg.PALETTE[2]), ("quire", ours, svg.PALETTE[1])):
        path = "L".join(f"{svg.coordinate(a)} {svg.coordinate(b)}"
                        for a, b in _outline(found, plot.x, plot.y))
        plot.add(f'<path d="M{path}Z" fill="{colour}" fill-opacity="0.25" stroke="{colour}" '
                 f'stroke-width="1.5"><title>{name}: half of the writes within '
                 f'{svg.number(_median(found))} us, the longest {svg.number(found[-1][0])} us'
                 "</title></path>")
    return caption, plot.svg(caption)


def _legend():
    items = "".join(f'<span><svg viewBox="0 0 14 14" class="key">{svg.mark("square", 7, 7, colour)}'
                    f"</svg>{name}</span>" for name, colour in (("quire", svg.PALETTE[1]),
                                                                ("fork", svg.PALETTE[2])))
    return f'<p class="legend">{items}</p>'


def _table(table):
    lines = []
    for what, *cells, verdict in table.rows:
        kind = "least" if verdict == "met" else "much"
        lines.append(f"<tr><td>{escape(what)}</td>" +
                     "".join(f"<td>{escape(cell)}</td>" for cell in cells) +
                     f'<td class="{kind}">{verdict}</td></tr>')
    head = "".join(f"<th>{name}</th>" for name in ("", "quire", "other", "ratio", "target", ""))
    return (f"<section><h2>{escape(table.title)}</h2><div class=\"wide\"><table><thead><tr>{head}"
            f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div></section>")


def html(facts, tables, runs):
    """runs: (MiB, measured in 4 KiB pages, in huge pages)."""
    plots = [histogram(run["histogram"]["writer"], run["histogram"]["writer_fork"],
                       f"{mib} MiB, {kind} pages")
             for mib, *both in runs for kind, run in zip(("4 KiB", "huge"), both)]
    words = ("A thread writes to a random block every 100 us, as planned from the beginning, while "
             "another saves the heap as it was at the start (quire), or a child does (fork). A "
             "pause counts for every write that it delays.")
    return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Snapshots and fork</title><style>{STYLE}</style></head><body>"
            f'<h1>Snapshots and fork</h1><p class="facts">{escape(facts)}</p>'
            + section("A writer while the heap is saved", words, plots, _legend())
            + "".join(map(_table, tables)) + "</body></html>\n")
