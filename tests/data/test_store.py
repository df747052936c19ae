"""Rows written to Arrow and mapped again."""

import numpy as np
import pytest

from ftx.data import store
from ftx.data.collate import Row
from ftx.data.store import RowStore, write_rows


def random_rows(count: int, seed: int = 0) -> list[Row]:
    draw = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        lengths = draw.integers(1, 7, size=draw.integers(1, 5)).astype(np.int32)
        tokens = int(lengths.sum())
        ids = tuple(f"é{number}:{at}" for at in range(len(lengths)))
        input_ids = draw.integers(0, 150_000, tokens).astype(np.int32)
        rows.append(Row(input_ids, draw.random(tokens) < 0.4, lengths, ids))
    return rows


@pytest.mark.parametrize("count", [0, 1, store.BATCH, 2 * store.BATCH + 37])
def test_rows_come_back_as_they_went_in_over_every_batch_border(tmp_path, count):
    rows = random_rows(count)
    write_rows(tmp_path / "rows.arrow", iter(rows))
    read = RowStore(tmp_path / "rows.arrow")
    assert len(read) == count
    for written, back in zip(rows, read, strict=True):
        assert back.input_ids.tolist() == written.input_ids.tolist()
        assert back.supervised.dtype == bool
        assert back.supervised.tolist() == written.supervised.tolist()
        assert back.lengths.tolist() == written.lengths.tolist()
        assert back.ids == written.ids
    counts = [[len(row.input_ids), int(row.supervised.sum())] for row in rows]
    assert read.token_counts().tolist() == counts


def test_a_row_that_is_not_there_is_an_index_error(tmp_path):
    write_rows(tmp_path / "rows.arrow", random_rows(3))
    read = RowStore(tmp_path / "rows.arrow")
    for index in (-1, 3):
        with pytest.raises(IndexError):
            read[index]
