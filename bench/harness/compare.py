"""What has changed from one result to another."""

from . import stats, summary
from .peers import BASELINE

NAMES = {"cpu": "CPU time", "wall": "elapsed", "peak_kb": "peak memory"}


def differences(before, after):
    """Lines on what makes the two hard to compare, or explains a change."""
    lines = []
    if before.get("bench") != after.get("bench"):
        lines.append("the benchmark itself has changed: rows may do other work")
    for fact in sorted(before["machine"].keys() | after["machine"].keys()):
        old, new = before["machine"].get(fact), after["machine"].get(fact)
        if old != new and fact != "load":
            lines.append(f"machine: {fact} was {old}, is {new}")
    for name in before["settings"].keys() | after["settings"].keys():
        old, new = before["settings"].get(name), after["settings"].get(name)
        if old != new:
            lines.append(f"settings: {name} was {old}, is {new}")
    for name, about in before["allocators"].items():
        now = after["allocators"].get(name)
        if now and about.get("sha256") != now.get("sha256"):
            lines.append(f"{name} is another file: {about.get('version', '')} "
                         f"{about['sha256'][:12]}, now {now.get('version', '')} "
                         f"{now['sha256'][:12]}")
    versions = {row["name"]: row["version"] for row in before["rows"]}
    for row in after["rows"]:
        if row["name"] in versions and versions[row["name"]] != row["version"]:
            lines.append(f"{row['name']}: was {versions[row['name']]}, is {row['version']}")
    return sorted(lines)


def changes(before, after):
    """[{row, allocator, metric, ratio, ..., relative}] of every cell that both results have.

    ratio: medians, after / before. relative: the same of the ratios to the baseline in each result,
    which takes out what has changed for all, such as the machine; None for the baseline itself.
    """
    old, new = summary.gather(before["events"]), summary.gather(after["events"])
    found = []
    for row in after["rows"]:
        name = row["name"]
        for allocator in new.get(name, {}):
            if allocator not in old.get(name, {}):
                continue
            for metric in row["counts"]:
                one = _values(old, name, allocator, metric)
                two = _values(new, name, allocator, metric)
                if not one or not two or min(one) <= 0 or min(two) <= 0:
                    continue
                found.append({"row": name, "allocator": allocator, "metric": metric,
                              "relative": _relative(old, new, name, allocator, metric),
                              **stats.compare_apart(one, two)})
    return found


def _values(table, row, allocator, metric):
    return list(table[row][allocator].get(metric, {}).values())


def _relative(old, new, row, allocator, metric):
    if allocator == BASELINE:
        return None
    ratios = []
    for table in (old, new):
        base = table[row].get(BASELINE)
        pair = summary.paired(base[metric], table[row][allocator][metric]) \
            if base and metric in base else ([], [])
        if not pair[0]:
            return None
        ratios.append(stats.ratio_of(*pair))
    return ratios[1] / ratios[0]


def _line(change):
    relative = f"{change['relative']:8.3f}" if change["relative"] else "        "
    return (f"{change['row']:<24}{change['allocator']:<12}{NAMES[change['metric']]:<13}"
            f"{change['ratio']:7.3f}  [{change['low']:.3f}, {change['high']:.3f}]{relative}")


def _means(found):
    """Geometric means of all changes of an allocator in a metric, undecided ones too."""
    lines = []
    for metric, title in NAMES.items():
        for allocator in dict.fromkeys(change["allocator"] for change in found):
            some = [change for change in found
                    if (change["allocator"], change["metric"]) == (allocator, metric)]
            relative = [change["relative"] for change in some if change["relative"]]
            if some:
                mean = stats.geometric_mean([change["ratio"] for change in some])
                against = f"{stats.geometric_mean(relative):8.3f}" if relative else "        "
                lines.append(f"{'all ' + str(len(some)):<24}{allocator:<12}{title:<13}{mean:7.3f}"
                             f"{'':>16}{against}")
    return lines


def text(before, after):
    found = changes(before, after)
    lines = [f"from {before['started']} to {after['started']}", *differences(before, after), ""]
    if not found:
        return "\n".join([*lines, "the two results have nothing in common"])
    lines.append("after / before, medians; its 95 % interval; and the same relative to "
                 f"{BASELINE} in each result")
    decided = [change for change in found if not change["undecided"]]
    lines += [_line(change) for change in sorted(decided, key=lambda c: c["ratio"])]
    if not decided:
        lines.append("no row has changed by more than its runs differ")
    undecided = len(found) - len(decided)
    lines += ["", f"undecided: {undecided} of {len(found)}", "", "geometric means", *_means(found)]
    return "\n".join(lines)
