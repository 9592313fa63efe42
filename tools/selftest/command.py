#!/usr/bin/env python3
"""Tests of the `quire` command, on programs of each kind that it must tell apart."""
import contextlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import tap  # noqa: E402

QUIRE, PLAIN, OWN, STATIC, LINKED, STATIC_LINKED, LIBRARY, OPT_C = map(os.path.abspath,
                                                                      sys.argv[1:])
NOBODY = 65534


def quire(*args, **kwargs):
    """(exit status, stdout, stderr) of the command, in an environment without its variables."""
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "QUIRE_CONF")}
    env.update(kwargs.pop("env", {}))
    done = subprocess.run([QUIRE, *map(str, args)], env=env, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=300, check=False, **kwargs)
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def started(*command, **env):
    """Start a program, wait until it has said that it is there, and end it by ending its input."""
    child = subprocess.Popen(command, env={**os.environ, **env}, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.stdin.close()
        child.wait(timeout=300)
        child.stdout.close()


def expect(result, status, text):
    assert result[0] == status, f"exit status {result[0]}, expected {status}: {result}"
    assert text in result[1] + result[2], f"expected '{text}' in {result}"


def test_options_are_those_of_the_library():
    with open(OPT_C, encoding="utf-8") as source:
        table = source.read().split("table[] = {")[1].split("};")[0]
    library = re.findall(r'^\s*{"(\w+)"', table, re.MULTILINE)
    lines = quire("options")[1].split("\n\n")[0].splitlines()[1:]
    assert library and [line.split()[0] for line in lines] == library


def test_defaults_are_those_of_the_library():
    _, out, _ = quire("options")
    shown = {line.split()[0]: line.split()[2] for line in out.split("\n\n")[0].splitlines()[1:]}
    _, _, err = quire("run", "--stats", PLAIN)
    line = next(line for line in err.splitlines() if "misuse:" in line)
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    for name, value in (pair.split(":") for pair in line.split()[-1].split(",")):
        if name != "stats":
            preset = shown[name]
            if preset[-1] in units:
                preset = str(int(preset[:-1]) * units[preset[-1]])
            assert preset == value, f"{name}: shown {shown[name]}, in force {value}"


def test_help():
    for command in ("run", "check", "doctor", "options", "path", "version"):
        expect(quire(command, "--help"), 0, f"Usage: quire {command}")
    expect(quire("--help"), 0, "quire run")
    expect(quire("--version"), 0, quire("version")[1])
    expect(quire(), 2, "quire run")


def test_doctor():
    status, out, _ = quire("doctor")
    force = {0: "write protection", 1: "a holder process", 3: "nothing"}
    assert status in force and f"in force: {force[status]}" in out, (status, out)
    expect(quire("doctor", "now"), 2, "no arguments")
    if os.getuid() == 0 and open("/proc/sys/vm/unprivileged_userfaultfd").read().strip() == "0":
        result = quire("doctor", user=NOBODY)
        expect(result, 1, "in force: a holder process")
        expect(result, 1, "vm.unprivileged_userfaultfd=1")


def test_wrong_usage():
    expect(quire("frobnicate"), 2, "frobnicate")
    expect(quire("run"), 2, "which program")
    expect(quire("run", "--frobnicate"), 2, "frobnicate")
    expect(quire("check"), 2, "which process")
    expect(quire("check", "perl"), 2, "quire check -- perl")
    expect(quire("check", 1, 2), 2, "one process")
    expect(quire("path", "x"), 2, "no arguments")


def test_run_returns_the_exit_status():
    expect(quire("run", PLAIN), 7, "ready")
    expect(quire("run", "--", "sh", "-c", "exit 3"), 3, "")
    assert quire("run", "sh", "-c", "kill -9 $$")[0] == -9


def test_run_preloads():
    _, out, _ = quire("run", "cat", "/proc/self/maps")
    assert os.path.basename(LIBRARY) in out


def test_run_with_stats():
    expect(quire("run", "--stats", PLAIN), 7, "active in " + os.path.basename(PLAIN))
    assert "active in" not in quire("run", PLAIN)[2]


def test_a_table_that_has_no_file():
    # ls closes its standard error before it ends
    result = quire("run", "--stats", "-c", "stats_file:/no/such/folder/x", "ls", "-d", "/")
    expect(result, 0, "stats_file: cannot open /no/such/folder/x")
    expect(result, 0, "active in ls")


def test_run_keeps_the_environment():
    show = ("sh", "-c", "echo $LD_PRELOAD $QUIRE_CONF")
    path = quire("path")[1].strip()
    env = {"LD_PRELOAD": "libm.so.6", "QUIRE_CONF": "huge:off"}
    assert quire("run", *show, env=env)[1] == f"{path}:libm.so.6 huge:off\n"
    assert (quire("run", "-c", "misuse:report", "-c", "limit:1G", *show, env=env)[1] ==
            f"{path}:libm.so.6 huge:off,misuse:report,limit:1G\n")
    assert quire("run", *show, env={"LD_PRELOAD": f"{path}:x"})[1].startswith(f"{path}:x\n")


def test_run_of_what_cannot_run():
    expect(quire("run", "no-such-program"), 127, "No such file")
    expect(quire("run", "/etc/passwd"), 126, "Permission denied")
    expect(quire("run", STATIC), 7, "statically linked")


def test_run_of_a_script_without_interpreter_line():
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(folder, "script")
        with open(script, "w", encoding="ascii") as out:
            out.write("echo got $*; exit 5\n")
        os.chmod(script, 0o755)
        expect(quire("run", script, "a", "b"), 5, "got a b")


def test_path_is_the_built_library():
    assert os.path.realpath(quire("path")[1].strip()) == os.path.realpath(LIBRARY)


def test_check_of_a_served_process():
    with started(QUIRE, "run", PLAIN) as child:
        expect(quire("check", child.pid), 0, "yes: quire")
        assert quire("check", "-q", child.pid) == (0, "", "")


def test_check_after_the_library_was_replaced():
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(LIBRARY, folder)
        with started(PLAIN, LD_PRELOAD=copy) as child:
            os.unlink(copy)
            expect(quire("check", child.pid), 0, "yes: quire")


def test_check_of_a_process_without():
    with started(PLAIN) as child:
        expect(quire("check", child.pid), 1, "not loaded: it was started without LD_PRELOAD")
        assert quire("check", "-q", child.pid) == (1, "", "")
    with started(PLAIN, LD_PRELOAD="libm.so.6") as child:
        expect(quire("check", child.pid), 1, "names other libraries only: libm.so.6")


def test_check_of_its_own_malloc():
    with started(QUIRE, "run", OWN) as child:
        expect(quire("check", child.pid), 1, "own malloc: quire is loaded, but")
    with started(OWN) as child:
        expect(quire("check", child.pid), 1, "it has a malloc of its own")
    expect(quire("check", "--", OWN), 1, "own malloc")


def test_check_of_a_static_program():
    with started(STATIC) as child:
        expect(quire("check", child.pid), 1, "static executable")
    expect(quire("check", "--", STATIC), 1, "static executable")


def test_check_of_programs_with_quire_linked_in():
    for program in LINKED, STATIC_LINKED:
        with started(program) as child:
            expect(quire("check", child.pid), 0, "yes: quire")
        expect(quire("check", "--", program), 0, "yes: quire")


def test_check_of_a_linked_and_preloaded_program():
    with started(QUIRE, "run", LINKED) as child:
        expect(quire("check", child.pid), 0, "yes: quire")


def test_check_of_no_process():
    child = subprocess.Popen(["true"])
    child.wait()
    expect(quire("check", child.pid), 1, "no such process")


def test_check_of_another_user():
    if os.getuid() != 0:
        raise tap.Skip("only root can be somebody else")
    with tempfile.TemporaryDirectory() as folder, started(PLAIN) as child:
        os.chmod(folder, 0o755)
        copy = shutil.copy(QUIRE, folder)
        done = subprocess.run([copy, "check", str(child.pid)], user=NOBODY, group=NOBODY,
                              extra_groups=[], capture_output=True, text=True, check=False)
        expect((done.returncode, done.stdout, done.stderr), 1, "permission denied")


def test_check_of_a_program():
    expect(quire("check", "--", PLAIN), 0, "yes: quire")
    expect(quire("check", "--", "sh", "-c", "exit 9"), 0, "yes: quire")
    # allocates nothing; but what it would allocate would be quire's
    expect(quire("check", "--", "true"), 0, "yes: quire")
    expect(quire("check", "--", "no-such-program"), 1, "No such file")


def test_check_leaves_no_trace():
    with tempfile.TemporaryDirectory() as folder:
        mark = os.path.join(folder, "mark")
        expect(quire("check", "--", "touch", mark), 0, "yes: quire")
        assert not os.path.exists(mark)


def test_check_of_a_set_user_id_program():
    if os.getuid() != 0:
        raise tap.Skip("only root can make one")
    with tempfile.TemporaryDirectory() as folder:
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            raise tap.Skip(f"{folder} is mounted nosuid")
        os.chmod(folder, 0o755)
        tools = os.path.join(folder, "tools")
        source = os.path.join(folder, "src")
        os.mkdir(tools)
        os.mkdir(source)
        tool = shutil.copy(QUIRE, tools)
        shutil.copy(LIBRARY, os.path.join(source, "libquire.so"))
        program = shutil.copy(PLAIN, folder)
        as_nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "text": True,
                     "stdin": subprocess.DEVNULL, "capture_output": True, "check": False}
        done = subprocess.run([tool, "check", "--", program], **as_nobody)
        expect((done.returncode, done.stdout, done.stderr), 0, "yes: quire")
        os.chmod(program, 0o4755)
        done = subprocess.run([tool, "check", "--", program], **as_nobody)
        expect((done.returncode, done.stdout, done.stderr), 1, "set-user-id (AT_SECURE)")
        done = subprocess.run([tool, "run", program], **as_nobody)
        expect((done.returncode, done.stdout, done.stderr), 7, "warning: ")


def test_check_of_a_wrong_architecture():
    # The head of an ELF file for a 32-bit ARM: no more of it is looked at.
    head = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, 0, 52, 0, 0,
                                                          52, 32, 0, 40, 0, 0)
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, "program")
        with open(program, "wb") as out:
            out.write(head)
        os.chmod(program, 0o755)
        expect(quire("check", "--", program), 1, "wrong architecture: it is a 32-bit arm program")
        expect(quire("run", program), 126, "32-bit arm")


if __name__ == "__main__":
    tap.run([value for name, value in list(globals().items()) if name.startswith("test_")])
