"""Intervals around scores: how far a number could move had other items been drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Interval = tuple[float, float]


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion: stays inside [0, 1] and is honest near both ends.

    Raises ``ValueError`` without items, or where ``successes`` are not among them.
    """
    from scipy.stats import binomtest

    _check(n, confidence)
    interval = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The percentile bootstrap interval of ``statistic``, which is given ``n`` item indices drawn with replacement.

    Raises ``ValueError`` without items.
    """
    return bootstrap_many(lambda items: [statistic(items)], n, samples=samples, seed=seed, confidence=confidence)[0]


def bootstrap_many(
    statistics: Callable[[np.ndarray], Sequence[float] | np.ndarray],
    n: int,
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Interval]:
    """Like ``bootstrap`` for several numbers that come out of one pass over the items: all see the same draws."""
    import numpy as np

    _check(n, confidence)
    if samples < 1:
        raise ValueError(f"a bootstrap needs at least one sample, got {samples}")
    generator = np.random.default_rng(seed)
    draws = np.array([statistics(generator.integers(0, n, size=n)) for _ in range(samples)], dtype=float)
    tail = (1 - confidence) / 2
    lows, highs = np.quantile(draws, [tail, 1 - tail], axis=0)
    return [(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]


def cluster_bootstrap(
    values: Sequence[float],
    weights: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    samples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """The bootstrap interval of ``sum(values) / sum(weights)`` where observations of one cluster stay together.

    Answers to one item under several seeds are no independent ones: counted as if they were, they make an interval
    too narrow. So items are drawn, each with all its answers. Raises ``ValueError`` without observations.
    """
    import numpy as np

    places = {cluster: at for at, cluster in enumerate(dict.fromkeys(clusters))}
    at = [places[cluster] for cluster in clusters]
    sums = np.bincount(at, weights=values, minlength=len(places))
    sizes = np.bincount(at, weights=weights, minlength=len(places))

    def ratio(items: np.ndarray) -> float:
        return float(sums[items].sum() / sizes[items].sum())

    return bootstrap(ratio, len(places), samples=samples, seed=seed, confidence=confidence)


def difference_interval(
    first: float, first_interval: Interval, second: float, second_interval: Interval, correlation: float = 0.0
) -> Interval:
    """The interval of ``first - second`` from the interval of each: Newcombe's square-and-add (1998, method 10).

    ``correlation`` is between the two estimates; 0 for arms on different items, and wider than need be for arms on the
    same items.
    """
    below, above = first - first_interval[0], first_interval[1] - first
    other_below, other_above = second - second_interval[0], second_interval[1] - second
    difference = first - second
    low = below**2 - 2 * correlation * below * other_above + other_above**2
    high = above**2 - 2 * correlation * above * other_below + other_below**2
    return difference - math.sqrt(max(low, 0.0)), difference + math.sqrt(max(high, 0.0))


def paired_difference_interval(both: int, only_first: int, only_second: int, neither: int) -> Interval:
    """The 95 % interval of the difference between two arms' shares of right answers to the same items.

    Newcombe (1998, Statistics in Medicine 17:2635), method 10: square-and-add over Wilson intervals, with the
    correlation phi of the two arms, corrected for continuity. Raises ``ValueError`` without items.
    """
    n = both + only_first + only_second + neither
    _check(n, confidence=0.95)
    first, second = both + only_first, both + only_second
    margins = first * (n - first) * second * (n - second)
    agreement = both * neither - only_first * only_second
    corrected = max(agreement - n / 2, 0.0) if agreement > 0 else agreement
    phi = corrected / math.sqrt(margins) if margins else 0.0
    return difference_interval(first / n, wilson(first, n), second / n, wilson(second, n), phi)


def _check(n: int, confidence: float) -> None:
    if n < 1:
        raise ValueError(f"an interval needs at least one item, got n={n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, got {confidence}")
