"""From single runs to figures: per row and allocator, then geometric means over the rows."""

from . import stats
from .peers import BASELINE, SUBJECT

METRICS = ["cpu", "wall", "user", "sys", "minflt", "majflt", "nvcsw", "nivcsw", "peak_kb"]
# what the report is about: ratios of these have confidence intervals
MAIN = ("cpu", "wall", "peak_kb")

# groups whose rows enter no mean: one allocator alone, or a machine that is invented
NO_MEAN = ("layers", "numa")

# an allocator that fails in more than this part of the rows has no mean
MOST_MISSING = 0.25


def gather(events):
    """{row: {allocator: {metric: {round: value}}}} of all runs that count.

    A pair that failed or was refused at any time counts not at all: an allocator that corrupts one
    run in ten has no median. What a watched run saw stands as its round 0.
    """
    bad = {(event["row"], event["allocator"]) for event in events
           if event["event"] in ("failed", "refused")}
    table = {}
    for event in events:
        pair = (event["row"], event["allocator"])
        if event["event"] == "run" and pair not in bad:
            number = event["round"]
            values = {metric: event[metric] for metric in METRICS if metric in event}
            values.update(event.get("figures", {}))
        elif event["event"] == "watch" and pair not in bad:
            number = 0
            values = {"pss_kb": event["peak_pss_kb"]}
        else:
            continue
        cell = table.setdefault(pair[0], {}).setdefault(pair[1], {})
        for metric, value in values.items():
            cell.setdefault(metric, {})[number] = value
    # watched, then stopped before the first counted run
    return {row: cells for row, cells in (
        (row, {peer: cell for peer, cell in cells.items() if cell.keys() != {"pss_kb"}})
        for row, cells in table.items()) if cells}


def paired(base, other):
    """Values of the rounds that both have: they ran side by side. Empty lists where a ratio would
    mean nothing: a zero is shorter than the kernel's clock can tell."""
    rounds = sorted(base.keys() & other.keys())
    one, two = [base[i] for i in rounds], [other[i] for i in rounds]
    return (one, two) if one and min(one) > 0 and min(two) > 0 else ([], [])


def _cell(cell, base):
    result = {}
    for metric, runs in cell.items():
        values = list(runs.values())
        result[metric] = {"median": stats.median(values), "spread": round(stats.spread(values), 4),
                          "lowest": min(values), "highest": max(values), "runs": len(values)}
        if base is None or metric not in base:
            continue
        one, two = paired(base[metric], runs)
        if one and metric in MAIN:
            result[metric].update(stats.compare(one, two))
        elif one:
            result[metric]["ratio"] = stats.ratio_of(one, two)
    return result


def best_peer(cells, metric):
    """The allocator with the least median, ours left aside; None where there is none."""
    medians = {peer: stats.median(list(cell[metric].values())) for peer, cell in cells.items()
               if peer != SUBJECT and metric in cell}
    return min(medians, key=medians.get) if medians else None


def _against_best(cells, found):
    """Adds to the cells of one row what they are relative to the best peer in it."""
    for metric in MAIN:
        best = best_peer(cells, metric)
        for peer in found if best else ():
            if metric not in cells[peer] or peer == best:
                continue
            one, two = paired(cells[best][metric], cells[peer][metric])
            if one:
                found[peer][metric]["to_best"] = {"peer": best, **stats.compare(one, two)}


def summarise(events, rows, allocators):
    """rows: [(name, group, counts)] in order; allocators: names, the baseline among them."""
    table = gather(events)
    result = {"rows": {}, "means": {}, "micro_means": {}}
    for name, _, _ in rows:
        cells = table.get(name, {})
        base = cells.get(BASELINE)
        found = {peer: _cell(cells[peer], None if peer == BASELINE else base)
                 for peer in allocators if peer in cells}
        _against_best(cells, found)
        result["rows"][name] = found
    micro = [row for row in rows if row[1] == "micro"]
    others = [row for row in rows if row[1] not in ("micro", *NO_MEAN)]
    for metric in MAIN:
        result["means"][metric] = _means(table, others, allocators, metric)
        result["micro_means"][metric] = _means(table, micro, allocators, metric)
    return result


def _means(table, rows, allocators, metric):
    """Only rows in which every allocator took part: otherwise each would have another mean. One
    that fails all over would leave nothing to compare; it is left out itself."""
    counting = [name for name, _, counts in rows
                if metric in counts and BASELINE in table.get(name, {})]
    present = [peer for peer in allocators
               if sum(peer not in table[name] for name in counting) <= MOST_MISSING * len(counting)]
    shared = [name for name in counting if all(peer in table[name] for peer in present)]
    means = {"rows": shared, "allocators": {}, "to_best": {}, "best": None,
             "left_out": [name for name in counting if name not in shared]}
    if not shared:
        return means
    for peer in present:
        if peer != BASELINE:
            _mean(means["allocators"], peer, metric,
                  [(table[name][BASELINE], table[name][peer]) for name in shared])
        _mean(means["to_best"], peer, metric,
              [(table[name][best_peer(table[name], metric)], table[name][peer])
               for name in shared])
    # the baseline is a peer as well: its ratio is 1 by definition
    rivals = {peer: mean["ratio"] for peer, mean in means["allocators"].items() if peer != SUBJECT}
    rivals[BASELINE] = 1.0
    means["best"] = min(rivals, key=rivals.get)
    if SUBJECT in means["allocators"]:
        means["subject_to_best"] = means["allocators"][SUBJECT]["ratio"] / rivals[means["best"]]
    return means


def _mean(means, peer, metric, cells):
    pairs = [paired(base[metric], other[metric]) for base, other in cells
             if metric in base and metric in other]
    pairs = [pair for pair in pairs if pair[0]]
    if pairs:
        means[peer] = stats.compare_means(pairs)
