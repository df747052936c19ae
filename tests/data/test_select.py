"""Which conversations are kept aside, and how many each source gives."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftx.config.schema import SourceConfig
from ftx.data.select import draw, mixture_counts, split


def numbered(groups: list[str]) -> list[int]:
    """As they appear; '' is a group of its own each time."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(group or f"alone {at}", len(numbers)) for at, group in enumerate(groups)]


groups_of_conversations = st.lists(st.sampled_from(["", "a", "b", "c", "d"]), max_size=40).map(numbered)


@given(groups_of_conversations, st.floats(0, 0.9) | st.integers(1, 50), st.integers(0, 99))
def test_everything_falls_on_one_side_and_no_group_on_both(groups, holdout, seed):
    chosen = split(groups, holdout=holdout, seed=seed)
    assert sorted([*chosen.train, *chosen.held_out]) == list(range(len(groups)))
    assert not {groups[at] for at in chosen.train} & {groups[at] for at in chosen.held_out}
    if holdout == 0:
        assert not len(chosen.held_out)
    elif len(set(groups)) >= 2:
        assert len(chosen.train)
        assert len(chosen.held_out)


@given(groups_of_conversations, st.floats(0.01, 0.9) | st.integers(1, 50), st.integers(0, 99))
def test_no_more_groups_are_kept_aside_than_it_takes(groups, holdout, seed):
    """Without its last group the held-out side has less than was asked for."""
    aside = split(groups, holdout=holdout, seed=seed).held_out.tolist()
    wanted = holdout if holdout >= 1 else holdout * len(groups)
    sizes = Counter(groups[at] for at in aside)
    assert not aside or len(aside) - sizes[groups[aside[-1]]] < max(wanted, 1)


@pytest.mark.parametrize(
    ("count", "holdout", "expected"),
    [(200, 0.1, 20), (7, 0.2, 2), (30, 0.01, 1), (2, 0.9, 1), (200, 1, 1), (200, 37, 37), (200, 1000, 199)],
)
def test_single_conversations_are_kept_aside_by_share_or_by_count(count, holdout, expected):
    chosen = split(range(count), holdout=holdout, seed=1)
    assert (len(chosen.train), len(chosen.held_out)) == (count - expected, expected)


@pytest.mark.parametrize("seed", range(8))
def test_one_large_group_does_not_swamp_the_held_out_side(seed):
    groups = [0] * 270 + list(range(1, 31))
    chosen = split(groups, holdout=0.1, seed=seed)
    assert len(chosen.held_out) <= 30
    assert sorted([*chosen.held_out, *chosen.train]) == list(range(300))
    large = split([0] * 50 + [1] * 40, holdout=0.01, seed=seed)
    assert sorted(large.held_out) == list(range(50, 90)), "where all are too large, the smallest"


def test_the_split_follows_the_seed():
    first, again, other = (split(range(50), holdout=0.2, seed=seed) for seed in (3, 3, 4))
    assert first.train.tolist() == again.train.tolist() != other.train.tolist()
    assert first.held_out.tolist() == again.held_out.tolist()
    assert set(first.held_out.tolist()) != set(other.held_out.tolist())


def test_training_is_not_in_the_order_of_the_file_nor_group_by_group():
    train = split([at // 10 for at in range(50)], holdout=0.1, seed=0).train
    assert train.tolist() != sorted(train)
    neighbours = np.count_nonzero(np.diff(train // 10) == 0)
    assert neighbours < 20


weighed = st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 2000)), min_size=1, max_size=5)


@given(weighed)
def test_weights_are_kept_as_far_as_whole_conversations_go_and_one_source_gives_all(sources):
    weights = {str(at): weight for at, (weight, _) in enumerate(sources)}
    available = {str(at): count for at, (_, count) in enumerate(sources)}
    counts = mixture_counts({name: SourceConfig(weight=weight) for name, weight in weights.items()}, available)
    assert all(counts[name] <= available[name] for name in weights)
    full = [name for name in weights if counts[name] == available[name]]
    shares = [[available[name] * weight / weights[name] for weight in weights.values()] for name in full]
    assert any(np.allclose(list(counts.values()), share, rtol=0, atol=0.5 + 1e-6) for share in shares)


@pytest.mark.parametrize(
    ("weights", "available", "expected"),
    [
        ([1, 3], [100, 90], [30, 90]),
        ([0.1, 0.2, 0.7], [1000, 1000, 70], [10, 20, 70]),
        ([50, 50], [7, 5000], [7, 7]),
        ([0.1], [3], [3]),
    ],
)
def test_a_mixture_by_weight_is_as_large_as_it_can_be(weights, available, expected):
    sources = {str(at): SourceConfig(weight=weight) for at, weight in enumerate(weights)}
    assert list(mixture_counts(sources, {str(at): count for at, count in enumerate(available)}).values()) == expected


def test_rows_are_exact_up_to_what_there_is_and_do_not_change_the_weights_of_others():
    sources = {
        "some": SourceConfig(rows=10),
        "too many": SourceConfig(rows=99),
        "all": SourceConfig(),
        "one part": SourceConfig(weight=1.0),
        "two parts": SourceConfig(weight=2.0),
    }
    available = {"some": 50, "too many": 40, "all": 30, "one part": 20, "two parts": 20}
    expected = {"some": 10, "too many": 40, "all": 30, "one part": 10, "two parts": 20}
    assert mixture_counts(sources, available) == expected


@given(st.integers(0, 50), st.integers(0, 50), st.data())
def test_positions_are_drawn_once_each_and_ascending(begin, available, data):
    count = data.draw(st.integers(0, available))
    positions = draw(begin, begin + available, count, (7, 1))
    assert len(positions) == count
    assert np.all(np.diff(positions) > 0)
    assert np.all((positions >= begin) & (positions < begin + available))


def test_what_is_drawn_follows_the_seed_and_is_drawn_evenly():
    assert draw(0, 1000, 20, (3, 0)).tolist() == draw(0, 1000, 20, (3, 0)).tolist()
    assert draw(0, 1000, 20, (3, 0)).tolist() != draw(0, 1000, 20, (3, 1)).tolist()
    times = np.bincount(np.concatenate([draw(0, 10, 3, (seed,)) for seed in range(2000)]), minlength=10)
    deviation = (2000 * 0.3 * 0.7) ** 0.5
    assert np.abs(times - 600).max() < 4 * deviation
