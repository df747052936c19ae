"""Tests of differences, beside enumeration by hand and published values."""

from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.significance import fisher, holm, mcnemar, paired_t, sign_flip


def tail_of_coins(only_first: int, only_second: int) -> float:
    n = only_first + only_second
    worse = sum(comb(n, k) for k in range(n + 1) if abs(2 * k - n) >= abs(only_first - only_second))
    return worse / 2**n


def by_enumeration(first: tuple[int, int], second: tuple[int, int]) -> float:
    """All tables with these margins that are no more likely than the one seen."""
    successes, n = first[0] + second[0], first[1] + second[1]
    ways = {k: comb(first[1], k) * comb(second[1], successes - k) for k in range(successes + 1)}
    return sum(one for one in ways.values() if one <= ways[first[0]] * (1 + 1e-9)) / comb(n, successes)


counts = st.integers(1, 25).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_counts_coins(only_first, only_second):
    assert mcnemar(only_first, only_second) == pytest.approx(tail_of_coins(only_first, only_second))


def test_mcnemar_is_near_the_published_approximation():
    # Agresti, Categorical Data Analysis (2002), section 10.1.1: 86 and 150 fall apart, z² = 17.36 and so p = 3.1e-5.
    assert mcnemar(86, 150) == pytest.approx(3.1e-5, rel=0.25)


def test_negative_counts_are_a_mistake():
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


@given(counts, counts)
def test_fisher_enumerates_tables(first, second):
    assert fisher(first, second) == pytest.approx(by_enumeration(first, second))


@pytest.mark.parametrize(
    ("first", "second", "p"),
    # The lady tasting tea (Fisher, 1935), and two comparisons of the Jupyter Agent project's epoch ablation.
    [((3, 4), (1, 4), 34 / 70), ((54, 72), (38, 72), 0.00894), ((54, 72), (46, 72), 0.20514)],
)
def test_fisher_gives_published_values(first, second, p):
    assert fisher(first, second) == pytest.approx(p, abs=5e-6)


def test_more_successes_than_items_are_a_mistake():
    with pytest.raises(ValueError, match="5 successes are not among 4 items"):
        fisher((5, 4), (1, 4))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_sign_flips_are_all_tried(differences):
    sums = [
        sum(sign * one for sign, one in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = np.mean([abs(one) >= abs(sum(differences)) for one in sums])
    assert sign_flip(differences) == pytest.approx(expected)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 10))
def test_with_one_seed_the_permutation_test_is_mcnemars(only_first, only_second, alike):
    differences = [1] * only_first + [-1] * only_second + [0] * alike
    assert sign_flip(differences) == pytest.approx(mcnemar(only_first, only_second))


def test_seeds_that_say_the_same_make_no_difference_surer():
    """Counted one by one, five copies of the same answers would seem five times as many items."""
    differences = [1] * 9 + [-1] * 3
    assert sign_flip([5 * one for one in differences]) == pytest.approx(mcnemar(9, 3))
    assert mcnemar(45, 15) < mcnemar(9, 3) / 100


def test_many_items_are_no_trouble():
    assert sign_flip([1] * 2000 + [-1] * 2000) == pytest.approx(1.0)
    assert sign_flip([1] * 3000 + [-1] * 2000) == pytest.approx(mcnemar(3000, 2000), rel=1e-6)


def test_paired_t_is_the_textbooks_formula():
    differences = np.array([0.8, 2.1, -0.4, 1.7, 0.2, 1.1])
    t = differences.mean() / (differences.std(ddof=1) / np.sqrt(6))
    # Student's distribution with 5 degrees of freedom has a closed form.
    angle = np.arctan(t / np.sqrt(5))
    inside = 2 / np.pi * (angle + np.sin(angle) * (np.cos(angle) + 2 / 3 * np.cos(angle) ** 3))
    assert paired_t(list(differences)) == pytest.approx(1 - inside)


def test_paired_t_of_numbers_that_are_all_alike():
    assert (paired_t([0.0, 0.0]), paired_t([0.5, 0.5]), paired_t([1.0])) == (1.0, 0.0, None)


def test_holm_by_hand():
    """5 × 0.01, 4 × 0.02, 3 × 0.03, and from there on no smaller."""
    assert holm([0.04, 0.01, 0.05, 0.02, 0.03]) == pytest.approx([0.09, 0.05, 0.09, 0.08, 0.09])


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_steps_reject(p_values, alpha):
    """As Holm describes it: from the smallest on, until the first that is too large for the number that is left."""
    rejected = set()
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        if (len(p_values) - rank) * p_values[at] > alpha:
            break
        rejected.add(at)
    assert {at for at, p in enumerate(holm(p_values)) if p <= alpha} == rejected
