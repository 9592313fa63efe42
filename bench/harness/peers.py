"""The allocators that are compared: where each lies, what it is, that it stays the same file."""

import glob
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field

# name, file names in order of preference, Debian package
KNOWN = [
    ("jemalloc", ["libjemalloc.so.2"], "libjemalloc2"),
    ("mimalloc", ["libmimalloc.so.2.0", "libmimalloc.so.2", "libmimalloc.so.3"], "libmimalloc2.0"),
    ("tcmalloc", ["libtcmalloc_minimal.so.4"], "libtcmalloc-minimal4"),
]

BASELINE = "glibc"
# the one that is not a peer
SUBJECT = "quire"


class PeerError(Exception):
    """A peer that was asked for cannot be used; the text says why."""


@dataclass
class Peer:
    """One allocator. path is None for the C library's own."""

    name: str
    path: str = None
    env: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)
    stamp: tuple = None

    def variables(self):
        """What is set in the measured process, and nowhere else."""
        preload = {"LD_PRELOAD": self.path} if self.path else {}
        return {**preload, **self.env}

    def settle(self, folder):
        """Take a copy of a library that is not installed, so that a build that goes on meanwhile
        does not disturb the comparison. What is reported is still where it came from."""
        if self.path and not self.path.startswith(("/usr/", "/lib")):
            os.mkdir(os.path.join(folder, self.name))
            self.path = shutil.copy(self.path, os.path.join(folder, self.name))
            self.stamp = _stamp(self.path)

    def unchanged(self):
        """Is the library still the file that was proven? An update half-way would mix two."""
        return self.path is None or _stamp(self.path) == self.stamp


def _stamp(path):
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (info.st_ino, info.st_size, info.st_mtime_ns)


def _make(name, path, version=None):
    with open(path, "rb") as file:
        content = file.read()
    if content[:4] != b"\x7fELF":
        raise PeerError(f"{name}: {path} is not a shared library")
    about = {"path": path, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    version = version or package_version(path)
    if version:
        about["version"] = version
    return Peer(name, path, about=about, stamp=_stamp(path))


def package_version(path):
    """'package 1.2-3' of the Debian package that owns a file; None where nobody knows."""
    if not shutil.which("dpkg-query"):
        return None
    for name in {path, os.path.realpath(path), path.removeprefix("/usr"),
                 os.path.realpath(path).removeprefix("/usr")}:
        found = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True)
        if found.returncode == 0:
            package = found.stdout.split(": ")[0]
            shown = subprocess.run(["dpkg-query", "-W", "-f", "${Package} ${Version}", package],
                                   capture_output=True, text=True)
            return shown.stdout.strip() or None
    return None


def libraries():
    """File name -> path, as the dynamic linker's cache has them, then the usual folders."""
    found = {}
    tool = shutil.which("ldconfig", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
    if tool:
        cache = subprocess.run([tool, "-p"], capture_output=True, text=True).stdout
        for line in cache.splitlines():
            name, arrow, path = line.strip().partition(" => ")
            # a 64-bit machine may have 32-bit libraries of the same name: those come later
            if arrow:
                found.setdefault(name.split(" ")[0], path)
    folders = ["/usr/local/lib", "/usr/lib64", "/usr/lib"]
    for folder in folders + sorted(glob.glob("/usr/lib/*-linux-*")):
        for path in sorted(glob.glob(folder + "/lib*malloc*.so*")):
            found.setdefault(os.path.basename(path), path)
    return found


def find(build, extra=(), environment=()):
    """All usable peers by name, and a line for each known one that is absent.

    extra: "NAME=PATH" strings; environment: "NAME:VARIABLE=VALUE" strings.
    """
    peers, absent = {BASELINE: Peer(BASELINE)}, []
    quire = os.path.join(build, "src", "libquire.so")
    if os.path.exists(quire):
        peers["quire"] = _make("quire", os.path.realpath(quire), version="built here")
    else:
        absent.append(f"quire: skipped, {quire} is not built (./dev build)")

    present = libraries()
    for name, files, package in KNOWN:
        path = next((present[file] for file in files if file in present), None)
        if path:
            peers[name] = _make(name, path)
        else:
            absent.append(f"{name}: skipped, not installed (Debian package {package})")

    for text in extra:
        name, equals, path = text.partition("=")
        if not equals or not name.replace("-", "").replace(".", "").replace("_", "").isalnum():
            raise PeerError(f"--peer {text}: write it as NAME=PATH")
        if name == BASELINE:
            raise PeerError(f"--peer {text}: {BASELINE} is what everything is compared with")
        if not os.path.isfile(path):
            raise PeerError(f"--peer {text}: there is no file {path}")
        peers[name] = _make(name, os.path.realpath(path))

    for text in environment:
        name, colon, setting = text.partition(":")
        variable, equals, value = setting.partition("=")
        if not colon or not equals or not variable:
            raise PeerError(f"--env {text}: write it as PEER:VARIABLE=VALUE")
        if name not in peers:
            raise PeerError(f"--env {text}: there is no peer {name}")
        peers[name].env[variable] = value
        peers[name].about.setdefault("env", {})[variable] = value
    return peers, absent


def select(peers, absent, wanted):
    """The peers named in wanted (all where it is empty), the baseline always first."""
    for name in wanted:
        if name not in peers:
            reason = next((line for line in absent if line.startswith(name + ":")), None)
            raise PeerError(reason or f"there is no peer {name}; there are: {', '.join(peers)}")
    chosen = [name for name in peers if not wanted or name in wanted or name == BASELINE]
    return {name: peers[name] for name in chosen}
