"""Packing against naive searches through all open rows."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftx.data.packing import pack

ROW = 120


def naive_rows(lengths: list[int], max_length: int, *, tightest: bool) -> int:
    """Rows that best-fit (``tightest``) or first-fit decreasing opens, looking at every row for each item."""
    free: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, space in enumerate(free) if space >= length]
        if fitting:
            free[min(fitting, key=lambda row: free[row]) if tightest else fitting[0]] -= length
        else:
            free.append(max_length - length)
    return len(free)


lists_of_lengths = st.lists(st.integers(1, ROW) | st.integers(1, ROW // 4), max_size=60)


@settings(deadline=None)
@given(lists_of_lengths)
def test_every_item_once_no_row_too_long_and_as_many_rows_as_the_naive_search(lengths):
    rows = pack(lengths, ROW)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert max((sum(lengths[index] for index in row) for row in rows), default=0) <= ROW
    assert len(rows) == naive_rows(lengths, ROW, tightest=True)
    assert rows == pack(list(lengths), ROW)


@settings(deadline=None)
@given(st.lists(st.integers(ROW // 6, ROW), max_size=60))
def test_without_tiny_items_it_is_never_worse_than_first_fit_decreasing(lengths):
    """Johnson (1973) proves it for items of at least a sixth of a row; with smaller ones either may win by a row."""
    assert len(pack(lengths, ROW)) <= naive_rows(lengths, ROW, tightest=False)


def test_the_tightest_row_is_taken_and_equal_items_keep_their_order():
    assert pack([6, 7, 3, 4, 3, 3], 10) == [[1, 2], [0, 3], [4, 5]]


@pytest.mark.parametrize("lengths", [[121], [5, 121, 7]])
def test_an_item_longer_than_a_row_is_refused_by_its_index(lengths):
    with pytest.raises(ValueError, match=rf"item {lengths.index(121)} has 121 tokens, more than a row's 120"):
        pack(lengths, ROW)


def test_two_hundred_thousand_items_fill_their_rows():
    draw = random.Random(0)
    lengths = [min(int(draw.lognormvariate(5, 1)) + 1, 4096) for _ in range(200_000)]
    rows = pack(lengths, 4096)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert max(sum(lengths[index] for index in row) for row in rows) <= 4096
    assert len(rows) == -(-sum(lengths) // 4096)
