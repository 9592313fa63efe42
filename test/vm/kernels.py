#!/usr/bin/env python3
"""Debian's kernels, fetched and unpacked into a folder, never installed: kernels.py ARCH SERIES

apt-get does the fetching, with lists of its own in that folder: those of the system need not name
the suites that hold older and newer kernels, nor another machine's packages. What is there is not
fetched again.
"""
import fcntl
import glob
import os
import re
import shutil
import subprocess
import sys

DEBIAN = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
# series: (where its packages are, what follows the version in their names). Small ones where Debian
# has them: "cloud" has all that matters here.
SERIES = {
    "5.10": ([(DEBIAN, "bullseye"), (SECURITY, "bullseye-security")], "cloud-"),
    "6.1": ([(DEBIAN, "bookworm"), (SECURITY, "bookworm-security")], "cloud-"),
    "6.12": ([(SECURITY, "bookworm-security")], "cloud-"),
    "6.12-4k": ([(SECURITY, "bookworm-security")], ""),
    "6.12-16k": ([(SECURITY, "bookworm-security")], ""),
}
DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "i386": "i386"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def say(text):
    print(f"# {text}", file=sys.stderr, flush=True)


def apt(command, folder, arch, suites, *args):
    """Run apt-get or apt-cache with lists, cache and status of their own."""
    lists = os.path.join(folder, "apt")
    for d in ("lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(lists, d), exist_ok=True)
    with open(os.path.join(lists, "sources.list"), "w", encoding="utf-8") as f:
        for uri, suite in suites:
            f.write(f"deb [arch={DEB_ARCH[arch]} signed-by={KEYRING}] {uri} {suite} main\n")
    open(os.path.join(lists, "status"), "a", encoding="utf-8").close()
    options = {
        "Dir::Etc::sourcelist": f"{lists}/sources.list", "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": f"{lists}/lists", "Dir::State::status": f"{lists}/status",
        "Dir::Cache": f"{lists}/cache", "APT::Architecture": DEB_ARCH[arch],
        "APT::Architectures": DEB_ARCH[arch], "APT::Sandbox::User": "root",
        "Acquire::Languages": "none", "Acquire::Retries": "3",
    }
    flags = [f for name, value in options.items() for f in ("-o", f"{name}={value}")]
    return subprocess.run([command, "-qq", *flags, *args], cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600,
                          check=True).stdout


def newest(names, series, flavour, arch):
    """The newest package of the series: versions compare number by number."""
    version = re.escape(series.partition("-")[0]) + r"\."
    tail = "-16k" if series.endswith("-16k") else ""
    ending = flavour + DEB_ARCH[arch] + tail
    wanted = re.compile(rf"linux-image-{version}[.0-9]*[-+.0-9a-z]*?-{ending}")
    names = [n for n in names if wanted.fullmatch(n) and "-rt-" not in n]
    if not flavour:
        names = [n for n in names if "cloud" not in n]
    return max(names, key=lambda n: [int(x) for x in re.findall(r"\d+", n)], default=None)


def fetch(folder, arch, suites, choose):
    """Unpack packages into folder, once; choose(names) says which, of those whose name begins as
    linux-image does, or whatever it likes."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds may want it at once
        if os.path.exists(os.path.join(folder, "complete")):
            return
        say(f"fetching {os.path.basename(folder)}")
        apt("apt-get", folder, arch, suites, "update")
        lines = apt("apt-cache", folder, arch, suites, "search", "--names-only", "^linux-image-")
        packages = choose([line.split()[0] for line in lines.splitlines()])
        apt("apt-get", folder, arch, suites, "download", *packages)
        for deb in glob.glob(os.path.join(folder, "*.deb")):
            subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
            os.remove(deb)
        shutil.rmtree(os.path.join(folder, "apt"))
        open(os.path.join(folder, "complete"), "w", encoding="utf-8").close()


def kernel(cache, arch, series):
    """The path of a kernel image; raises OSError or SubprocessError where it cannot be had."""
    folder = os.path.abspath(os.path.join(cache, f"linux-{series}-{arch}"))
    suites, flavour = SERIES[series]

    def choose(names):
        package = newest(names, series, flavour, arch)
        if package is None:
            raise FileNotFoundError(f"no kernel {series} for {arch} in {suites}")
        return [package]

    fetch(folder, arch, suites, choose)
    shutil.rmtree(os.path.join(folder, "lib"), ignore_errors=True)  # modules
    return glob.glob(os.path.join(folder, "boot", "vmlinuz-*"))[0]


def programs(cache, arch, packages):
    """A folder with what these packages of Debian 12 hold."""
    folder = os.path.abspath(os.path.join(cache, f"programs-{arch}"))
    fetch(folder, arch, [(DEBIAN, "bookworm")], lambda names: packages)
    return folder


if __name__ == "__main__":
    print(kernel(os.environ.get("VM_CACHE", "build/vm"), *sys.argv[1:3]))
