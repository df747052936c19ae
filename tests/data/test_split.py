"""Which conversations are kept aside."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftx.data.conversation import Conversation
from ftx.data.split import split


def conversations(groups: list[str]) -> list[Conversation]:
    return [Conversation(f"{number}", (), group=group) for number, group in enumerate(groups)]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "a", "b", "c", "d"]), max_size=40), st.floats(0, 0.9), st.integers(0, 99))
def test_everything_falls_on_one_side_and_no_group_on_both(groups, holdout, seed):
    given_ones = conversations(groups)
    train, aside = split(given_ones, holdout=holdout, seed=seed)
    assert Counter(one.id for one in train + aside) == Counter(one.id for one in given_ones)
    assert not {one.group for one in train if one.group} & {one.group for one in aside if one.group}
    distinct = len({one.group or one.id for one in given_ones})
    if holdout == 0:
        assert not aside
    elif distinct >= 2:
        assert train
        assert aside


@pytest.mark.parametrize(("count", "holdout", "expected"), [(200, 0.1, 20), (7, 0.2, 2), (30, 0.01, 1), (2, 0.9, 1)])
def test_single_conversations_are_kept_aside_to_the_share_that_was_asked_for(count, holdout, expected):
    train, aside = split(conversations([""] * count), holdout=holdout, seed=1)
    assert (len(train), len(aside)) == (count - expected, expected)


def test_the_split_follows_the_seed():
    given_ones = conversations([""] * 50)
    assert split(given_ones, holdout=0.2, seed=3) == split(given_ones, holdout=0.2, seed=3)
    assert split(given_ones, holdout=0.2, seed=3) != split(given_ones, holdout=0.2, seed=4)


def test_training_is_not_in_the_order_of_the_file():
    train, _ = split(conversations([""] * 50), holdout=0.1, seed=0)
    order = [int(one.id) for one in train]
    assert order != sorted(order)
