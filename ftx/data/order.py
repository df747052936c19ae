"""Which rows make up which step, and who computes them: functions of seed and epoch, so the same after every resume."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftx.config.parallel import ranks
from ftx.config.schema import RunConfig
from ftx.data.cost import Cost
from ftx.data.packing import pack
from ftx.data.prepare import Prepared
from ftx.data.store import Row, RowStore, row_of
from ftx.progress import Progress

# Rows whose costs are closer than this share are alike: among them the order is random.
ALIKE = 1 / 64


def epoch_steps(costs: np.ndarray, batch: int, *, order: str, seed: int, epoch: int) -> list[np.ndarray]:
    """The items of each step of an epoch, every item once; the last step is short where ``batch`` does not divide.

    ``order``: ``balanced`` puts items of similar cost into one step, so that no device waits however many share it, and
    shuffles the steps; ``random`` shuffles the items; anything else takes them as they are, in every epoch.
    """
    count = len(costs)
    draw = np.random.default_rng([seed, epoch])
    if order == "random":
        return _cut(draw.permutation(count), batch)
    if order != "balanced":
        return _cut(np.arange(count), batch)
    shuffled = draw.permutation(count)
    buckets = np.floor(np.log(costs[shuffled]) / np.log1p(ALIKE))
    by_cost = shuffled[np.argsort(buckets, kind="stable")]
    short = count % batch
    begin = int(draw.integers(count - short + 1)) if short else count
    whole = _cut(np.concatenate([by_cost[:begin], by_cost[begin + short :]]), batch)
    steps = [whole[at] for at in draw.permutation(len(whole))]
    return [*steps, by_cost[begin : begin + short]] if short else steps


def share(costs: np.ndarray, ranks: int, most: int) -> list[list[int]]:
    """The rows of one step for each rank, at most ``most`` each: the dearest first, each to the rank with least so far.

    (Longest processing time first: Graham, 1969.) Raises ValueError where there are more rows than places.
    """
    if len(costs) > ranks * most:
        raise ValueError(f"{len(costs)} rows do not fit {ranks} ranks with {most} each")
    shares: list[list[int]] = [[] for _ in range(ranks)]
    least = [(0.0, rank) for rank in range(ranks)]
    for row in np.argsort(-costs, kind="stable"):
        load, rank = heapq.heappop(least)
        shares[rank].append(int(row))
        if len(shares[rank]) < most:
            heapq.heappush(least, (load + float(costs[row]), rank))
    return shares


@dataclass(frozen=True)
class TokenTotals:
    """Tokens that training has seen after a step."""

    total: int
    supervised: int


class TrainingOrder:
    """All of a training's steps.

    Items are the rows of the store. With ``pack_to`` (``data.packing_scope=global_batch``) the items of a step are
    shared out to ``ranks``, each of which packs its own into rows of at most so many tokens: packed before, they would
    make fewer rows than there are devices. Else each item is a row of its own.
    """

    def __init__(
        self,
        items: RowStore,
        cost: Cost,
        *,
        order: str,
        seed: int,
        global_batch_size: int,
        pack_to: int | None = None,
        ranks: int = 1,
    ) -> None:
        self.items, self.ranks = items, ranks
        self._order, self._seed, self._batch, self._pack_to = order, seed, global_batch_size, pack_to
        self._costs, self._counts = cost.of_rows(items), items.token_counts()
        self._epoch, self._steps = -1, list[np.ndarray]()
        self._seen = np.zeros((1, 2), dtype=np.int64)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.items) // self._batch)

    def steps(self, epoch: int) -> list[np.ndarray]:
        """The items of each step."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._steps = epoch_steps(self._costs, self._batch, order=self._order, seed=self._seed, epoch=epoch)
            sums = np.array([self._counts[step].sum(axis=0) for step in self._steps])
            self._seen = np.concatenate([np.zeros((1, 2), dtype=np.int64), np.cumsum(sums, axis=0)])
        return self._steps

    def shares(self, epoch: int, step: int, most: int | None = None) -> list[list[np.ndarray]]:
        """The rows of each rank, each as the items in it, the dearest first.

        ``most`` rows a rank, by default as few as can be; one that packs its own has as many as that takes.
        """
        items = self.steps(epoch)[step]
        if self._pack_to is not None:
            shares = share(self._costs[items], self.ranks, len(items))
            return [self._packed(items[np.sort(np.array(mine, dtype=np.intp))]) for mine in shares]
        most = most or -(-len(items) // self.ranks)
        return [[items[at : at + 1] for at in mine] for mine in share(self._costs[items], self.ranks, most)]

    def _packed(self, items: np.ndarray) -> list[np.ndarray]:
        assert self._pack_to is not None
        rows = [items[row] for row in pack(self._counts[items, 0], self._pack_to)]
        return sorted(rows, key=lambda row: -float(self._costs[row].sum()))

    def rows(self, epoch: int, step: int) -> list[np.ndarray]:
        """The rows of a step, each as the items in it."""
        return [row for mine in self.shares(epoch, step) for row in mine]

    def loads(self, epoch: int, step: int) -> np.ndarray:
        """What each rank has to compute in a step."""
        return np.array([sum(self._costs[row].sum() for row in mine) for mine in self.shares(epoch, step)])

    def items_between(self, first: int, last: int) -> np.ndarray:
        """The items of the steps after ``first`` up to ``last``, counted over all epochs."""
        steps = (divmod(step, self.steps_per_epoch) for step in range(first, last))
        return np.concatenate([np.zeros(0, dtype=np.int64), *(self.steps(epoch)[step] for epoch, step in steps)])

    def micro_batches_needed(self, steps: int, size: int) -> int:
        """Micro-batches of ``size`` rows that hold what a rank has in any of the first ``steps`` steps."""
        if self._pack_to is None:
            return -(-min(self._batch, len(self.items)) // (self.ranks * size))
        with Progress("pack", steps, delay=1) as progress:
            most = 1
            for step in range(steps):
                epoch, at = divmod(step, self.steps_per_epoch)
                most = max(most, self._most_rows(self.steps(epoch)[at], most))
                progress.show(step)
        return -(-most // size)

    def _most_rows(self, items: np.ndarray, known: int) -> int:
        """Of any rank in a step of these items; no more than ``known`` where none has more than that."""
        shares = share(self._costs[items], self.ranks, len(items))
        return max((len(self._packed(items[mine])) for mine in shares if len(mine) > known), default=known)

    def micro_batches(self, epoch: int, step: int, *, size: int, count: int) -> list[list[list[np.ndarray]]]:
        """``[rank][micro-batch]``: rows, as the items in each; ``count`` micro-batches of at most ``size`` rows a rank.

        The dearest rows come first on every rank, so that the ranks' micro-batches cost about the same one by one; the
        last ones may be empty. Raises ValueError where a rank has more rows than places.
        """
        shares = self.shares(epoch, step, most=count * size)
        if (most := max(map(len, shares))) > count * size:
            raise ValueError(f"{most} rows of a rank do not fit {count} micro-batches of {size}")
        return [[mine[n * size : (n + 1) * size] for n in range(count)] for mine in shares]

    def unsupervised_step(self, steps: int) -> int | None:
        """The first of so many steps that has no supervised token, so nothing to learn from."""
        if self._counts[:, 1].all():
            return None
        for step in range(steps):
            epoch, at = divmod(step, self.steps_per_epoch)
            if not self._counts[self.steps(epoch)[at], 1].any():
                return step
        return None

    def ids(self, items: np.ndarray) -> list[str]:
        """The conversations in these items."""
        members = np.concatenate([self.items.members_of(int(item)) for item in items])
        return [self.items.tokens.read(int(member))[0] for member in members]

    def row(self, items: np.ndarray, epoch: int = 0) -> Row:
        """The row that these items make."""
        return row_of(self.items.tokens, np.concatenate([self.items.members_of(int(item)) for item in items]), epoch)

    def seen(self, step: int) -> TokenTotals:
        """Tokens seen after a step, from the order alone: a resume cannot miscount."""
        epoch, steps = divmod(step, self.steps_per_epoch)
        if steps:
            self.steps(epoch)
        total, supervised = self._counts.sum(axis=0) * epoch + (self._seen[steps] if steps else 0)
        return TokenTotals(int(total), int(supervised))


def order_of(run: RunConfig, prepared: Prepared) -> TrainingOrder:
    """Which rows make up which step of a run."""
    packs_steps = run.data.packing and run.data.packing_scope == "global_batch"
    return TrainingOrder(
        prepared.train,
        prepared.cost,
        order=run.data.order,
        seed=run.seed,
        global_batch_size=run.schedule.global_batch_size,
        pack_to=run.data.max_length if packs_steps else None,
        ranks=ranks(run),
    )


class MicroBatches(Sequence[list[Row]]):
    """What one rank computes in the current epoch, micro-batch after micro-batch; Trainer calls ``set_epoch``.

    Every step has ``accumulation`` of them; one without rows takes part with weight zero.
    """

    def __init__(self, order: TrainingOrder, *, size: int, accumulation: int, rank: int = 0) -> None:
        self._order, self._size, self._accumulation, self.rank = order, size, accumulation, rank
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._step, self._current = -1, list[list[np.ndarray]]()

    def __len__(self) -> int:
        return self._order.steps_per_epoch * self._accumulation

    def __getitem__(self, index: int) -> list[Row]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        step, at = divmod(index, self._accumulation)
        if step != self._step:
            shares = self._order.micro_batches(self._epoch, step, size=self._size, count=self._accumulation)
            self._step, self._current = step, shares[self.rank]
        return [self._order.row(items, self._epoch) for items in self._current[at]]


class OfEveryRank(Sequence[list[Row]]):
    """The micro-batches of all ranks in turn, as accelerate shares them out: item ``n`` to rank ``n % ranks``.

    Each rank is asked for its own ones only, and those are all that ``mine`` has.
    """

    def __init__(self, mine: MicroBatches, ranks: int) -> None:
        self._mine, self._ranks = mine, ranks

    def set_epoch(self, epoch: int) -> None:
        self._mine.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._mine) * self._ranks

    def __getitem__(self, index: int) -> list[Row]:  # type: ignore[override]
        at, rank = divmod(index, self._ranks)
        if rank != self._mine.rank:
            raise IndexError(f"item {index} is another rank's")
        return self._mine[at]


def _cut(items: np.ndarray, size: int) -> list[np.ndarray]:
    return [items[at : at + size] for at in range(0, len(items), size)]
