#!/usr/bin/env python3
"""Tests of tools/testlog.py, which counts what `meson test` ran."""
import json
import os
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import tap  # noqa: E402

TESTLOG = os.path.abspath(sys.argv[1])


def report(tests, parts=None, said=""):
    """(exit status, output) for a log of {name: result} and {name: [part results]}."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "testlog.json"), "w", encoding="utf-8") as log:
            for name, result in tests.items():
                print(json.dumps({"name": f"quire:unit / {name}", "result": result,
                                  "duration": 1.5, "stdout": said}), file=log)
        with open(os.path.join(folder, "testlog.junit.xml"), "w", encoding="utf-8") as log:
            log.write("<testsuites><testsuite name='quire'><testcase name='x'/></testsuite>")
            for name, results in (parts or {}).items():
                log.write(f"<testsuite name='quire.quire:unit / {name}'>")
                for result in results:
                    inner = "" if result == "passed" else f"<{result}/>"
                    log.write(f"<testcase name='part'>{inner}</testcase>")
                log.write("</testsuite>")
            log.write("</testsuites>")
        done = subprocess.run([sys.executable, TESTLOG, folder], capture_output=True, text=True,
                              check=False)
        return done.returncode, done.stdout


def count(tests, parts=None):
    """(exit status, last line)"""
    status, output = report(tests, parts)
    return status, output.splitlines(True)[-1]


def test_programs_count_as_one():
    assert count({"a": "OK", "b": "SKIP"}) == (0, "1 passed, 0 failed, 1 skipped\n")
    assert count({"a": "OK", "b": "FAIL"}) == (1, "1 passed, 1 failed, 0 skipped\n")
    assert count({"a": "TIMEOUT", "b": "ERROR"}) == (1, "0 passed, 2 failed, 0 skipped\n")


def test_parts_count_one_by_one():
    parts = {"a": ["passed", "passed", "skipped"]}
    assert count({"a": "OK", "b": "OK"}, parts) == (0, "3 passed, 0 failed, 1 skipped\n")
    parts = {"a": ["passed", "failure", "error"]}
    assert count({"a": "FAIL"}, parts) == (1, "1 passed, 2 failed, 0 skipped\n")


def test_a_crash_after_the_parts_counts():
    assert count({"a": "ERROR"}, {"a": ["passed"]}) == (1, "1 passed, 1 failed, 0 skipped\n")


def test_failures_are_said_again():
    _, output = report({"a": "OK", "b": "FAIL"}, {"b": ["passed", "failure"]}, "ok 1\nnot ok 2: why")
    assert "failed: quire:unit / b" in output and "part: part" in output
    assert "not ok 2: why" in output and "ok 1" not in output and "unit / a" not in output


def test_nothing_ran_is_a_failure():
    assert count({}) == (1, "0 passed, 0 failed, 0 skipped\n")


if __name__ == "__main__":
    tap.run([value for name, value in list(globals().items()) if name.startswith("test_")])
