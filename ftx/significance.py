"""Could a difference between two arms be chance? Tests that are exact where they can be, and their correction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided: p of two arms that were right on the same items but for these.

    Of the items that only one of the two got right, each falls to either with probability ½ (McNemar, 1947, in the
    binomial form). Items that both or neither got right say nothing. Raises ``ValueError`` for a negative count.
    """
    from scipy.stats import binomtest

    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts cannot be negative, got {only_first} and {only_second}")
    discordant = only_first + only_second
    return float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def sign_flip(differences: Sequence[int]) -> float:
    """The exact paired permutation test, two-sided: p of a sum as far from 0 as that of ``differences``.

    One whole number an item, such as how many more of an item's seeds one arm got right than the other. Were the arms
    alike, each could as well have the other sign (Fisher, 1935). With differences of -1, 0 and 1 it is McNemar's test.
    """
    import numpy as np

    steps = [abs(one) for one in differences if one]
    # ways[k]: the probability that the steps that go up add to k. Their sum is then 2 k - sum(steps).
    ways = np.ones(1)
    for step in steps:
        longer = np.zeros(len(ways) + step)
        longer[: len(ways)] += ways / 2
        longer[step:] += ways / 2
        ways = longer
    sums = 2 * np.arange(len(ways)) - sum(steps)
    return min(1.0, float(ways[np.abs(sums) >= abs(sum(differences))].sum()))


def paired_t(differences: Sequence[float]) -> float | None:
    """Student's t-test of paired numbers, two-sided: p of a mean difference of 0; None for fewer than two items.

    Differences that are all alike leave nothing to chance: p is 1 where they are 0, else 0.
    """
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return None
    if all(left == right for left, right in pairwise(differences)):
        return 1.0 if differences[0] == 0 else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def fisher(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Fisher's exact test, two-sided: p of two independent counts ``(successes, n)`` of one proportion.

    Raises ``ValueError`` where successes are not among the items.
    """
    from scipy.stats import fisher_exact

    for successes, n in (first, second):
        if not 0 <= successes <= n:
            raise ValueError(f"{successes} successes are not among {n} items")
    table = [[successes, n - successes] for successes, n in (first, second)]
    return float(fisher_exact(table).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction: the adjusted p values, in the order given.

    Calling "different" what stays at or below α keeps the chance of a single false one among all at or below α, however
    the tests depend on each other.
    """
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted
