"""CPython's own test modules, with and without its small-object allocator."""
import re

SECONDS = 300
WHOLE_SECONDS = 5400  # each of some thirty modules four times; two of them take minutes
PACKAGE = "libpython3.11-testsuite"
QUICK = ["test_list", "test_dict", "test_bytes", "test_struct", "test_collections",
         "test_itertools", "test_heapq", "test_array", "test_zlib", "test_generators",
         "test_mmap", "test_sort", "test_string"]
WHOLE_TOO = ["test_fork1", "test_set", "test_weakref", "test_unicode", "test_json", "test_re",
             "test_pickle", "test_bz2", "test_lzma", "test_hashlib", "test_threading", "test_queue", "test_subprocess", "test_ast",
             "test_compile", "test_tokenize", "test_long", "test_decimal", "test_memoryview",
             "test_bisect", "test_deque", "test_io", "test_tarfile", "test_zipfile",
             "test_multiprocessing_fork", "test_descr", "test_gc", "test_sqlite3"]

# A module may print what it likes; what counts is each test's verdict and how many there are.
VERDICT = re.compile(r"^.*\.\.\. (?:ok|FAIL|ERROR|expected failure|skipped.*)$|^Ran \d+ tests",
                     re.M)

# It asks a child which descriptors it has, and that of the file for statistics is one.
NOT_COMPARED = "https://bugs.python.org/issue32270"
# What its children say may stand in the middle of such a line: only what went wrong is compared.
CHATTY = "test.test_multiprocessing_fork."


def mask(text):
    return "\n".join(line for line in VERDICT.findall(text)
                     if NOT_COMPARED not in line and not (CHATTY in line and line.endswith("ok")))


def check(box):
    python = box.need("/usr/bin/python3", "python3")
    there = box.run([python, "-c", "import test.test_list, test.test_zlib"], False, ok=None)
    if there.status != 0:
        box.need("no python3 test modules", PACKAGE)
    commands = [[python, "-m", "unittest", "-v", *("test." + name for name in QUICK)]]
    if box.whole:
        # Each by itself: some leave things behind that others stumble over. A test that fails here
        # without the library, too, need not hold up the rest.
        commands += [[python, "-m", "unittest", "-v", "test." + name] for name in WHOLE_TOO]
    for allocator in ("pymalloc", "malloc"):
        box.both_commands(commands, mask=mask, names=["python3"], ok=None,
                          env={"PYTHONMALLOC": allocator, "PYTHONHASHSEED": "7"})
