"""What a result depends on: kernel, processor, memory, settings, versions of the programs."""

import hashlib
import os
import platform
import subprocess


def _read(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return None


def _field(text, name):
    for line in (text or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return None


def _system():
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def describe():
    """A flat dictionary; what this machine does not tell is left out."""
    facts = {
        "system": _system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "processor": _field(_read("/proc/cpuinfo"), "model name"),
        "processors": len(os.sched_getaffinity(0)),
        "memory_kb": int((_field(_read("/proc/meminfo"), "MemTotal") or "0 kB").split()[0]),
        "page_size": os.sysconf("SC_PAGE_SIZE"),
        "libc": " ".join(platform.libc_ver()),
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "overcommit": _read("/proc/sys/vm/overcommit_memory"),
        "address_randomisation": _read("/proc/sys/kernel/randomize_va_space"),
        "load": _read("/proc/loadavg"),
    }
    hypervisor = "hypervisor" in (_field(_read("/proc/cpuinfo"), "flags") or "").split()
    facts["virtual_machine"] = hypervisor
    return {name: value for name, value in facts.items() if value is not None}


def source_checksum(folder):
    """Of the benchmark's own files: results of different ones are of different work."""
    total = hashlib.sha256()
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - {"results", "__pycache__", "golden", "selftest"})
        for name in sorted(names):
            if name.endswith((".py", ".c", ".h", ".cc", ".pl", ".lua")):
                with open(os.path.join(place, name), "rb") as file:
                    content = file.read()
                total.update(f"{name} {len(content)} ".encode() + content)
    return total.hexdigest()


def version_of(command):
    """First line of what a program says about its version; None where it says nothing."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20,
                              stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in (said.stdout + said.stderr).splitlines() if line.strip()]
    return lines[0].strip() if lines else None


def one_line(facts):
    """For the head of a report."""
    memory = facts.get("memory_kb", 0) / (1 << 20)
    return (f"{facts.get('processor', facts['architecture'])}, {facts['processors']} CPUs"
            f"{' (virtual)' if facts.get('virtual_machine') else ''}, {memory:.0f} GiB, "
            f"Linux {facts['kernel']}, {facts.get('libc', '')}")
