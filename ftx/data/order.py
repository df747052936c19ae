"""Which row comes when: a function of seed and epoch alone, so that it is the same after every resume."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftx.data.collate import Row
from ftx.data.store import RowStore


def epoch_order(rows: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the rows for one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


class EpochRows(Sequence[Row]):
    """The training rows in the order of the current epoch; Trainer's data loader calls ``set_epoch``."""

    def __init__(self, store: RowStore, seed: int) -> None:
        self._store, self._seed = store, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self._order = epoch_order(len(self._store), self._seed, epoch)

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        return self._store[int(self._order[index])]


@dataclass(frozen=True)
class TokenTotals:
    """Tokens that training has seen after a step."""

    total: int
    supervised: int


class TokenCounter:
    """Tokens seen after any step, from the order of the rows alone: a resume cannot miscount."""

    def __init__(self, store: RowStore, seed: int, global_batch_size: int) -> None:
        self._counts, self._seed, self._batch = store.token_counts(), seed, global_batch_size
        self.steps_per_epoch = -(-len(store) // global_batch_size)
        self._epoch, self._sums = -1, np.zeros((1, 2), dtype=np.int64)

    def after(self, step: int) -> TokenTotals:
        epoch, steps = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            ordered = self._counts[epoch_order(len(self._counts), self._seed, epoch)]
            self._epoch, self._sums = (
                epoch,
                np.concatenate([np.zeros((1, 2), dtype=np.int64), np.cumsum(ordered, axis=0)]),
            )
        seen = self._counts.sum(axis=0) * epoch + self._sums[min(steps * self._batch, len(self._counts))]
        return TokenTotals(int(seen[0]), int(seen[1]))
