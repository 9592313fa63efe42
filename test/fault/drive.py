#!/usr/bin/env python3
"""Makes every system call of the library fail, at every n-th time, and looks at what becomes of it.

First the workload runs once to count the calls that the library makes. Then each kind of call
fails once, at its first, second, third... time; then from some time on for good, or, with errors
that ask for another try, in storms of many. The workload must never crash or lose memory, and one
failed call must not keep later ones from succeeding. Prints TAP, one line for each kind of call and
error.
"""
import argparse
import errno
import os
import re
import signal
import subprocess
import sys

# The errors that a kind of call can really return. A call that is not listed fails with DEFAULT.
ERRORS = {
    "mmap": ["ENOMEM"],
    "munmap": ["ENOMEM"],
    "mprotect": ["ENOMEM"],
    "mremap": ["ENOMEM"],
    "madvise": ["EINVAL", "EAGAIN", "ENOMEM"],
    "mbind": ["ENOSYS", "EPERM", "EINVAL"],
    "get_mempolicy": ["ENOSYS", "EPERM"],
    "move_pages": ["ENOSYS", "EPERM"],
    "futex": ["EINTR", "EAGAIN"],
    "open": ["ENOENT", "EACCES", "EMFILE"],
    "openat": ["ENOENT", "EACCES", "EMFILE"],
    "read": ["EIO", "EINTR"],
    "pread64": ["EIO", "EINTR"],
    "close": ["EIO"],
    "getdents64": ["EIO"],
    "memfd_create": ["ENOSYS", "EMFILE", "ENOMEM"],
    "ftruncate": ["ENOMEM"],
    "write": ["EIO", "EBADF"],
    "getrandom": ["ENOSYS", "EAGAIN"],
    "sched_getaffinity": ["EINVAL", "ENOSYS"],
    "ioctl": ["ENOMEM", "EAGAIN", "EINTR", "EPERM"],
    "process_vm_readv": ["ENOMEM", "EPERM", "EFAULT"],
    "process_vm_writev": ["ENOMEM", "EPERM", "EFAULT"],
    "userfaultfd": ["EPERM", "EMFILE", "ENOMEM"],
    "pwrite64": ["ENOSPC", "EINTR"],
}
DEFAULT = ["ENOSYS", "EPERM"]

# Calls that cannot fail, or whose failure would not be the library's to handle: with signals left
# blocked, a writer that saves its pages itself is ended by the kernel.
NEVER_FAIL = {"exit", "exit_group", "getpid", "gettid", "rt_sigreturn", "tgkill", "kill",
              "sched_yield", "execve", "rt_sigprocmask", "rt_sigaction", "clone", "clone3", "fork", "vfork"}

# Calls that the thread which everybody waits for could not do its work without at all.
NOT_FOR_GOOD = {"ioctl"}

STORM = 50  # calls one after the other

# Errors that ask for another try. For good they would only show that the library does try again.
TRANSIENT = {"EINTR", "EAGAIN"}

EXIT_SKIPPED = 77


def call_names():
    """System call numbers and names of this machine, from the C compiler's headers."""
    source = "#include <sys/syscall.h>\n"
    listing = subprocess.run(["cc", "-E", "-dM", "-"], input=source, capture_output=True, text=True)
    names = {}
    for name, number in re.findall(r"#define __NR_(\w+) (\d+)", listing.stdout):
        names.setdefault(int(number), name)
    return names


class Runner:
    def __init__(self, options):
        self.options = options
        self.ptrace_missing = False

    def run(self, inject_arguments, nulls, conf=""):
        """Runs the workload; returns (exit status, stderr, counts by call number, injected)."""
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("LD_", "QUIRE_", "MALLOC_"))}
        read_end, write_end = os.pipe()
        options = self.options
        command = [options.inject, "--report", str(write_end)]
        if options.object:
            command += ["--in", options.object]
        command += [*inject_arguments, "--", "/usr/bin/env", f"LD_PRELOAD={options.lib}",
                    f"QUIRE_CONF={conf}", options.workload, str(nulls), "fork"]
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   errors="replace", pass_fds=[write_end])
        os.close(write_end)
        try:
            _, said = process.communicate(timeout=300)
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
            status = "no end within 300 seconds"
        with os.fdopen(read_end) as pipe:
            report = pipe.read()
        counts = {int(n): int(c) for n, c in re.findall(r"^call (\d+) (\d+)$", report, re.M)}
        injected = re.search(r"^injected (\d+)$", report, re.M)
        return status, said, counts, int(injected.group(1)) if injected else 0


def the_other_form(name, error):
    for_a_while = error in TRANSIENT or name in NOT_FOR_GOOD
    return fail_in_a_storm if for_a_while else fail_for_good


def describe(status):
    if isinstance(status, int) and status > 128:
        return f"killed by {signal.Signals(status - 128).name}"
    return status if isinstance(status, str) else f"exit status {status}"


def times_to_try(count, whole):
    """Every time; in the quick form the first ones, and then ever larger steps."""
    if whole:
        return range(1, count + 1)
    times, step = [], 1
    at = 1
    while at <= count:
        times.append(at)
        if len(times) >= 4:
            step *= 2
        at += step
    return times


def fail_once(runner, number, error, count):
    faults = []
    for at in times_to_try(count, runner.options.whole):
        arguments = ["--call", str(number), "--error", str(getattr(errno, error)), "--at", str(at)]
        status, said, _, _ = runner.run(arguments, runner.options.nulls)
        if status != 0:
            faults.append(f"the {at}. call: {describe(status)}: {said.strip()[-300:]}")
    return faults


def fail_in_a_storm(runner, number, error, count):
    faults = []
    for at in times_to_try(count, runner.options.whole):
        arguments = ["--call", str(number), "--error", str(getattr(errno, error)),
                     "--at", f"{at}+{STORM}"]
        status, said, _, _ = runner.run(arguments, -1)
        if status != 0:
            faults.append(f"from the {at}. call on: {describe(status)}: {said.strip()[-300:]}")
    return faults


def fail_for_good(runner, number, error, count):
    faults = []
    for at in times_to_try(count, False):
        arguments = ["--call", str(number), "--error", str(getattr(errno, error)), "--at", f"{at}+"]
        status, said, _, _ = runner.run(arguments, -1)
        # Where not even the dynamic linker gets memory, it says so and exits with 127.
        refused_at_start = status == 127 and "annot allocate" in said
        if status != 0 and not refused_at_start:
            faults.append(f"from the {at}. call on: {describe(status)}: {said.strip()[-300:]}")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inject", help="the built inject program")
    parser.add_argument("workload", help="the built workload program")
    parser.add_argument("lib", metavar="library", help="the library to preload")
    parser.add_argument("--in", dest="object",
                        help="the mapped file whose system calls are meant (default: the library)")
    parser.add_argument("--whole", action="store_true", help="every time of every call")
    parser.add_argument("--only", metavar="CALL", help="only this kind of call, by name")
    parser.add_argument("--nulls", type=int, default=2,
                        help="allocations that one failed call may make fail (default: 2)")
    parser.add_argument("--not-for-good", metavar="CALL", action="append", default=[],
                        help="nor this kind of call, without which memory stays where it is")
    options = parser.parse_args()
    NOT_FOR_GOOD.update(options.not_for_good)
    if options.object is None:
        options.object = os.path.basename(os.path.realpath(options.lib))
    runner = Runner(options)

    status, said, counts, _ = runner.run([], 0)
    if status == EXIT_SKIPPED:
        print("1..0 # SKIP ptrace is not permitted here")
        return 0
    if status != 0:
        print(f"Bail out! the workload fails without any injection: {describe(status)}: {said}")
        return 1
    names = call_names()
    if not names:
        print("1..0 # SKIP the C preprocessor (Debian package gcc) does not list system calls")
        return 0
    rows = [(number, names.get(number, str(number)), count) for number, count in counts.items()]
    rows = [row for row in rows if row[1] not in NEVER_FAIL and options.only in (None, row[1])]
    tests = [(number, name, error, count, form)
             for number, name, count in rows for error in ERRORS.get(name, DEFAULT)
             for form in (fail_once, fail_in_a_storm, fail_for_good)
             if form is fail_once or form is the_other_form(name, error)]
    print(f"1..{len(tests) + 1}")
    for number, name, count in rows:
        print(f"# {name}: {count} calls")
    seen = "mmap" in [name for _, name, _ in rows]
    print(f"{'' if seen or options.only else 'not '}ok 1 - the library's system calls are seen")
    failed = 0 if seen or options.only else 1
    for index, (number, name, error, count, form) in enumerate(tests, 2):
        faults = form(runner, number, error, count)
        for fault in faults[:10]:
            print("#   " + fault.replace("\n", "\n#   "))
        how = {fail_once: "once", fail_in_a_storm: "in a storm"}.get(form, "for good")
        print(f"{'not ' if faults else ''}ok {index} - {name} fails {how} with {error}", flush=True)
        failed += bool(faults)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
