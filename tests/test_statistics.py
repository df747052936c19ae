import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.statistics import bootstrap, bootstrap_many, wilson

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


@pytest.mark.parametrize("module", ["ftx.statistics", "ftx.figures", "ftx.sweep_table"])
def test_importing_it_imports_nothing_heavy(module):
    heavy = "{'numpy', 'scipy', 'sklearn', 'matplotlib', 'torch'}"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print({heavy} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "set()"
