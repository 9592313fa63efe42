"""git: a repository of 400 commits, repacked, checked and walked."""
import os

SECONDS = 60
IDENTITY = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat", "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "pack.threads", "GIT_CONFIG_VALUE_0": "2",
            "GIT_CONFIG_KEY_1": "gc.autoDetach", "GIT_CONFIG_VALUE_1": "false"}


def history():
    """A stream for git fast-import; the same every time."""
    out = []
    for number in range(400):
        out.append(f"commit refs/heads/main\ncommitter T <t@example.org> {1700000000 + number} "
                   f"+0000\ndata <<END\ncommit {number}\nEND\n")
        for which in range(3):
            lines = "".join(f"line {i} of {number // (1 + i % 9)} {i * number % 97}\n"
                            for i in range(50 + number % 70))
            out.append(f"M 100644 inline d{number % 7}/f{(number + which * 5) % 23}.txt\n"
                       f"data {len(lines)}\n{lines}\n")
    return "".join(out).encode()


def check(box):
    git = box.need("git", "git")
    stream = history()

    def story(preload):
        def run(*words, stdin=None):
            return box.run([git, *words], preload, stdin=stdin, env=IDENTITY).out

        run("init", "-q", "-b", "main", ".")
        run("fast-import", "--quiet", stdin=stream)
        seen = {"checkout": run("reset", "--hard", "-q"),
                "fsck": run("fsck", "--full", "--strict")}
        run("gc", "-q", "--aggressive", "--prune=now")
        seen["fsck after gc"] = run("fsck", "--full", "--strict")
        run("repack", "-q", "-adf", "--depth=50")
        seen["objects"] = b"\n".join(sorted(run("rev-list", "--all", "--objects").splitlines()))
        seen["log"] = run("log", "--stat", "-p", "-100")
        seen["blame"] = run("blame", "d1/f1.txt") if os.path.exists(box.path("d1/f1.txt")) else b""
        seen["grep"] = run("grep", "-n", "line 7")
        return seen

    box.both(story)
    box.expect_served("git")
