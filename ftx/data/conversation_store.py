"""Conversations on disk: an Arrow file, written a batch at a time, mapped by whoever reads from it."""

import copy
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute

from ftx.data.arrow import numbers, texts
from ftx.data.conversation import Conversation, Stored, from_stored

SCHEMA = pa.schema({"id": pa.string(), "group": pa.string(), "rank": pa.float64(), "body": pa.string()})
# Rows of a batch, and about how many characters at most, so that memory does not grow with the file.
BATCH, BATCH_CHARACTERS = 1024, 2**22


class ConversationWriter:
    """Writes conversations as they come; the file is complete when the block ends."""

    def __init__(self, path: Path) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)
        self._waiting: list[Stored] = []
        self._characters = 0
        self.written = 0

    def add(self, stored: Stored) -> None:
        self._waiting.append(stored)
        self._characters += len(stored[3])
        self.written += 1
        if len(self._waiting) == BATCH or self._characters > BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            ids, groups, ranks, bodies = zip(*self._waiting, strict=True)
            columns = [texts(ids), texts(groups), numbers(np.array(ranks, dtype=np.float64)), texts(bodies)]
            self._writer.write(pa.RecordBatch.from_arrays(columns, schema=SCHEMA))
        self._waiting, self._characters = [], 0

    def __enter__(self) -> "ConversationWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        self._sink.close()


class ConversationStore(Sequence[Conversation]):
    """The conversations of a file, all of them or those at ``chosen`` in that order, read when asked for."""

    def __init__(self, path: Path) -> None:
        # Both stay readable when the file is pruned away.
        self._file = pa.OSFile(str(path), "rb")
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        self._starts = np.cumsum([0] + [batch.num_rows for batch in self._batches])
        self._chosen = np.arange(self._starts[-1])

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...

    @overload
    def __getitem__(self, index: slice) -> "ConversationStore": ...

    def __getitem__(self, index: int | slice) -> "Conversation | ConversationStore":
        if isinstance(index, slice):
            return self.choose(self._chosen[index])
        position = int(self._chosen[index])
        at = int(np.searchsorted(self._starts, position, side="right")) - 1
        row = position - int(self._starts[at])
        name, group, rank, body = (self._batches[at].column(number)[row].as_py() for number in range(4))
        return from_stored((name, group, rank, body))

    def choose(self, positions: np.ndarray) -> "ConversationStore":
        """The conversations at these positions of the file."""
        chosen = copy.copy(self)
        chosen._chosen = positions
        return chosen

    def ranks(self) -> np.ndarray:
        """The rank of each conversation of the file."""
        return np.concatenate([batch.column("rank").to_numpy() for batch in self._batches] or [np.zeros(0)])

    def groups(self) -> np.ndarray:
        """A number for each conversation of the file, equal for those of one group and numbered as they appear."""
        groups = pa.chunked_array([batch.column("group") for batch in self._batches], pa.string())
        encoded = groups.dictionary_encode().unify_dictionaries().combine_chunks()
        codes = encoded.indices.to_numpy().astype(np.int64)
        alone = pyarrow.compute.equal(groups, "").combine_chunks().to_numpy(zero_copy_only=False)
        codes[alone] = len(codes) + np.arange(np.count_nonzero(alone))
        return numbered_as_they_appear(codes)

    def size_of(self, positions: np.ndarray) -> int:
        """Characters of the conversations at these positions of the file, about: by their share of it."""
        whole = sum(batch.column("body").nbytes for batch in self._batches)
        return int(whole * len(positions) / max(int(self._starts[-1]), 1))

    def in_file_order(self) -> Iterator[Conversation]:
        """All of them, read as ``stream`` reads."""
        return self.stream(np.sort(self._chosen))

    def stream(self, positions: np.ndarray) -> Iterator[Conversation]:
        """The conversations at ascending positions of the file, one batch of it in memory at a time."""
        return (from_stored(stored) for batch in self.stream_batches(positions) for stored in batch)

    def stream_batches(self, positions: np.ndarray) -> Iterator[list[Stored]]:
        """The same, as they are stored and batch by batch."""
        reader = pa.ipc.open_file(self._file)
        borders = np.searchsorted(positions, self._starts)
        for at, (begin, end) in enumerate(pairwise(borders)):
            if begin < end:
                batch = reader.get_batch(at).take(numbers(positions[begin:end] - self._starts[at]))
                yield list(zip(*(batch.column(number).to_pylist() for number in range(4)), strict=True))


def numbered_as_they_appear(codes: np.ndarray) -> np.ndarray:
    """The first code that appears as 0, the next new one as 1, and so on."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    number = np.empty(len(first), dtype=np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]
