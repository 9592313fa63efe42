"""What a case works with: a folder, a clean environment, runs with and without the library."""
import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import statpage


class Failed(Exception):
    """What the case promised is not so."""


class Missing(Exception):
    """A program that the case needs is not here; names the Debian package."""


class Result:
    """How a run ended: exit status, and what it wrote to standard output and standard error."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")


class Box:
    """One case's folder and processes. `quire` is a copy of the library that every user may read."""

    def __init__(self, folder, quire, has_stats, deadline):
        self.folder, self.quire, self.has_stats = folder, quire, has_stats
        self.deadline = deadline
        self.work = os.path.join(folder, "work")
        self.children = []
        self.fresh()

    # -- places and programs ------------------------------------------------------------------

    def fresh(self):
        """Empties the working folder. Both runs happen at one path, as paths end up in output."""
        shutil.rmtree(self.work, ignore_errors=True)
        os.makedirs(self.work)
        os.chmod(self.work, 0o777)

    def path(self, *names):
        return os.path.join(self.work, *names)

    def write(self, name, contents):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(contents if isinstance(contents, bytes) else contents.encode())
        return path

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    @staticmethod
    def need(program, package):
        """The program's path; a case without it is skipped, and says what to install."""
        path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if path is None:
            raise Missing(f"{program} is not installed (Debian package {package})")
        return path

    # -- running ------------------------------------------------------------------------------

    def environment(self, preload, extra=None):
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": self.folder,
               "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "TZ": "UTC", "SOURCE_DATE_EPOCH": "0"}
        if preload:
            env["LD_PRELOAD"] = self.quire
            if self.has_stats:
                env["QUIRE_CONF"] = f"stats:1,stats_file:{self.stats_path()}"
        env.update(extra or {})
        return env

    def stats_path(self):
        return os.path.join(self.folder, "stats")

    def start(self, command, preload, **options):
        """Starts a process in a group of its own, which ends with the case."""
        options.setdefault("cwd", self.work)
        options["env"] = self.environment(preload, options.pop("env", None))
        options.setdefault("stdin", subprocess.DEVNULL)
        child = subprocess.Popen(command, start_new_session=True, preexec_fn=no_core, **options)
        self.children.append(child)
        return child

    def run(self, command, preload, ok=(0,), stdin=None, **options):
        """Runs a command to its end; `ok` are the exit statuses that are fine."""
        if stdin is not None:
            options["stdin"] = subprocess.PIPE
        child = self.start(command, preload, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                           **options)
        out, err = self.finish(child, command, stdin)
        if ok is not None and child.returncode not in ok:
            raise Failed(f"{shown(command)} ended with {ending(child.returncode)}"
                         f"{' under the library' if preload else ''}:\n{tail(out + err)}")
        return Result(child.returncode, out, err)

    def finish(self, child, command, stdin=None):
        left = max(0.1, self.deadline - time.monotonic())
        try:
            return child.communicate(stdin, timeout=left)
        except subprocess.TimeoutExpired:
            kill_group(child)
            raise Failed(f"{shown(command)} took too long") from None

    def stop_all(self):
        for child in self.children:
            kill_group(child)

    # -- checks -------------------------------------------------------------------------------

    def served(self):
        """Names of the programs that the library says it has served to their end."""
        try:
            with open(self.stats_path(), encoding="utf-8", errors="replace") as file:
                return set(re.findall(r"^quire \S+ active in (.+)$", file.read(), re.M))
        except FileNotFoundError:
            return set()

    def expect_served(self, *names):
        if not self.has_stats:
            return                              # a library that keeps no statistics
        seen = self.served()
        for name in names:
            if name not in seen:
                raise Failed(f"the library was not serving {name}; it served: "
                             f"{', '.join(sorted(seen)) or 'nothing'}")

    def expect_serving(self, pid):
        end = time.monotonic() + 3              # a child just forked may not have run yet
        while (reason := statpage.why_not_serving(pid, self.quire)) and time.monotonic() < end:
            time.sleep(0.05)
        if reason is not None:
            raise Failed(f"the library does not serve process {pid}: {reason}")

    def both(self, story):
        """Tells a story twice, without and with the library; what it returns must be the same.

        The story is called as story(preload) in an empty folder and returns a dictionary of
        bytes or text by name.
        """
        self.fresh()
        plain = story(False)
        self.fresh()
        served = story(True)
        for name in sorted(set(plain) | set(served)):
            difference = compare(plain.get(name), served.get(name))
            if difference:
                raise Failed(f"{name} differs under the library: {difference}")
        return served

    def both_commands(self, commands, files=(), mask=None, names=(), setup=None, **options):
        """The usual story: some commands, their output and some files, byte for byte."""
        def story(preload):
            if setup is not None:
                setup(preload)
            seen = {}
            for number, command in enumerate(commands, 1):
                result = self.run(command, preload, **options)
                for stream, data in (("output", result.out), ("errors", result.err)):
                    text = data if mask is None else mask(data.decode("utf-8", "replace"))
                    seen[f"{stream} of command {number}"] = text
            for name in files:
                seen[name] = self.read(name)
            return seen

        seen = self.both(story)
        self.expect_served(*names)
        return seen

    @contextlib.contextmanager
    def server(self, command, preload, ready, stop=signal.SIGTERM, **options):
        """Runs a server while the body runs; `ready` is called until it returns true."""
        log = open(os.path.join(self.folder, "server.log"), "wb")
        child = self.start(command, preload, stdout=log, stderr=log, **options)
        log.close()
        try:
            self.wait_for(ready, child, command)
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(stop)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                kill_group(child)
                raise Failed(f"{shown(command)} did not stop when told to") from None

    def wait_for(self, ready, child, command):
        end = min(self.deadline, time.monotonic() + 30)
        while True:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                if ready():
                    return
            if child.poll() is not None or time.monotonic() > end:
                with open(os.path.join(self.folder, "server.log"), "rb") as log:
                    raise Failed(f"{shown(command)} did not start:\n{tail(log.read())}")
            time.sleep(0.05)


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def kill_group(child):
    """Ends what one start() began: the process and those that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=10)


def ending(status):
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def shown(command):
    text = " ".join(str(word) for word in command).replace("\n", " ")
    return text if len(text) <= 120 else text[:117] + "..."


def tail(data):
    return data.decode("utf-8", "replace")[-1500:]


def compare(plain, served):
    """None if they are the same, else a few words on the first difference."""
    if plain == served:
        return None
    if plain is None or served is None:
        return "it is there only " + ("with it" if plain is None else "without it")
    if isinstance(plain, bytes) and isinstance(served, bytes):
        at = next((i for i, (a, b) in enumerate(zip(plain, served)) if a != b),
                  min(len(plain), len(served)))
        return (f"{len(plain)} and {len(served)} bytes, first at {at}: "
                f"{plain[at:at + 40]!r} without, {served[at:at + 40]!r} with")
    lines = zip(str(plain).splitlines() + [""], str(served).splitlines() + [""])
    for number, (a, b) in enumerate(lines, 1):
        if a != b:
            return f"line {number} is {a!r} without, {b!r} with"
    return "in length"
