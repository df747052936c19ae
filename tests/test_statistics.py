import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.statistics import (
    bootstrap,
    bootstrap_many,
    cluster_bootstrap,
    difference_interval,
    paired_difference_interval,
    wilson,
)

Z95 = 1.959963984540054


def wilson_by_hand(successes: int, n: int, z: float) -> tuple[float, float]:
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_closed_formula(counts):
    successes, n = counts
    low, high = wilson(successes, n)
    assert (low, high) == pytest.approx(wilson_by_hand(successes, n, Z95), abs=1e-9)
    assert 0 <= low < high <= 1


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_published_values(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_at_another_confidence():
    assert wilson(30, 100, confidence=0.9) == pytest.approx(wilson_by_hand(30, 100, 1.6448536269514722))


@pytest.mark.parametrize("interval", [lambda: wilson(0, 0), lambda: bootstrap(np.mean, 0)])
def test_no_items_is_a_mistake(interval):
    with pytest.raises(ValueError, match="at least one item"):
        interval()


def test_more_successes_than_items_is_a_mistake():
    with pytest.raises(ValueError, match="n"):
        wilson(3, 2)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, confidence=confidence)


@pytest.mark.parametrize(("confidence", "z"), [(0.95, Z95), (0.9, 1.6448536269514722)])
def test_bootstrap_of_a_mean_agrees_with_normal_theory(confidence, z):
    values = np.random.default_rng(1).exponential(size=5000)
    error = z * values.std(ddof=1) / math.sqrt(len(values))
    interval = bootstrap(lambda items: values[items].mean(), len(values), samples=4000, confidence=confidence)
    assert interval == pytest.approx((values.mean() - error, values.mean() + error), abs=0.1 * error)


def test_bootstrap_depends_on_its_seed_alone():
    values = np.arange(50.0)
    intervals = [bootstrap(lambda items: values[items].mean(), 50, seed=seed) for seed in (3, 3, 4)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_bootstrap_many_gives_what_each_gives_alone():
    values = np.random.default_rng(0).normal(size=80)
    both = bootstrap_many(lambda items: [values[items].mean(), np.median(values[items])], 80)
    assert both == [
        bootstrap(lambda items: values[items].mean(), 80),
        bootstrap(lambda items: float(np.median(values[items])), 80),
    ]


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    # Newcombe (1998), Statistics in Medicine 17:873, table II, method 10.
    [((56, 70), (48, 80), 0.0524, 0.3339), ((9, 10), (3, 10), 0.1705, 0.8090), ((10, 10), (0, 20), 0.6791, 1.0)],
)
def test_the_interval_of_a_difference_gives_published_values(first, second, low, high):
    found = difference_interval(first[0] / first[1], wilson(*first), second[0] / second[1], wilson(*second))
    assert found == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_a_paired_difference_gives_a_published_value():
    # Newcombe (1998), Statistics in Medicine 17:2635, method 10.
    assert paired_difference_interval(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_the_interval_of_a_paired_difference_holds_what_it_promises():
    """In 95 of 100 draws or a little more; as if unpaired it would be far too wide."""
    draw = np.random.default_rng(5)
    cells, n = [0.5, 0.2, 0.1, 0.2], 80
    found = [paired_difference_interval(*draw.multinomial(n, cells)) for _ in range(1000)]
    assert 0.935 <= np.mean([low <= 0.1 <= high for low, high in found]) <= 0.985
    unpaired = difference_interval(0.7, wilson(56, n), 0.6, wilson(48, n))
    assert np.mean([high - low for low, high in found]) < 0.9 * (unpaired[1] - unpaired[0])


def test_answers_to_one_item_are_not_counted_as_independent_ones():
    """Ten seeds that agree on every item tell as much as one: the interval is that of the items."""
    right = np.random.default_rng(2).random(400) < 0.6
    values = np.tile(right.astype(float), 10)
    low, high = cluster_bootstrap(values, np.ones(4000), list(range(400)) * 10, samples=4000)
    one_seed = wilson(int(right.sum()), 400)
    pooled = wilson(int(values.sum()), 4000)
    assert high - low == pytest.approx(one_seed[1] - one_seed[0], rel=0.06)
    assert high - low > 2.8 * (pooled[1] - pooled[0])


def test_clusters_of_one_are_the_plain_bootstrap():
    values = np.random.default_rng(3).normal(size=60)
    plain = bootstrap(lambda items: values[items].sum() / 60, 60)
    assert cluster_bootstrap(values, np.ones(60), range(60)) == pytest.approx(plain)


@pytest.mark.parametrize(
    "module", ["ftx.statistics", "ftx.significance", "ftx.figures", "ftx.sweep_table", "ftx.report", "ftx.diff"]
)
def test_importing_it_imports_nothing_heavy(module):
    heavy = "{'numpy', 'scipy', 'sklearn', 'matplotlib', 'torch'}"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print({heavy} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "set()"
