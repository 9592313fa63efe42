"""An initial file system for a small machine: programs with the libraries they need, as a cpio
archive in the kernel's "newc" format. Nothing but binutils' readelf is needed to make one."""
import gzip
import os
import re
import stat
import subprocess

ARCHES = {
    "x86_64": (["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64"], ""),
    "aarch64": (["/usr/aarch64-linux-gnu/lib"], "/usr/aarch64-linux-gnu"),
}


def dynamic(path):
    """(interpreter or None, names of the libraries) of an ELF file."""
    text = subprocess.run(["readelf", "-ld", path], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=False).stdout
    interpreter = re.search(r"program interpreter: (\S+)\]", text)
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", text)
    runpath = re.findall(r"\(RU?N?PATH\).*\[(.+)\]", text)
    origin = os.path.dirname(os.path.realpath(path))
    dirs = [d.replace("$ORIGIN", origin) for r in runpath for d in r.split(":")]
    return interpreter and interpreter.group(1), needed, dirs


class Tree:
    """Files by their path in the machine."""

    def __init__(self, arch="x86_64"):
        self.dirs, self.sysroot = ARCHES[arch]
        self.files = {}

    def text(self, path, text, mode=0o644):
        self.files[path] = (text.encode(), mode)

    def file(self, source, path=None):
        with open(source, "rb") as f:
            self.files[path or source] = (f.read(), stat.S_IMODE(os.stat(source).st_mode))

    def program(self, source, path=None, extra_dirs=()):
        """A program or library, with what it needs: that goes to /lib."""
        self.file(source, path or source)
        interpreter, needed, dirs = dynamic(source)
        if interpreter:
            self.file(self.sysroot + interpreter, interpreter)
        for name in needed:
            if "/lib/" + name in self.files:
                continue
            for d in list(dirs) + list(extra_dirs) + self.dirs:
                if os.path.exists(os.path.join(d, name)):
                    self.program(os.path.join(d, name), "/lib/" + name, extra_dirs)
                    break
            else:
                raise FileNotFoundError(f"{source} needs {name}, which is in none of {self.dirs}")

    def folder(self, source, path, wanted=lambda name: True):
        for root, _, names in os.walk(source):
            for name in names:
                at = os.path.join(root, name)
                if wanted(at) and os.path.isfile(at):
                    self.file(at, os.path.join(path, os.path.relpath(at, source)))

    def write(self, to):
        folders = set()
        for path in self.files:
            while path != "/":
                path = os.path.dirname(path)
                folders.add(path)
        folders |= {"/proc", "/sys", "/dev", "/tmp", "/bin"}
        with gzip.open(to, "wb", compresslevel=1) as out:
            inode = 1
            for path in sorted(folders - {"/"}):
                entry(out, inode, path, stat.S_IFDIR | 0o755, b"")
                inode += 1
            for path, (data, mode) in self.files.items():
                entry(out, inode, path, stat.S_IFREG | mode, data)
                inode += 1
            entry(out, 0, "/TRAILER!!!", 0, b"")


def entry(out, inode, path, mode, data):
    name = path.lstrip("/").encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields)
    out.write(head + name + bytes(-(len(head) + len(name)) % 4))
    out.write(data + bytes(-len(data) % 4))
