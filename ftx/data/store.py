"""Tokens on disk, and the rows made of them: Arrow files, memory-mapped and shared by every process that reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa

from ftx.data.arrow import lists, numbers, texts
from ftx.data.encode import TokenBatch
from ftx.data.tokenize import marks_of, supervised_counts

TOKENS = pa.schema(
    {
        "id": pa.string(),
        "input_ids": pa.large_list(pa.int32()),
        "runs": pa.large_list(pa.int32()),
        "supervised": pa.int32(),
    }
)
MEMBERS = pa.schema({"members": pa.large_list(pa.int64())})


@dataclass(frozen=True)
class Row:
    """One row that enters the model: segments one after another.

    ``input_ids`` and ``supervised`` have one entry for each token, ``lengths`` one for each segment; they add up.
    ``samples`` has a number for each segment that stays with it however rows are packed, ``epoch`` is the current one:
    what is drawn at random for a segment is drawn from these.
    """

    input_ids: np.ndarray
    supervised: np.ndarray
    lengths: np.ndarray
    ids: tuple[str, ...] = ()
    samples: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    epoch: int = 0


class TokenWriter:
    """Writes batches of tokenized conversations; the file is complete when the block ends."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, TOKENS)

    def write(self, ids: Sequence[str], batch: TokenBatch) -> None:
        columns = [
            texts(ids),
            lists(batch.input_ids.astype(np.int32, copy=False), batch.lengths),
            lists(batch.runs.astype(np.int32, copy=False), batch.run_counts),
            numbers(supervised_counts(batch).astype(np.int32)),
        ]
        self._writer.write(pa.RecordBatch.from_arrays(columns, schema=TOKENS))

    def __enter__(self) -> "TokenWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()
        self._sink.close()


class TokenStore:
    """The tokens of conversations by their position in the file."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        self._ids = [batch.column("id") for batch in batches]
        self._tokens = [_offsets_and_values(batch.column("input_ids")) for batch in batches]
        self._runs = [_offsets_and_values(batch.column("runs")) for batch in batches]
        self._starts = np.cumsum([0] + [batch.num_rows for batch in batches])
        empty = np.zeros(0, dtype=np.int64)
        # Tokens, and supervised tokens, of each conversation.
        self.lengths = np.concatenate([empty, *(np.diff(offsets) for offsets, _ in self._tokens)])
        self.supervised = np.concatenate([empty, *(batch.column("supervised").to_numpy() for batch in batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, position: int) -> tuple[str, np.ndarray, np.ndarray]:
        """Id, token ids and runs (as in TokenBatch) of one conversation."""
        at = int(np.searchsorted(self._starts, position, side="right")) - 1
        row = position - int(self._starts[at])
        offsets, tokens = self._tokens[at]
        run_offsets, runs = self._runs[at]
        return (
            self._ids[at][row].as_py(),
            tokens[offsets[row] : offsets[row + 1]],
            runs[run_offsets[row] : run_offsets[row + 1]],
        )


class RowStore(Sequence[Row]):
    """Rows of conversations, which a second file lists by their positions among the tokens."""

    def __init__(self, tokens: TokenStore, members: np.ndarray, starts: np.ndarray) -> None:
        self.tokens, self.members, self._starts = tokens, members, starts

    @property
    def starts(self) -> np.ndarray:
        """Where each row begins among ``members``, and where the last one ends."""
        return self._starts

    @classmethod
    def open(cls, tokens: TokenStore, path: Path) -> "RowStore":
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        offsets, members = _offsets_and_values(batch.column("members"))
        return cls(tokens, members, offsets)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return row_of(self.tokens, self.members_of(index))

    def members_of(self, index: int) -> np.ndarray:
        """The positions of the conversations in a row."""
        return self.members[self._starts[index] : self._starts[index + 1]]

    def token_counts(self) -> np.ndarray:
        """``[rows, 2]``: tokens and supervised tokens of each row."""
        return np.stack([self.sums(self.tokens.lengths), self.sums(self.tokens.supervised)], axis=1)

    def sums(self, of_conversations: np.ndarray) -> np.ndarray:
        """Something that is known of each conversation, summed over each row."""
        totals = np.concatenate([[0], np.cumsum(of_conversations[self.members])])
        return np.diff(totals[self._starts])


def row_of(tokens: TokenStore, members: Sequence[int] | np.ndarray, epoch: int = 0) -> Row:
    """The conversations at these positions, one after another."""
    ids, pieces, runs = zip(*(tokens.read(int(position)) for position in members), strict=True)
    return Row(
        np.concatenate(pieces),
        np.concatenate(list(map(marks_of, runs))),
        np.array([len(piece) for piece in pieces], dtype=np.int32),
        ids,
        np.asarray(members, dtype=np.int64),
        epoch,
    )


def write_members(path: Path, rows: Sequence[Sequence[int]]) -> None:
    """The positions of each row's conversations."""
    counts = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(counts.sum()))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, MEMBERS) as writer:
        writer.write(pa.RecordBatch.from_arrays([lists(flat, counts)], schema=MEMBERS))


def _offsets_and_values(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    return column.offsets.to_numpy(), column.values.to_numpy()
