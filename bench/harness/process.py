"""Runs one command under bench/measure and brings back what it cost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys


class RunError(Exception):
    """The run does not count: it failed, hung, or gave a wrong answer."""


# nothing of the caller's environment reaches a measured program
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "LC_ALL": "C",
    "PYTHONHASHSEED": "0",
    "PERL_HASH_SEED": "0",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_PAGER": "cat",
}


def find_program(name):
    """Where a measured program lies, on the path that it will be started with."""
    return shutil.which(name, path=ENVIRONMENT["PATH"])


def _last_words(errors):
    """The line of a program's complaint that says most: the last one that speaks of an error."""
    lines = errors.splitlines() or ["without a word"]
    telling = [line for line in lines if re.search("error|fatal|abort", line, re.IGNORECASE)]
    return (telling or lines)[-1][:200]


class Running:
    """A command that has been started under measure and not yet waited for."""

    def __init__(self, place, command, variables, stdin=None, options=(), user=None):
        self.report = os.path.join(place.work, "report.json")
        self.name = os.path.basename(command[0])
        settings = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
        options = [*options, *place.options(exact="-x" in options), *user_option(user)]
        arguments = [place.measure, *options, *settings, self.report, *command]
        environment = {**ENVIRONMENT, "HOME": place.work, "TMPDIR": place.work}
        self.output = open(os.path.join(place.work, "output"), "w+b")
        self.errors = open(os.path.join(place.work, "errors"), "w+b")
        source = open(stdin, "rb") if stdin else subprocess.DEVNULL
        try:
            # its own process group: a hung program dies with all its children
            self.process = subprocess.Popen(arguments, stdin=source, stdout=self.output,
                                            stderr=self.errors, env=environment, cwd=place.work,
                                            process_group=0)
        finally:
            if stdin:
                source.close()

    def kill(self):
        """measure itself ignores SIGTERM and waits for its program: in a container whose first
        process waits for nobody, killing both at once would leave the program a zombie."""
        for number, patience in ((signal.SIGTERM, 2), (signal.SIGKILL, None)):
            try:
                os.killpg(self.process.pid, number)
                self.process.wait(patience)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                self.process.wait()
                break
        self.output.close()
        self.errors.close()

    def last_words(self):
        """What it has complained of so far, or at the end."""
        try:
            with open(self.errors.name, errors="replace") as file:
                return _last_words(file.read().strip())
        except OSError:
            return "without a word"

    def finish(self, timeout):
        """Waits; returns (what measure reported, what the program printed)."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RunError(f"{self.name} did not end within {timeout:.0f} s") from None
        except BaseException:
            self.kill()
            raise
        self.output.seek(0)
        self.errors.seek(0)
        output = self.output.read()
        errors = self.errors.read().decode(errors="replace").strip()
        self.output.close()
        self.errors.close()
        status = self.process.returncode
        if status:
            said = _last_words(errors)
            if status > 128 and status - 128 in signal.valid_signals():
                raise RunError(f"{self.name} died of {signal.Signals(status - 128).name}: {said}")
            raise RunError(f"{self.name} ended with status {status}: {said}")
        with open(self.report) as file:
            cost = json.load(file)
        cost["cpu"] = round(cost["user"] + cost["sys"], 6)
        return cost, output


def run(place, command, variables, timeout, stdin=None, options=(), user=None):
    """Start and finish in one."""
    return Running(place, command, variables, stdin, options, user).finish(timeout)


def user_option(user):
    """Options of measure that make it run as that user; as nobody else where we are not root."""
    return ["-u", f"{user.pw_uid}:{user.pw_gid}"] if user and os.geteuid() == 0 else []


class Place:
    """Where a benchmark run has its programs and its scratch files."""

    def __init__(self, bench, build, work):
        self.bench = bench
        self.build = build
        self.work = work
        self.measure = os.path.join(build, "bench", "measure")
        self.ready = os.path.join(build, "bench", "ready")
        # CPUs that measured programs may use, "0" or "0,1"; all where it is None
        self.pin = None
        # look at memory over time: in runs whose times do not count
        self.watching = False

    def options(self, exact=False):
        """What every run is given."""
        return [*(["-c", self.pin] if self.pin else []),
                *(["-w"] if self.watching and not exact else [])]

    def workload(self, name):
        return os.path.join(self.build, "bench", "workloads", name)

    def script(self, name):
        return os.path.join(self.bench, "programs", name)

    def scratch(self, name):
        return os.path.join(self.work, name)

    def require(self):
        for program in (self.measure, self.ready):
            if not os.access(program, os.X_OK):
                sys.exit(f"bench: {program} is not there: build first (./dev build), or name the "
                         "build folder with --build")

    def have_memory_ready(self, kilobytes):
        """So much memory was used a moment ago, and is free: bench/ready.c says what for."""
        megabytes = kilobytes // 1024 + 1
        try:
            subprocess.run([self.ready, str(megabytes)], capture_output=True, check=True,
                           timeout=60)
        except subprocess.SubprocessError as reason:
            raise RunError(f"no {megabytes} MB of memory to be had before it: {reason}") from None
