"""From single runs to figures: per row and allocator, then geometric means over the rows."""

from . import stats
from .peers import BASELINE

METRICS = ["cpu", "wall", "user", "sys", "minflt", "peak_kb"]


def gather(events):
    """{row: {allocator: {metric: {round: value}}}} of all runs that count.

    A pair that failed or was refused at any time counts not at all: an allocator that corrupts one
    run in ten has no median.
    """
    bad = {(event["row"], event["allocator"]) for event in events
           if event["event"] in ("failed", "refused")}
    table = {}
    for event in events:
        if event["event"] != "run" or (event["row"], event["allocator"]) in bad:
            continue
        cell = table.setdefault(event["row"], {}).setdefault(event["allocator"], {})
        values = {metric: event[metric] for metric in METRICS}
        values.update(event.get("figures", {}))
        for metric, value in values.items():
            cell.setdefault(metric, {})[event["round"]] = value
    return table


def _pair(base, other):
    """Values of the rounds that both have: they ran side by side."""
    rounds = sorted(base.keys() & other.keys())
    return [base[i] for i in rounds], [other[i] for i in rounds]


def _cell(cell, base):
    result = {}
    for metric, runs in cell.items():
        values = list(runs.values())
        result[metric] = {"median": stats.median(values), "spread": round(stats.spread(values), 4),
                          "lowest": min(values), "highest": max(values), "runs": len(values)}
        if base is None or metric not in base:
            continue
        one, two = _pair(base[metric], runs)
        # a zero is shorter than the kernel's clock can tell: no ratio of it means anything
        if one and min(one) > 0 and min(two) > 0:
            result[metric].update(stats.compare(one, two))
    return result


def summarise(events, rows, allocators):
    """rows: [(name, group, counts)] in order; allocators: names, the baseline among them."""
    table = gather(events)
    result = {"rows": {}, "means": {}}
    for name, _, _ in rows:
        cells = table.get(name, {})
        base = cells.get(BASELINE)
        result["rows"][name] = {peer: _cell(cells[peer], None if peer == BASELINE else base)
                                for peer in allocators if peer in cells}
    for metric in ("cpu", "wall", "peak_kb"):
        result["means"][metric] = _means(table, rows, allocators, metric)
    return result


# an allocator that fails in more than this part of the rows has no mean
MOST_MISSING = 0.25


def _means(table, rows, allocators, metric):
    """Only rows in which every allocator took part: otherwise each would have another mean. One
    that fails all over would leave nothing to compare; it is left out itself."""
    counting = [name for name, _, counts in rows
                if metric in counts and BASELINE in table.get(name, {})]
    present = [peer for peer in allocators
               if sum(peer not in table[name] for name in counting) <= MOST_MISSING * len(counting)]
    shared = [name for name in counting if all(peer in table[name] for peer in present)]
    means = {"rows": shared, "allocators": {}, "best": None,
             "left_out": [name for name in counting if name not in shared]}
    if not shared:
        return means
    for peer in present:
        if peer == BASELINE:
            continue
        pairs = [_pair(table[name][BASELINE][metric], table[name][peer][metric]) for name in shared]
        pairs = [(one, two) for one, two in pairs if one and min(one) > 0 and min(two) > 0]
        if pairs:
            means["allocators"][peer] = stats.compare_means(pairs)
    # the baseline is a peer as well: its ratio is 1 by definition
    rivals = {peer: mean["ratio"] for peer, mean in means["allocators"].items() if peer != "quire"}
    rivals[BASELINE] = 1.0
    means["best"] = min(rivals, key=rivals.get)
    if "quire" in means["allocators"]:
        means["quire_to_best"] = means["allocators"]["quire"]["ratio"] / rivals[means["best"]]
    return means
