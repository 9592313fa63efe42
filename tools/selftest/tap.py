"""Run the test functions of a module and report them in TAP."""
import traceback


class Skip(Exception):
    """Raised by a test that cannot run here; its text says what is missing."""


def run(tests):
    print(f"1..{len(tests)}")
    for number, test in enumerate(tests, 1):
        name = test.__name__.removeprefix("test_").replace("_", " ")
        try:
            test()
        except Skip as why:
            print(f"ok {number} - {name} # SKIP {why}", flush=True)
        except Exception:
            traceback.print_exc()  # to stderr, which meson shows
            print(f"not ok {number} - {name}", flush=True)
        else:
            print(f"ok {number} - {name}", flush=True)
