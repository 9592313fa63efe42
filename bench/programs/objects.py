"""What Python programs do all day, in one script: records, text, JSON, classes, growing buffers.

usage: objects.py SCALE
Prints one line with a checksum of everything it made, the same for every run of the same scale.
"""

import json
import re
import sys
import zlib
from collections import Counter, defaultdict, deque


class Numbers:
    """A generator of its own, so that no version of Python changes the work."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % n


class Node:
    def __init__(self, name, parent):
        self.name = name
        self.parent = parent
        self.children = []
        self.notes = {}


def records(numbers, count):
    rows = [{"id": i, "name": "user%d" % numbers.below(count), "tags": ["t%d" % numbers.below(50)
             for _ in range(numbers.below(6))], "text": "x" * numbers.below(800)}
            for i in range(count)]
    back = json.loads(json.dumps(rows))
    assert back == rows
    groups = defaultdict(list)
    for row in back:
        groups[row["name"]].append(row["id"])
    return sorted((name, sum(ids)) for name, ids in groups.items())


def text(numbers, count):
    words = ["w" * (1 + numbers.below(12)) + str(numbers.below(3000)) for _ in range(count)]
    page = " ".join(words)
    counted = Counter(page.split(" "))
    swapped = re.sub(r"w(\d+)", lambda m: "<" + m[1] + ">", page)
    lines = [swapped[i:i + 100].upper() for i in range(0, len(swapped), 100)]
    return sorted(counted.items())[:1000], zlib.crc32("\n".join(lines).encode())


def graph(numbers, count):
    nodes = [Node("root", None)]
    for i in range(count):
        parent = nodes[numbers.below(len(nodes))]
        node = Node("n%d" % i, parent)
        node.notes[i] = (i, str(i))
        parent.children.append(node)
        nodes.append(node)
    depth, queue, total = 0, deque([(nodes[0], 0)]), 0
    while queue:
        node, level = queue.popleft()
        depth = max(depth, level)
        total += len(node.notes) * level
        queue.extend((child, level + 1) for child in node.children)
    return depth, total


def buffers(numbers, count):
    kept = {}
    for i in range(count):
        data = bytearray()
        while len(data) < 200 + numbers.below(20000):
            data += b"%d," % numbers.below(1 << 30)
        kept[numbers.below(64)] = bytes(data)
    return zlib.crc32(b"".join(kept[key] for key in sorted(kept)))


def main():
    scale = int(sys.argv[1])
    made = []
    for round in range(scale):
        numbers = Numbers(round + 1)
        made.append([records(numbers, 1500), text(numbers, 12000), graph(numbers, 5000),
                     buffers(numbers, 60)])
    print("ok objects", format(zlib.crc32(json.dumps(made).encode()), "08x"))


main()
