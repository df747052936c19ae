"""Packing against naive searches through all open rows."""

import random
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftx.data.packing import pack, pack_in_order

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


@pytest.mark.parametrize("median", [300, 2500])
def test_of_a_million_items_every_one_is_whole_in_one_row(median):
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(median), 1.0, 1_000_000), 1, 32_768).astype(np.int64)
    rows = pack(lengths.tolist(), 32_768)
    members = np.fromiter(chain.from_iterable(rows), dtype=np.int64)
    assert np.array_equal(np.sort(members), np.arange(1_000_000))
    starts = np.cumsum([0, *map(len, rows)])[:-1]
    assert np.add.reduceat(lengths[members], starts).max() <= 32_768
    assert len(rows) <= -(-lengths.sum() // 32_768) * 1.001


def windows(lengths: list[int], max_length: int, window: int) -> list[list[int]]:
    """The indices of items by the window in which they end, where tokens are laid end to end."""
    found: dict[int, list[int]] = {}
    total = 0
    for index, length in enumerate(lengths):
        total += length
        found.setdefault(total // (window * max_length), []).append(index)
    return list(found.values())


@given(lists_of_lengths, st.integers(1, 6))
def test_in_order_each_window_is_packed_by_itself_and_its_rows_follow_their_first_items(lengths, window):
    expected = []
    for inside in windows(lengths, ROW, window):
        packed = pack([lengths[index] for index in inside], ROW)
        expected += sorted((sorted(inside[at] for at in row) for row in packed), key=min)
    assert pack_in_order(lengths, ROW, window) == expected


@given(lists_of_lengths, st.integers(1, 6))
def test_in_order_every_item_once_no_row_too_long_and_nothing_later_comes_in_an_earlier_window(lengths, window):
    rows = pack_in_order(lengths, ROW, window)
    assert sorted(chain.from_iterable(rows)) == list(range(len(lengths)))
    assert max((sum(lengths[index] for index in row) for row in rows), default=0) <= ROW
    of_item = {index: number for number, inside in enumerate(windows(lengths, ROW, window)) for index in inside}
    of_rows = [{of_item[index] for index in row} for row in rows]
    assert all(len(numbers) == 1 for numbers in of_rows)
    assert sorted(of_rows, key=min) == of_rows


@given(lists_of_lengths)
def test_in_order_one_window_for_all_makes_as_few_rows_in_the_order_of_their_first_items(lengths):
    rows = pack_in_order(lengths, ROW)
    assert sum(lengths) < 64 * ROW
    assert len(rows) == len(pack(lengths, ROW))
    assert sorted(rows) == rows
    assert all(sorted(row) == row for row in rows)


def test_in_order_rows_are_nearly_as_full_and_nothing_moves_far():
    """An item is within a window, and a row for what stays free, of the row it would be in if items could be cut."""
    lengths = np.clip(np.random.default_rng(0).lognormal(5, 1, 50_000), 1, 4096).astype(np.int64)
    rows = pack_in_order(lengths.tolist(), 4096)
    assert len(rows) <= -(-lengths.sum() // 4096) * 1.02
    row_of_item = np.empty(50_000, dtype=np.int64)
    for number, row in enumerate(rows):
        row_of_item[row] = number
    if_cut = np.cumsum(lengths) / lengths.sum() * len(rows)
    assert np.abs(row_of_item - if_cut).max() < 64 + 2


def test_in_order_an_item_longer_than_a_row_is_refused_by_its_index():
    with pytest.raises(ValueError, match="item 30 has 121 tokens, more than a row's 120"):
        pack_in_order([5] * 30 + [121, 7], ROW, window=1)
