"""The report as one HTML file that holds all it shows: to read on a phone, to print, to send."""

from html import escape

from . import charts
from .machine import one_line
from .peers import BASELINE
from .report import LEGEND, TITLES, amount, figure_table, layer_table, notes, small_table
from .summary import MAIN

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
       max-width: 1240px; padding: 12px 16px 40px; }
h1 { font-size: 1.5rem; margin: .3em 0; }
h2 { font-size: 1.15rem; margin: 2em 0 .3em; border-top: 1px solid #ccc; padding-top: .8em; }
p { margin: .4em 0; max-width: 75ch; }
.facts { color: #555; }
.grid-of { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); }
figure { margin: 0; border: 1px solid #e2e2e2; border-radius: 5px; padding: 6px; }
figcaption { font-size: .85rem; font-weight: 600; padding: 0 4px 2px; }
svg { width: 100%; height: auto; display: block; fill: #333; font-family: inherit; }
svg.key { width: 14px; height: 14px; display: inline-block; vertical-align: -2px; }
.grid path { stroke: #e6e6e6; stroke-width: 1; fill: none; }
.grid path.one { stroke: #888; }
.axis { fill: #666; }
.legend { position: sticky; top: 0; background: #ffffffee; padding: 4px 0; z-index: 1; }
.legend span { margin-right: 1.1em; white-space: nowrap; }
.legend svg { margin-right: 5px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { padding: 2px 9px; text-align: right; white-space: nowrap; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
thead th { border-bottom: 1px solid #999; }
tbody.mean td { font-weight: 600; border-top: 1px solid #999; }
.least { background: #dcefe3; }
.much { background: #fbe4d8; }
.open { color: #999; }
pre { overflow-x: auto; font-size: .8rem; background: #f7f7f7; padding: 8px; }
@page { margin: 12mm; }
@media print {
  body { font-size: 10.5px; padding: 0; max-width: none; }
  .legend { position: static; }
  .grid-of { grid-template-columns: repeat(3, 1fr); gap: 6px; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  pre { white-space: pre-wrap; }
  .least, .much { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""


def _cell(found, least):
    if not found or "ratio" not in found:
        return '<td class="open">-</td>'
    kind = "open" if found["undecided"] else "least" if found["ratio"] == least else \
        "much" if found["ratio"] > 1.05 * least else ""
    tip = (f"{found['low']:.3f} to {found['high']:.3f}, spread {100 * found['spread']:.0f} %, "
           f"{found['runs']} runs")
    mark = "~" if found["undecided"] else ""
    return f'<td class="{kind}" title="{tip}">{found["ratio"]:.2f}{mark}</td>'


def _mean_rows(mean, others):
    if not mean["allocators"]:
        return ""
    found = [mean["allocators"].get(name) for name in others]
    best = [mean["to_best"].get(name) for name in [BASELINE, *others]]
    ratios = "".join(f'<td title="{m["low"]:.3f} to {m["high"]:.3f}">{m["ratio"]:.3f}</td>'
                     if m else "<td>-</td>" for m in found)
    to_best = "".join(f"<td>{m['ratio']:.3f}</td>" if m else "<td>-</td>" for m in best)
    return (f'<tbody class="mean"><tr><td>geometric mean</td><td>{len(mean["rows"])} rows</td>'
            f"{ratios}</tr><tr><td>to the best peer of each row</td>{to_best}</tr></tbody>")


def _table(result, others, metric, rows, means):
    lines = []
    for row in rows:
        cells = result["summary"]["rows"][row["name"]]
        if metric not in row["counts"] or metric not in cells.get(BASELINE, {}):
            continue
        ratios = [cells[peer][metric]["ratio"] for peer in others
                  if "ratio" in cells.get(peer, {}).get(metric, {})]
        least = min(ratios + [1.0])
        row_cells = "".join(_cell(cells.get(peer, {}).get(metric), least) for peer in others)
        lines.append(f'<tr><td title="{escape(row["about"])}">{escape(row["name"])}</td>'
                     f"<td>{amount(metric, cells[BASELINE][metric]['median'])}</td>"
                     f"{row_cells}</tr>")
    if not lines:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in ["", BASELINE, *others])
    return (f"<h3>{TITLES[metric]}</h3><div class=\"wide\"><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody>"
            f"{_mean_rows(result['summary'][means][metric], others)}</table></div>")


def figures(plots):
    return '<div class="grid-of">' + "".join(
        f"<figure><figcaption>{escape(caption)}</figcaption>{picture}</figure>"
        for caption, picture in plots) + "</div>"


def section(title, words, plots, legend=""):
    if not plots:
        return ""
    return f"<section><h2>{title}</h2><p>{words}</p>{legend}{figures(plots)}</section>"


def _tables(result, others):
    larger = [row for row in result["rows"] if row["group"] not in ("micro", "layers")]
    micro = [row for row in result["rows"] if row["group"] == "micro"]
    parts = [_table(result, others, metric, larger, "means") for metric in MAIN]
    parts.append(_table(result, others, "cpu", micro, "micro_means"))
    return (f"<section><h2>Figures</h2><p>{escape(LEGEND)} Green: least. Orange: more than 5 % "
            "above it. Grey with ~: undecided. Intervals and spreads appear under the mouse.</p>"
            f"{''.join(parts)}</section>")


def _plain(result, others):
    rows = [(row["name"], row["group"], row["counts"]) for row in result["rows"]]
    found = [figure_table(result["summary"], others), small_table(result["summary"], rows, others),
             layer_table(result["summary"], rows), "\n".join(notes(result))]
    return "".join(f"<pre>{escape(words)}</pre>" for words in found if words)


def _facts(result):
    settings = result["settings"]
    rounds = {event["round"] for event in result["events"] if event["event"] == "run"}
    versions = ", ".join(f"{name} ({about['version']})" if about.get("version") else name
                         for name, about in result["allocators"].items())
    words = [one_line(result["machine"]), result["machine"].get("system", ""),
             f"{len(rounds)} interleaved runs after a warm-up",
             "quick sizes" if settings["quick"] else "full sizes",
             f"pinned to CPU {settings['pin']}" if settings["pin"] else "",
             "" if result["complete"] else "stopped before the end", result["started"]]
    return (f'<p class="facts">{escape("; ".join(word for word in words if word))}</p>'
            f'<p class="facts">{escape(versions)}</p>')


def html(result):
    others = [name for name in result["allocators"] if name != BASELINE]
    look = charts.Look(result["allocators"])
    parts = [
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Allocators compared</title><style>{STYLE}</style></head><body>",
        f"<h1>Allocators compared</h1>{_facts(result)}{look.legend()}",
        section("On the whole", "Geometric means over all workloads and programs in which every "
                 "allocator took part, with 95 % intervals.", charts.means(result, look)),
        section("Time against memory", "Each at its median, relative to glibc, which is at 1, 1. "
                 "Left is faster, down is smaller.", charts.time_and_memory(result, look)),
        section("More threads", "Throughput; 1 is what glibc does with the fewest threads.",
                 charts.scaling(result, look)),
        section("Memory over time", "Resident memory of all processes, in a run that was watched "
                 "and not timed. Where several share pages, the sum of their proportional shares.", charts.over_time(result, look)),
        _tables(result, others),
        section("All runs", "One mark per run, the stroke is the median; relative to glibc's "
                 "median.", charts.distributions(result, look)),
        f"<section><h2>Also</h2>{_plain(result, others)}</section></body></html>\n",
    ]
    return "".join(parts)
