"""Intervals around scores: how far a number could move had other items been drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def _check(n: int, confidence: float) -> None:
    if n < 1:
        raise ValueError(f"an interval needs at least one item, got n={n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, got {confidence}")
