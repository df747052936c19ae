"""Rows of tokens into what a model's forward takes: one flat sequence, with the borders of its segments."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftx.data.segments import Segments
from ftx.data.store import Row

IGNORED = -100
NO_ROW = Row(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=bool), np.ones(1, dtype=np.int32))


def predicted_positions(row: Row) -> np.ndarray:
    """Positions whose next token is supervised and in the same segment: the only ones the head has to see."""
    target = row.supervised.copy()
    target[np.cumsum(row.lengths)[:-1]] = False
    target[0] = False
    return np.flatnonzero(target) - 1


def collate(rows: Sequence[Row], shared: int = 0) -> dict[str, Any]:
    """Flatten ``rows`` to ``[1, tokens]``.

    ``logits_to_keep`` are the positions whose next token is supervised; ``labels`` are those next tokens behind a
    leading -100, because Trainer, which counts targets for us, leaves out the first label of a causal model, and
    ``shift_labels`` are the same without it, for the model's head.
    ``shared``: all segments begin with the same so many tokens, which predict nothing and enter the row only once.
    """
    lengths = np.concatenate([row.lengths for row in rows])
    input_ids = np.concatenate([row.input_ids for row in rows])
    starts = np.cumsum([0] + [len(row.input_ids) for row in rows[:-1]])
    keep = np.concatenate([predicted_positions(row) + start for row, start in zip(rows, starts, strict=True)])
    targets = input_ids[keep + 1]
    positions = np.concatenate([np.arange(length) for length in lengths])
    if shared and len(lengths) > 1:
        entering = positions >= shared
        entering[:shared] = True
        keep = np.cumsum(entering)[keep] - 1
        input_ids, positions = input_ids[entering], positions[entering]
        lengths = np.concatenate([[shared], lengths - shared])
    else:
        shared = 0
    return {
        "input_ids": torch.from_numpy(input_ids.astype(np.int64))[None],
        "position_ids": torch.from_numpy(positions.astype(np.int64))[None],
        "segments": Segments((0, *np.cumsum(lengths).tolist()), shared),
        "logits_to_keep": torch.from_numpy(keep.astype(np.int64)),
        "labels": torch.from_numpy(np.concatenate([[IGNORED], targets]).astype(np.int64)),
        "shift_labels": torch.from_numpy(targets.astype(np.int64)),
        "use_cache": False,
    }


@dataclass(frozen=True)
class MicroBatchCollator:
    """What Trainer's loader hands over: one micro-batch of rows, a token of nobody's where it has none."""

    shared: int = 0

    def __call__(self, batch: Sequence[Sequence[Row]]) -> dict[str, Any]:
        (rows,) = batch
        return collate(rows, self.shared) if rows else collate([NO_ROW])
