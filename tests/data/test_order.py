"""The order of rows and the tokens seen, against a simulation of every step."""

import numpy as np
import pytest

from ftx.data.collate import Row
from ftx.data.order import EpochRows, TokenCounter, epoch_order
from ftx.data.store import RowStore, write_rows


@pytest.fixture
def rows(tmp_path) -> RowStore:
    """Eleven rows whose first token is their number, of uneven lengths."""
    written = []
    for number in range(11):
        tokens = 2 + number * number % 7
        supervised = np.arange(tokens) >= number % 3
        written.append(Row(np.full(tokens, number, np.int32), supervised, np.array([tokens], np.int32), (str(number),)))
    write_rows(tmp_path / "rows.arrow", written)
    return RowStore(tmp_path / "rows.arrow")


def numbers(rows: EpochRows) -> list[int]:
    return [int(row.input_ids[0]) for row in rows]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(rows):
    epochs = EpochRows(rows, seed=5)
    orders = []
    for epoch in range(4):
        epochs.set_epoch(epoch)
        orders.append(numbers(epochs))
        assert sorted(orders[-1]) == list(range(11))
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] != list(range(11))


def test_the_order_follows_from_seed_and_epoch_alone(rows):
    first, again, other = EpochRows(rows, seed=5), EpochRows(rows, seed=5), EpochRows(rows, seed=6)
    for epoch in (3, 1):
        first.set_epoch(epoch)
    again.set_epoch(1)
    other.set_epoch(1)
    assert numbers(first) == numbers(again) == epoch_order(11, 5, 1).tolist()
    assert numbers(other) != numbers(first)


@pytest.mark.parametrize("global_batch_size", [1, 2, 4, 11, 16])
def test_tokens_seen_equal_those_of_the_batches_of_every_step(rows, global_batch_size):
    counter = TokenCounter(rows, seed=9, global_batch_size=global_batch_size)
    epochs = EpochRows(rows, seed=9)
    total = supervised = step = 0
    expected = {0: (0, 0)}
    for epoch in range(3):
        epochs.set_epoch(epoch)
        for begin in range(0, 11, global_batch_size):
            for at in range(begin, min(begin + global_batch_size, 11)):
                total += len(epochs[at].input_ids)
                supervised += int(epochs[at].supervised.sum())
            step += 1
            expected[step] = (total, supervised)
    assert counter.steps_per_epoch * 3 == step
    for asked in [*expected, *reversed(expected)]:
        seen = counter.after(asked)
        assert (seen.total, seen.supervised) == expected[asked]
