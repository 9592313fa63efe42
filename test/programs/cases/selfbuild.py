"""quire builds itself: meson, ninja and the compiler under the library; the results compared."""
import os
import shutil

SECONDS = 240
WHOLE = True
SOURCES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")


def check(box):
    meson = box.need("meson", "meson")
    box.need("ninja", "ninja-build")
    box.need("gcc", "gcc")

    def setup(preload):
        shutil.copytree(SOURCES, box.path("quire"), symlinks=True,
                        ignore=shutil.ignore_patterns("build", ".git", "results"))

    parts = ["-Dtests=false", "-Dbench=false", "-Dexamples=false"]
    seen = box.both_commands(
        [[meson, "setup", "out", "quire", *parts], [meson, "compile", "-C", "out"]],
        files=["out/src/libquire.so", "out/src/libquire.a"], mask=lambda text: "", setup=setup)
    assert seen["out/src/libquire.so"][:4] == b"\x7fELF"
    # What was built by it works too.
    box.run(["/bin/ls", "-lR", "quire"], False, env={"LD_PRELOAD": box.path("out/src/libquire.so")})
    for name in ("meson", "ninja", "cc1"):
        if not any(name in seen_name for seen_name in box.served()):
            box.expect_served(name)
