#!/usr/bin/env python3
"""Does the benchmark reckon right, and tell all? usage: figures.py BUILD [unittest options]

Statistics, summary, the order of runs, stopping and going on, comparing two results, the report:
with rows that only pretend to run. The last part runs the real thing once, on the smallest row.
"""

import contextlib
import html.parser
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

BENCH = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
sys.path.insert(0, BENCH)

from harness import catalog, compare, micro, page, prove, report, results  # noqa: E402
from harness import stats, summary, svg  # noqa: E402
from harness.peers import Peer  # noqa: E402
from harness.process import RunError  # noqa: E402
from harness.rows import TIME_AND_MEMORY, Row  # noqa: E402
from harness.schedule import Schedule  # noqa: E402

BUILD = ""


class Figures(unittest.TestCase):
    def test_median_and_spread(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
        self.assertEqual(stats.median([4, 1, 2, 3]), 2.5)
        self.assertEqual(stats.quantile([0, 10], 0.25), 2.5)
        self.assertAlmostEqual(stats.spread([9, 10, 12]), 0.3)
        self.assertAlmostEqual(stats.spread([10] * 8 + [1, 99]), 0)
        self.assertAlmostEqual(stats.geometric_mean([2, 8]), 4)

    def test_clear_difference_is_decided(self):
        found = stats.compare([10, 10.1, 9.9, 10, 10], [5, 5.1, 4.9, 5, 5])
        self.assertAlmostEqual(found["ratio"], 0.5)
        self.assertFalse(found["undecided"])
        self.assertTrue(found["low"] <= 0.5 <= found["high"] < 1)

    def test_difference_within_the_spread_is_undecided(self):
        self.assertTrue(stats.compare([10, 14, 8, 12, 9], [9, 13, 8, 11, 9])["undecided"])

    def test_difference_below_the_spread_alone_is_undecided(self):
        # the machine swings, both with it: the interval is narrow and does not include 1
        base = [10, 14, 8, 12, 9, 13]
        found = stats.compare(base, [0.97 * value for value in base])
        self.assertLess(found["high"], 1)
        self.assertTrue(found["undecided"])

    def test_interval_over_1_alone_is_undecided(self):
        # the middle half of the runs does not differ at all, one of five is far off
        found = stats.compare([10] * 5, [8, 8, 8, 8, 11])
        self.assertEqual(found["spread"], 0)
        self.assertTrue(found["undecided"])

    def test_one_run_decides_nothing(self):
        self.assertTrue(stats.compare([10], [5])["undecided"])

    rows = ["one", "two", "three", "four", "five"]
    factors = {"glibc": 1, "fast": 0.5, "bad": 0.1, "worse": 0.2}

    def events(self):
        cost = {"wall": 1, "cpu": 1, "user": 1, "sys": 0, "minflt": 9, "peak_kb": 100}
        for row in self.rows:
            for number in range(3):
                for allocator, factor in self.factors.items():
                    yield {"event": "run", "row": row, "allocator": allocator, "round": number,
                           **{name: value * factor for name, value in cost.items()}}
        yield {"event": "failed", "row": "two", "allocator": "bad", "reason": "corrupt"}
        for row in ("one", "two"):
            yield {"event": "refused", "row": row, "allocator": "worse", "reason": "not live"}

    def test_an_allocator_that_failed_does_not_count(self):
        rows = [(name, "workload", ["cpu", "wall", "peak_kb"]) for name in self.rows]
        names = ["glibc", "fast", "bad", "worse"]
        found = summary.summarise(list(self.events()), rows, names)
        self.assertNotIn("bad", found["rows"]["two"])
        self.assertIn("bad", found["rows"]["one"])
        means = found["means"]["cpu"]
        # the mean is over rows that all took part in, and says which were left out
        self.assertEqual((means["rows"], means["left_out"]),
                         (["one", "three", "four", "five"], ["two"]))
        self.assertAlmostEqual(means["allocators"]["fast"]["ratio"], 0.5)
        # too many failures: no mean for it, and the others do not lose rows by it
        self.assertNotIn("worse", means["allocators"])
        self.assertEqual(means["best"], "bad")
        table = report.metric_table(found, rows, names[1:], "cpu")
        self.assertIn("not in the mean, as not all took part: two", table)
        self.assertEqual(json.loads(json.dumps(found)), found)

    def test_best_peer_of_each_row(self):
        rows = [(name, "workload", ["cpu"]) for name in self.rows]
        found = summary.summarise(list(self.events()), rows, ["glibc", "fast", "bad"])
        # bad is best where it counts, fast where bad has failed, glibc nowhere
        one, two = (found["rows"][name]["glibc"]["cpu"]["to_best"] for name in ("one", "two"))
        self.assertEqual((one["peer"], two["peer"]), ("bad", "fast"))
        self.assertAlmostEqual(one["ratio"], 10)
        self.assertAlmostEqual(two["ratio"], 2)

    def test_ours_is_nobodys_best_peer(self):
        events = [{"event": "run", "row": "r", "allocator": name, "round": 0, "cpu": value}
                  for name, value in (("glibc", 2.0), ("quire", 1.0))]
        found = summary.summarise(events, [("r", "workload", ["cpu"])], ["glibc", "quire"])
        self.assertEqual(found["rows"]["r"]["quire"]["cpu"]["to_best"]["peer"], "glibc")
        self.assertAlmostEqual(found["means"]["cpu"]["to_best"]["quire"]["ratio"], 0.5)

    def test_apart_is_undecided_where_the_runs_overlap(self):
        self.assertTrue(stats.compare_apart([10, 12, 11, 9], [11, 10, 12])["undecided"])
        found = stats.compare_apart([10, 10.1, 9.9, 10], [8, 8.1, 7.9])
        self.assertFalse(found["undecided"])
        self.assertAlmostEqual(found["ratio"], 0.8)

    def test_interval_covers_the_truth(self):
        # 100 draws of two equal allocators: about 95 intervals include 1
        covered = 0
        draw = stats.Resampler(3).random
        for _ in range(100):
            base, other = ([draw.gauss(10, 0.2) for _ in range(10)] for _ in range(2))
            found = stats.compare(base, other)
            covered += found["low"] <= 1 <= found["high"]
        self.assertGreater(covered, 85)


class Pretended(Row):
    """A row that takes no time; what it answers and costs is the test's to say."""

    group = "workload"
    counts = TIME_AND_MEMORY

    def __init__(self, name, log):
        super().__init__(name, "pretended")
        self.log = log
        self.stop_after = None
        self.wrong = set()

    def run(self, place, variables):
        who = variables.get("WHO", "glibc")
        self.log.append((self.name, who))
        if self.stop_after is not None and len(self.log) > self.stop_after:
            raise KeyboardInterrupt
        cpu = {"glibc": 2.0, "quire": 1.0, "slow": 4.0}[who]
        answer = "other" if who in self.wrong else "right"
        return {"cpu": cpu, "wall": cpu, "user": cpu, "sys": 0.0, "minflt": 5, "peak_kb": 100,
                "watch": {"peak_rss_kb": 9, "peak_pss_kb": 8, "samples": [[0, 1, 1]]}}, answer


class PretendedPlace:
    def __init__(self, folder):
        self.folder = folder
        self.watching = False

    def scratch(self, name):
        return os.path.join(self.folder, name)


class InFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="quire-selftest-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name


class Order(InFolder):
    def setUp(self):
        super().setUp()
        self.log, self.events = [], []
        self.rows = [Pretended(name, self.log) for name in ("one", "two")]
        self.allocators = {name: Peer(name, env={"WHO": name} if name != "glibc" else {})
                           for name in ("glibc", "quire", "slow")}
        # nothing is started, so there is nothing to prove
        checked = prove.check
        prove.check = lambda found, path: {"processes": 1, "bindings": 1}
        self.addCleanup(setattr, prove, "check", checked)

    def schedule(self, runs=3, done=(), budget=None):
        return Schedule(PretendedPlace(self.folder), self.rows, self.allocators, runs, False,
                        self.events.append, budget=budget, done=done)

    def execute(self, schedule):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            schedule.execute()
        return said.getvalue()

    def counted(self):
        return [(e["row"], e["allocator"], e["round"]) for e in self.events if e["event"] == "run"]

    def test_interleaved(self):
        self.execute(self.schedule())
        runs = self.counted()
        self.assertEqual(len(runs), 18)
        # each three in a row are one row, one round, three allocators
        for first in range(0, 18, 3):
            some = runs[first:first + 3]
            self.assertEqual(len({(row, number) for row, _, number in some}), 1)
            self.assertEqual({name for _, name, _ in some}, set(self.allocators))
        orders = {tuple(name for _, name, _ in runs[i:i + 3]) for i in range(0, 18, 3)}
        self.assertGreater(len(orders), 1)

    def test_stopped_and_resumed_is_the_same_as_in_one_go(self):
        self.execute(self.schedule())
        whole = self.counted()
        for stop in (0, 3, 7, 13, 20):
            self.events.clear()
            self.log.clear()
            self.rows[0].stop_after = self.rows[1].stop_after = stop
            with self.assertRaises(KeyboardInterrupt):
                self.execute(self.schedule())
            self.rows[0].stop_after = self.rows[1].stop_after = None
            self.execute(self.schedule(done=list(self.events)))
            self.assertEqual(self.counted(), whole, f"stopped after {stop}")

    def test_resumed_runs_nothing_that_is_done(self):
        self.execute(self.schedule())
        self.log.clear()
        self.execute(self.schedule(done=list(self.events)))
        self.assertEqual(self.log, [])

    def test_another_answer_fails_even_after_resuming(self):
        self.rows[1].wrong = {"slow"}
        schedule = self.schedule()
        self.assertIn("answer differs", self.execute(schedule))
        self.assertEqual(schedule.faults, 1)
        self.assertNotIn(("two", "slow", 0), self.counted())
        first = [event for event in self.events if event["allocator"] != "slow"][:1]
        self.events.clear()
        # the answer that counts is the one from before the stop
        first[0]["answer"] = "quite another"
        self.assertIn("answer differs", self.execute(self.schedule(done=first)))

    def test_not_live_is_refused(self):
        def check(found, path):
            raise prove.Refused("malloc is bound to something else")
        prove.check = check
        schedule = self.schedule()
        self.execute(schedule)
        self.assertEqual(self.counted(), [])
        self.assertEqual(schedule.faults, 6)
        self.assertEqual({event["event"] for event in self.events}, {"refused"})

    def test_changed_library_is_refused(self):
        path = os.path.join(self.folder, "lib")
        self.allocators["slow"].path = path
        schedule = self.schedule()
        said = self.execute(schedule)
        self.assertEqual(said.count("has changed since it was proven"), 0)
        with open(path, "w") as file:
            file.write("another")
        self.events.clear()
        said = self.execute(self.schedule())
        self.assertEqual(said.count("has changed since it was proven"), 2)

    def test_budget(self):
        self.assertIn("stopped after 1 rounds", self.execute(self.schedule(budget=-1)))
        self.assertEqual({number for _, _, number in self.counted()}, {0})


def result_of(factors, runs=4, rows=("one", "two")):
    """A finished result with costs by allocator."""
    events = []
    for row in rows:
        for name, factor in factors.items():
            events.append({"event": "watch", "row": row, "allocator": name, "peak_rss_kb": 9,
                           "peak_pss_kb": 7, "samples": [[0.1, 5, 4], [0.2, 9, 7], [0.3, 6, 5]]})
            for number in range(runs):
                value = factor * (1 + number / 1000)
                events.append({"event": "run", "row": row, "allocator": name, "round": number,
                               "cpu": value, "wall": value, "user": value, "sys": value,
                               "minflt": 7, "majflt": 0, "nvcsw": 1, "nivcsw": 1,
                               "peak_kb": 1000 * factor})
    shape = [(row, "workload", sorted(TIME_AND_MEMORY)) for row in rows]
    return {"format": results.FORMAT, "started": "2026-01-01", "ended": "2026-01-02",
            "complete": True, "machine": {"architecture": "x86_64", "processors": 2, "kernel": "6"},
            "settings": {"runs": runs, "quick": False, "pin": None, "extra": [], "env": []},
            "allocators": {name: {"sha256": "a" * 64} for name in factors},
            "rows": [{"name": row, "group": "workload", "about": "<a & b>", "family": "f",
                      "threads": i + 1, "counts": sorted(TIME_AND_MEMORY), "version": None}
                     for i, row in enumerate(rows)],
            "skipped_rows": {}, "absent": [], "events": events,
            "summary": summary.summarise(events, shape, list(factors))}


class Compare(unittest.TestCase):
    def test_change_is_found(self):
        before = result_of({"glibc": 1.0, "quire": 0.8})
        after = result_of({"glibc": 1.0, "quire": 0.6})
        after["allocators"]["quire"]["sha256"] = "b" * 64
        found = {(c["row"], c["allocator"], c["metric"]): c for c in compare.changes(before, after)}
        self.assertAlmostEqual(found["one", "quire", "cpu"]["ratio"], 0.75)
        self.assertFalse(found["one", "quire", "cpu"]["undecided"])
        self.assertTrue(found["one", "glibc", "cpu"]["undecided"])
        said = compare.text(before, after)
        self.assertIn("quire is another file", said)
        self.assertRegex(said, r"one +quire +CPU time +0\.750")
        self.assertNotRegex(said, r"one +glibc")

    def test_a_slower_machine_is_taken_out(self):
        before = result_of({"glibc": 1.0, "quire": 0.8})
        after = result_of({"glibc": 2.0, "quire": 1.6})
        found = [c for c in compare.changes(before, after) if c["allocator"] == "quire"]
        for change in found:
            self.assertAlmostEqual(change["ratio"], 2)
            self.assertAlmostEqual(change["relative"], 1)

    def test_nothing_in_common(self):
        said = compare.text(result_of({"glibc": 1.0}), result_of({"glibc": 1.0}, rows=("x",)))
        self.assertIn("nothing in common", said)


class Files(InFolder):
    def test_lines_survive_a_crash(self):
        stem = os.path.join(self.folder, "r")
        head = {key: value for key, value in result_of({"glibc": 1.0}).items() if key != "events"}
        keeper = results.Keeper(stem, head)
        for number in range(3):
            keeper.keep({"event": "run", "number": number})
        with open(stem + ".jsonl", "a") as file:
            file.write('{"event": "ru')
        keeper.file.close()
        for path in (stem + ".json", stem + ".jsonl"):
            found, head_found, events = results.load_lines(path)
            self.assertEqual((found, head_found), (stem, head))
            self.assertEqual([event["number"] for event in events], [0, 1, 2])

    def test_not_a_result(self):
        for content in ("", "hello", "{}", "[1]", '{"format": 1, "settings": {}}'):
            path = os.path.join(self.folder, "x.json")
            for name in (path, path + "l"):
                with open(name, "w") as file:
                    file.write(content and content + "\n")
            for read in (results.load, results.load_lines):
                with self.assertRaises(results.ResultError, msg=content):
                    read(path)

    def test_other_machine_or_library_is_not_gone_on_with(self):
        head = result_of({"glibc": 1.0, "quire": 1.0})
        results.check_same(head, result_of({"glibc": 1.0, "quire": 1.0}))
        for spoil in (lambda now: now["machine"].update(kernel="7"),
                      lambda now: now.update(bench="changed"),
                      lambda now: now["allocators"]["quire"].update(sha256="b"),
                      lambda now: now["allocators"].pop("quire"),
                      lambda now: now["rows"].pop(),
                      lambda now: now["rows"][0].update(version="2")):
            now = result_of({"glibc": 1.0, "quire": 1.0})
            spoil(now)
            with self.assertRaises(results.ResultError):
                results.check_same(head, now)


class Closed(html.parser.HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = {"meta", "br"}

    def __init__(self):
        super().__init__()
        self.open = []
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> within {self.open[-3:]}"
        self.open.pop()


class Page(unittest.TestCase):
    def test_holds_everything_itself(self):
        text = page.html(result_of({"glibc": 1.0, "quire": 0.5, "other": 1.7}))
        parser = Closed()
        parser.feed(text)
        self.assertEqual(parser.open, [])
        self.assertNotRegex(text, r"(src|href)=|url\(|@import|<script")
        self.assertIn("&lt;a &amp; b&gt;", text)
        self.assertNotIn("<a & b>", text)
        for title in ("Time against memory", "More threads", "Memory over time", "All runs"):
            self.assertIn(title, text)
        self.assertNotIn("nan", re.sub("<[^>]*>", "", text))

    def test_survives_an_empty_result(self):
        for factors in ({"glibc": 1.0}, {"glibc": 1.0, "quire": 1.0}):
            for runs in (0, 1):
                result = result_of(factors, runs=runs)
                page.html(result)
                report.text(result, True)

    def test_ticks(self):
        for low, high in ((0.5, 2), (0.97, 1.02), (0.001, 500), (1, 1), (0.2, 3)):
            ticks = svg.Scale([low, high], log=True).ticks()
            self.assertTrue(1 <= len(ticks) <= 5, ticks)
            self.assertIn(1, ticks)
        for high in (0.003, 1, 7, 130, 99999):
            ticks = svg.Scale([high]).ticks()
            self.assertTrue(2 <= len(ticks) <= 6, ticks)


class Catalog(unittest.TestCase):
    def test_names_are_unique(self):
        names = [row.name for row in catalog.everything(BUILD)]
        self.assertEqual(len(names), len(set(names)))

    def test_select(self):
        rows = catalog.everything(BUILD)
        self.assertTrue(all(row.quick for row in catalog.select(rows, [], quick=True)))
        self.assertEqual([r.name for r in catalog.select(rows, ["cache"])], ["cache"])
        self.assertEqual({r.group for r in catalog.select(rows, ["numa"])}, {"numa"})
        with self.assertRaises(KeyError):
            catalog.select(rows, ["no such row"])

    def test_google_benchmark(self):
        said = json.dumps({"benchmarks": [{"time_unit": "us", "cpu_time": 2, "real_time": 3,
                                           "iterations": 5}]})
        found = micro.times(said)
        self.assertAlmostEqual(found["cpu"], 2e-6)
        self.assertAlmostEqual(found["wall"], 3e-6)
        for wrong in ("", "{}", '{"benchmarks": []}', "null"):
            with self.assertRaises(RunError):
                micro.times(wrong)


class RealThing(InFolder):
    def bench(self, *arguments):
        return subprocess.run([sys.executable, os.path.join(BENCH, "run.py"), "--build", BUILD,
                               "--results", self.folder, *arguments], capture_output=True,
                              text=True, timeout=120)

    def test_run_show_compare_resume(self):
        broken = os.path.join(BUILD, "bench", "selftest", "libbroken.so")
        done = self.bench("true", "trees-1", "--quick", "--runs", "1", "--peers", "broken",
                          "--peer", f"broken={broken}")
        # trees fails under it and is said to; the rest is there
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("FAILED: trees-1 under broken", done.stdout)
        path, = [os.path.join(self.folder, name) for name in os.listdir(self.folder)
                 if name.endswith(".json")]
        self.assertTrue(os.path.getsize(path.replace(".json", ".html")) > 1000)
        self.assertIn("true", self.bench("--show", path).stdout)
        self.assertIn("undecided", self.bench("--compare", path, path).stdout)
        again = self.bench("--resume", path)
        self.assertEqual(again.returncode, 1, again.stderr)
        self.assertIn("FAILED: trees-1 under broken", again.stdout)
        self.assertEqual(len(os.listdir(self.folder)), 3)

    def test_wrong_use_is_explained(self):
        for arguments, words in ((["nothing-of-that-name"], "there is no row"),
                                 (["snapshot"], "./dev bench snapshot"),
                                 (["--pin", "9999"], "there is no CPU"),
                                 (["--peer", "x=/no/such.so"], "there is no file"),
                                 (["--resume", "/no/such"], "cannot be gone on with"),
                                 (["--show", "/no/such"], "is not a result")):
            done = self.bench(*arguments)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: figures.py BUILD [unittest options]")
    BUILD = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
