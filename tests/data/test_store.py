"""Tokens and rows written to Arrow and mapped again."""

from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest

from ftx.data.encode import TokenBatch
from ftx.data.store import RowStore, TokenStore, TokenWriter, row_of, write_members
from ftx.data.tokenize import marks_of


@dataclass(frozen=True)
class Tokens:
    """A conversation, one entry for each token."""

    id: str
    input_ids: list[int]
    supervised: list[bool]


def random_tokens(count: int, seed: int = 0) -> list[Tokens]:
    """Of 1 to 9 tokens; some all supervised, some not at all."""
    draw = np.random.default_rng(seed)
    made = []
    for number in range(count):
        size = int(draw.integers(1, 10))
        marks = draw.random(size) < draw.choice([0, 0.4, 1])
        made.append(Tokens(f"é{number}", draw.integers(0, 150_000, size).tolist(), marks.tolist()))
    return made


def runs(marks: list[bool]) -> list[int]:
    """How many tokens are not supervised, how many then are, and so on."""
    lengths = [len(list(equal)) for _, equal in groupby(marks)]
    return [0, *lengths] if marks[0] else lengths


def batch_of(conversations: list[Tokens]) -> TokenBatch:
    of_each = [runs(one.supervised) for one in conversations]
    return TokenBatch(
        np.array([token for one in conversations for token in one.input_ids], dtype=np.int32),
        np.array([len(one.input_ids) for one in conversations], dtype=np.int64),
        np.array([run for one in of_each for run in one], dtype=np.int64),
        np.array([len(one) for one in of_each], dtype=np.int64),
    )


def stored(path: Path, conversations: list[Tokens], batches: list[int]) -> TokenStore:
    """Written so many at a time."""
    borders = np.cumsum([0, *batches])
    with TokenWriter(path) as writer:
        for begin, end in pairwise(borders):
            some = conversations[begin:end]
            writer.write([one.id for one in some], batch_of(some))
    return TokenStore(path)


@pytest.mark.parametrize("batches", [[], [0], [1], [40], [5, 1, 0, 33, 1]])
def test_tokens_come_back_as_they_went_in_over_every_batch_border(tmp_path, batches):
    written = random_tokens(sum(batches))
    tokens = stored(tmp_path / "tokens.arrow", written, batches)
    assert len(tokens) == len(written)
    for position, one in enumerate(written):
        name, input_ids, its_runs = tokens.read(position)
        assert (name, input_ids.tolist(), marks_of(its_runs).tolist()) == (one.id, one.input_ids, one.supervised)
    assert tokens.lengths.tolist() == [len(one.input_ids) for one in written]
    assert tokens.supervised.tolist() == [one.supervised.count(True) for one in written]


WRITTEN = random_tokens(60, seed=1)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory) -> TokenStore:
    return stored(tmp_path_factory.mktemp("tokens") / "tokens.arrow", WRITTEN, [7, 30, 23])


def groupings() -> dict[str, list[list[int]]]:
    draw = np.random.default_rng(2)
    shuffled = draw.permutation(60)
    cuts = np.sort(draw.choice(np.arange(1, 60), 20, replace=False))
    return {
        "each alone": [[at] for at in range(60)],
        "all in one": [list(range(59, -1, -1))],
        "any order, any number": [part.tolist() for part in np.split(shuffled, cuts)],
        "not all of them": [[30, 2], [59], [3, 36, 37]],
    }


@pytest.mark.parametrize("members", groupings().values(), ids=groupings())
def test_rows_hold_their_conversations_in_the_order_that_was_asked_for(tmp_path, tokens, members):
    write_members(tmp_path / "rows.arrow", members)
    rows = RowStore.open(tokens, tmp_path / "rows.arrow")
    assert len(rows) == len(members)
    for row, positions in zip(rows, members, strict=True):
        inside = [WRITTEN[at] for at in positions]
        assert row.ids == tuple(one.id for one in inside)
        assert row.input_ids.tolist() == [token for one in inside for token in one.input_ids]
        assert row.supervised.tolist() == [mark for one in inside for mark in one.supervised]
        assert row.supervised.dtype == bool
        assert row.lengths.tolist() == [len(one.input_ids) for one in inside]
    assert rows.token_counts().tolist() == [[len(row.input_ids), int(row.supervised.sum())] for row in rows]


def test_what_is_known_of_conversations_is_summed_over_each_row(tmp_path, tokens):
    members = groupings()["any order, any number"]
    write_members(tmp_path / "rows.arrow", members)
    weights = np.random.default_rng(3).random(60)
    sums = RowStore.open(tokens, tmp_path / "rows.arrow").sums(weights)
    assert sums.tolist() == pytest.approx([weights[row].sum() for row in members])


def test_a_row_that_is_not_there_is_an_index_error(tmp_path, tokens):
    write_members(tmp_path / "rows.arrow", [[1], [2, 3], [4]])
    rows = RowStore.open(tokens, tmp_path / "rows.arrow")
    for index in (-1, 3):
        with pytest.raises(IndexError):
            rows[index]


def test_no_rows_at_all_can_be_opened(tmp_path, tokens):
    write_members(tmp_path / "rows.arrow", [])
    rows = RowStore.open(tokens, tmp_path / "rows.arrow")
    assert list(rows) == []
    assert rows.token_counts().shape == (0, 2)


@pytest.mark.parametrize("positions", [[4], [50, 6, 7, 36]])
def test_a_row_can_be_made_of_any_conversations(tokens, positions):
    row = row_of(tokens, np.array(positions))
    inside = [WRITTEN[at] for at in positions]
    assert row.ids == tuple(one.id for one in inside)
    assert row.input_ids.tolist() == [token for one in inside for token in one.input_ids]
    assert row.supervised.tolist() == [mark for one in inside for mark in one.supervised]
    assert row.lengths.tolist() == [len(one.input_ids) for one in inside]
