#!/usr/bin/env python3
"""Builds the fuzz target of images with clang and libFuzzer and lets it run for a while.

    fuzz.py ROOT SEEDER SECONDS SOURCE...

SEEDER writes the seeds. What it finds, it leaves behind, and says where.
"""
import os
import shutil
import subprocess
import sys
import tempfile

FLAGS = ["-g", "-O1", "-std=gnu17", "-D_GNU_SOURCE", "-DQ_CHECKS=1", '-DQ_DEFAULT_CONF=""',
         "-fno-strict-aliasing", "-fno-builtin", "-ftls-model=initial-exec", "-fno-omit-frame-pointer",
         "-fsanitize=fuzzer,address,undefined", "-fno-sanitize=null",
         "-fno-sanitize-recover=undefined", "-w"]


def main():
    root, seeder, seconds, sources = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    clang = shutil.which("clang")
    if not clang:
        print("1..0 # SKIP clang is not installed (Debian packages clang, libclang-rt-14-dev)")
        return
    with tempfile.TemporaryDirectory() as folder:
        program, seeds = os.path.join(folder, "fuzz"), os.path.join(folder, "seeds")
        os.mkdir(seeds)
        here = os.path.join(root, "test", "fuzz")
        built = subprocess.run([clang, *FLAGS, "-I", os.path.join(root, "src"), "-I",
                                os.path.join(root, "include"), "-o", program,
                                os.path.join(here, "image.c"), *sources, "-pthread"],
                               capture_output=True, text=True, check=False)
        if built.returncode and "clang_rt.fuzzer" in built.stderr:
            print("1..0 # SKIP libFuzzer is not installed (Debian package libclang-rt-14-dev)")
            return
        print("1..2")
        if built.returncode:
            print("not ok 1 - builds\n# " + built.stderr.replace("\n", "\n# "))
            return
        print("ok 1 - builds")
        subprocess.run([seeder, "--seeds", seeds], check=True)
        keep = tempfile.mkdtemp(prefix="quire-fuzz-")
        done = subprocess.run([program, f"-max_total_time={seconds}", "-max_len=300000",
                               "-rss_limit_mb=3000", "-timeout=30", "-print_final_stats=1",
                               f"-artifact_prefix={keep}/", seeds], capture_output=True, text=True,
                              check=False,
                              env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0:handle_abort=1"})
        said = [line for line in done.stderr.splitlines() if done.returncode or "stat::" in line]
        end = "\n# ".join(said[-60:])
        print("ok 2" if done.returncode == 0 else f"not ok 2 (see {keep})", f"- finds nothing\n# {end}")
        if not os.listdir(keep):
            os.rmdir(keep)


main()
