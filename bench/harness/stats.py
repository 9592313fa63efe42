"""Median, spread, ratios with bootstrap confidence intervals, geometric means."""

import functools
import math
import random

RESAMPLES = 1000


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def quantile(values, q):
    """Linear between the two nearest."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def spread(values):
    """How far the runs lie apart, as a part of their median: the middle half of them where there
    are enough to speak of one, otherwise all."""
    middle = median(values)
    if middle == 0 or len(values) < 2:
        return 0.0
    if len(values) < 5:
        return (max(values) - min(values)) / middle
    return (quantile(values, 0.75) - quantile(values, 0.25)) / middle


def geometric_mean(ratios):
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))


class Resampler:
    """Draws the same rounds for every allocator: they ran side by side, so what disturbed one
    round disturbed all of it. Seeded, so that a result file always gives the same report."""

    def __init__(self, seed=1):
        self.random = random.Random(seed)

    def rounds(self, count):
        return [self.random.randrange(count) for _ in range(count)]


def ratio_of(base, other, picks=None):
    """median(other) / median(base), over the picked rounds where picks is given."""
    if picks is not None:
        base = [base[i] for i in picks]
        other = [other[i] for i in picks]
    return median(other) / median(base)


def interval(values):
    """The middle 95 % of bootstrap results."""
    return [quantile(values, 0.025), quantile(values, 0.975)]


def _verdict(base, other, samples):
    """The ratio with its interval. undecided: the difference is not larger than the spread of the
    runs, or the interval includes 1, or there is but one run."""
    ratio = ratio_of(base, other)
    low, high = interval(samples)
    wide = max(spread(base), spread(other))
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "spread": wide,
        "undecided": (min(len(base), len(other)) < 2 or abs(ratio - 1) <= wide
                      or low <= 1 <= high),
    }


@functools.cache
def _picks(count):
    resampler = Resampler()
    return [resampler.rounds(count) for _ in range(RESAMPLES)]


def compare(base, other):
    """One allocator in one row against another; base[i] and other[i] are of the same round."""
    return _verdict(base, other, [ratio_of(base, other, picks) for picks in _picks(len(base))])


def compare_apart(base, other):
    """The same for runs that did not take turns, as of two results: each is drawn by itself."""
    samples = []
    resampler = Resampler()
    for _ in range(RESAMPLES):
        one = [base[i] for i in resampler.rounds(len(base))]
        two = [other[i] for i in resampler.rounds(len(other))]
        samples.append(ratio_of(one, two))
    return _verdict(base, other, samples)


def compare_means(pairs):
    """Geometric mean of the ratios over rows, with its interval; pairs: [(base, other), ...]."""
    mean = geometric_mean([ratio_of(base, other) for base, other in pairs])
    resampler = Resampler()
    samples = []
    for _ in range(RESAMPLES):
        ratios = [ratio_of(base, other, resampler.rounds(len(base))) for base, other in pairs]
        samples.append(geometric_mean(ratios))
    low, high = interval(samples)
    return {"ratio": mean, "low": low, "high": high, "rows": len(pairs),
            "runs": min(len(base) for base, _ in pairs)}
