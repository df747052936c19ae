"""Packed rows on disk: one memory-mapped Arrow file, shared by every process that reads it."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ftx.data.collate import Row

SCHEMA = pa.schema(
    {
        "input_ids": pa.large_list(pa.int32()),
        "supervised": pa.large_list(pa.uint8()),
        "lengths": pa.large_list(pa.int32()),
        "ids": pa.large_list(pa.string()),
    }
)
BATCH = 1024


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write in batches, so that memory does not grow with the number of rows."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                writer.write(_record_batch(batch))
                batch = []
        if batch:
            writer.write(_record_batch(batch))


class RowStore(Sequence[Row]):
    """The rows of a file, read from the memory map when asked for."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        self._starts = np.cumsum([0] + [batch.num_rows for batch in self._batches])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        at = int(np.searchsorted(self._starts, index, side="right")) - 1
        columns = [self._batches[at].column(number)[index - int(self._starts[at])] for number in range(4)]
        input_ids, supervised, lengths = (np.asarray(column.values) for column in columns[:3])
        return Row(input_ids, supervised.astype(bool), lengths, tuple(columns[3].as_py()))

    def token_counts(self) -> np.ndarray:
        """``[rows, 2]``: tokens and supervised tokens of each row."""
        counts = []
        for batch in self._batches:
            ids, supervised = batch.column(0), batch.column(1)
            offsets = ids.offsets.to_numpy()
            sums = np.concatenate([[0], np.cumsum(supervised.values.to_numpy(), dtype=np.int64)])
            counts.append(np.stack([np.diff(offsets), np.diff(sums[offsets])], axis=1))
        return np.concatenate(counts) if counts else np.zeros((0, 2), dtype=np.int64)


def _record_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    columns = {
        "input_ids": [row.input_ids for row in rows],
        "supervised": [row.supervised.astype(np.uint8) for row in rows],
        "lengths": [row.lengths for row in rows],
        "ids": [list(row.ids) for row in rows],
    }
    return pa.record_batch([pa.array(values, type=SCHEMA.field(name).type) for name, values in columns.items()], SCHEMA)
