"""stress-ng: its malloc stressor, which verifies what it stored, with threads too."""
SECONDS = 120


def check(box):
    stress = box.need("stress-ng", "stress-ng")
    for extra in ([], ["--malloc-pthreads", "2"], ["--malloc-touch", "--malloc-trim"]):
        result = box.run([stress, "--malloc", "2", "--malloc-ops", "400000", "--malloc-bytes",
                          "64m", "--malloc-max", "4096", *extra, "--verify", "--timeout", "10",
                          "--seed", "7"], True, ok=None)
        if b"unrecognized option" in result.err + result.out:
            continue                            # older ones have fewer options
        words = (result.out + result.err).decode("utf-8", "replace")
        assert result.status == 0 and "successful run completed" in words, words[-1000:]
    box.expect_served("stress-ng")
