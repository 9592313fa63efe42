"""A machine of nodes, CPUs and memory as QEMU plays it, and what ran in it."""
import os
import re
import subprocess
import tempfile

QEMU_PACKAGE = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}

# Ends every machine: the console is the kernel's, the second port is ours.
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin HOME=/tmp LD_LIBRARY_PATH=/lib CONFORM_PATIENCE=10
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
mkdir -p /dev/shm /sys/fs/cgroup; mount -t tmpfs m /dev/shm; mount -t tmpfs t /tmp
mount -t cgroup2 c /sys/fs/cgroup 2>/dev/null
echo never > /sys/kernel/mm/transparent_hugepage/enabled
ln -s /proc/self/fd /dev/fd
stty -F /dev/PORT raw -echo 115200
cd /tmp
sh /commands < /dev/null > /dev/PORT 2>&1
echo "@done" > /dev/PORT
sync
poweroff -f
"""


class Machine:
    """nodes: (MiB, CPUs) of each; no CPUs: memory only; no MiB: CPUs only.
    distances: {(a, b): distance}, 20 for what is not said."""

    def __init__(self, nodes, distances=None, arch="x86_64", series="6.1", append=""):
        self.nodes, self.distances = nodes, distances or {}
        self.arch, self.series, self.append = arch, series, append

    def numa_args(self):
        args, cpu = [], 0
        if len(self.nodes) == 1:
            return args, self.nodes[0][1]
        for i, (mib, cpus) in enumerate(self.nodes):
            node = f"node,nodeid={i}"
            if mib:
                args += ["-object", f"memory-backend-ram,id=m{i},size={mib}M"]
                node += f",memdev=m{i}"
            if cpus:
                node += f",cpus={cpu}-{cpu + cpus - 1}"
                cpu += cpus
            args += ["-numa", node]
        for a in range(len(self.nodes)):
            for b in range(len(self.nodes)):
                if a != b:
                    value = self.distances.get((a, b), self.distances.get((b, a), 20))
                    args += ["-numa", f"dist,src={a},dst={b},val={value}"]
        return args, cpu

    def command(self, kernel, initramfs, console, output):
        numa, cpus = self.numa_args()
        arm = self.arch == "aarch64"
        machine = ["-M", "virt"] if arm else ["-M", "pc"]
        serial = ["-serial", f"file:{console}"]
        serial += (["-chardev", f"file,id=out,path={output}", "-device", "pci-serial,chardev=out"]
                   if arm else ["-serial", f"file:{output}"])
        con = "ttyAMA0" if arm else "ttyS0"
        # arm64 kernels sign pointers at every call; not by the cipher that QEMU is slow at.
        cpu = "max,pauth-impdef=on" if arm else "max"
        return [f"qemu-system-{self.arch}", "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot", *machine, "-accel", os.environ.get("VM_ACCEL", "tcg,thread=multi"),
                "-cpu", cpu, "-smp", str(cpus), "-m", f"{sum(m for m, _ in self.nodes)}M", *numa,
                "-kernel", kernel, "-initrd", initramfs,
                "-append", f"console={con} panic=-1 quiet {self.append}", *serial]


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def run(machine, kernel, tree, commands, limit):
    """Boot and run each of commands, (name, shell text, seconds); a list of (name, exit status or
    None where it never ended, its output), and what else there is to say when that was not all."""
    port = "ttyS0" if machine.arch == "aarch64" else "ttyS1"
    lines = []
    for name, text, seconds in commands:
        tree.text(f"/cases/{name}", text + "\n", 0o755)
        lines.append(f"echo '@begin {name}'; timeout {seconds} sh /cases/{name}; echo \"@end $?\"")
    tree.text("/commands", "\n".join(lines) + "\n")
    tree.text("/init", INIT.replace("PORT", port), 0o755)
    with tempfile.TemporaryDirectory() as tmp:
        initramfs, console, output = (os.path.join(tmp, n) for n in ("initramfs", "console", "out"))
        tree.write(initramfs)
        try:
            done = subprocess.run(machine.command(kernel, initramfs, console, output),
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, timeout=limit, check=False)
            trouble = done.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired:
            trouble = f"the machine ran into its limit of {limit} s\n"
        text = read(output).replace("\r", "")
        if "@done" not in text:
            trouble += "\n".join(read(console).splitlines()[-40:])
        else:
            trouble = ""
    results = []
    for match in re.finditer(r"@begin (\S+)\n(.*?)(?:@end (\d+)\n|@begin|\Z)", text, re.S):
        status = int(match.group(3)) if match.group(3) else None
        results.append((match.group(1), status, match.group(2)))
    return results, trouble
