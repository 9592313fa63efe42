"""Result files: written event by event, read again to go on, to show, to compare.

STEM.jsonl holds one JSON object a line as things happen, the head first; STEM.json the same and the
summary, at the end; STEM.html the report.
"""

import json
import os
import time

FORMAT = 2


class ResultError(Exception):
    """Not a result, or none that fits; the text says why."""


class Keeper:
    """Every event goes to the file at once, so that nothing is lost by a crash."""

    def __init__(self, stem, head, events=()):
        self.stem = stem
        self.head = head
        self.events = list(events)
        os.makedirs(os.path.dirname(stem), exist_ok=True)
        # written anew where it goes on: its last line may be half of one
        self.file = open(stem + ".jsonl", "w")
        for record in [head, *self.events]:
            self._write(record)

    def _write(self, record):
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()

    def keep(self, event):
        self.events.append(event)
        self._write(event)

    def finish(self, result):
        self.file.close()
        # never half a result under its name
        with open(self.stem + ".json.new", "w") as file:
            json.dump(result, file)
            file.write("\n")
        os.rename(self.stem + ".json.new", self.stem + ".json")
        return self.stem + ".json"


def new_stem(folder):
    """A name that is free, by date and time."""
    stem = name = os.path.join(folder, time.strftime("%Y%m%d-%H%M%S"))
    number = 2
    while os.path.exists(name + ".jsonl"):
        name = f"{stem}-{number}"
        number += 1
    return name


def _check_head(head, path):
    if not isinstance(head, dict) or "format" not in head or "settings" not in head:
        raise ResultError(f"{path} is not a result of this benchmark")
    if head["format"] != FORMAT:
        raise ResultError(f"{path} has format {head['format']}; this benchmark reads {FORMAT}")


def load(path):
    """A finished result, or one that was stopped, with its summary."""
    try:
        with open(path) as file:
            result = json.load(file)
    except (OSError, ValueError) as reason:
        raise ResultError(f"{path} is not a result: {reason}") from None
    _check_head(result, path)
    if "events" not in result or "summary" not in result:
        raise ResultError(f"{path} has no summary: finish it with --resume")
    return result


def load_lines(path):
    """(stem, head, events) of STEM.jsonl, given that or STEM.json. A line cut short by a crash ends
    the file."""
    stem = path.removesuffix(".jsonl").removesuffix(".json")
    records = []
    try:
        with open(stem + ".jsonl") as file:
            for line in file:
                if not line.endswith("\n"):
                    break
                records.append(json.loads(line))
    except OSError as reason:
        raise ResultError(f"{path} cannot be gone on with: {reason}") from None
    except ValueError:
        raise ResultError(f"{stem}.jsonl is damaged after line {len(records)}") from None
    if not records:
        raise ResultError(f"{stem}.jsonl is empty")
    _check_head(records[0], path)
    return stem, records[0], records[1:]


# facts of the machine that must be the same for runs to be put together
SAME = ["kernel", "architecture", "processor", "processors", "memory_kb", "libc", "huge_pages"]


def check_same(head, now):
    """Raises ResultError unless `now` (a head) is of the same machine, allocators and rows."""
    if head.get("bench") != now.get("bench"):
        raise ResultError("the benchmark itself has changed since it was begun")
    for fact in SAME:
        if head["machine"].get(fact) != now["machine"].get(fact):
            raise ResultError(f"it was begun with {fact} {head['machine'].get(fact)}, and now that "
                              f"is {now['machine'].get(fact)}")
    for name, about in head["allocators"].items():
        if name not in now["allocators"]:
            raise ResultError(f"it was begun with {name}, which is not there now")
        if about.get("sha256") != now["allocators"][name].get("sha256"):
            raise ResultError(f"{name} is not the file it was begun with")
    versions = {row["name"]: row.get("version") for row in now["rows"]}
    for row in head["rows"]:
        if row["name"] not in versions:
            raise ResultError(f"it was begun with {row['name']}, which cannot run now")
        if row.get("version") != versions[row["name"]]:
            raise ResultError(f"{row['name']} is now {versions[row['name']]}, and was "
                              f"{row.get('version')}")
