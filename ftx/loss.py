"""Cross-entropy over supervised tokens only, summed over the global batch and divided by its supervised tokens."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed

from ftx.compiled import without_compiling
from ftx.data.collate import NO_ROW, collate
from ftx.data.store import Row
from ftx.distributed import added_up
from ftx.environment import Rank
from ftx.head import loss_in_head, losses_of
from ftx.heartbeat import beat

# Short rows go through the model together up to so many tokens when nothing has to be kept for a backward pass.
EVALUATED_TOGETHER = 4096


class TokenLoss:
    """Trainer's ``compute_loss_func``, which also remembers what has been summed since the last metrics row."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._tokens = 0
        self._passes: list[torch.Tensor] = []

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """``outputs`` of a model with ``loss_in_head``, or with logits; ``labels`` as ``collate`` makes them."""
        if num_items_in_batch is None:
            raise ValueError("the supervised tokens of the global batch are not counted: this loss is divided by them")
        summed = losses_of(outputs, labels[1:], "sum")
        self._passes.append(summed.detach())
        self._sum = self._sum + summed.detach()
        self._tokens += len(labels) - 1
        return summed / num_items_in_batch

    def passes_gone_wrong(self) -> list[tuple[int, int]]:
        """(rank, micro-batch) of each loss that is not finite since the last call, the same on every rank.

        To be asked once a step, by all ranks: it waits for the device.
        """
        wrong = ~torch.isfinite(torch.stack(self._passes))
        self._passes = []
        if distributed.is_available() and distributed.is_initialized():
            of_ranks = wrong.new_zeros((distributed.get_world_size(), len(wrong)), dtype=torch.int32)
            of_ranks[distributed.get_rank()] = wrong
            distributed.all_reduce(of_ranks)
        else:
            of_ranks = wrong[None]
        return [(rank, at) for rank, at in of_ranks.nonzero().tolist()]

    def mean_and_reset(self) -> float:
        """The mean over the supervised tokens of all ranks since the last call; all of them have to call it."""
        summed, tokens = added_up([float(self._sum), self._tokens])
        self._sum, self._tokens = 0.0, 0
        return summed / max(tokens, 1)

    def state(self) -> dict[str, float]:
        """What a checkpoint has to keep so that the next row after a resume is the same: the sums over all ranks."""
        summed, tokens = added_up([float(self._sum), self._tokens])
        return {"sum": summed, "tokens": int(tokens)}

    def restore(self, state: dict[str, float]) -> None:
        """For rank 0: it speaks for all ranks, however many there were."""
        self._sum, self._tokens = torch.tensor(state["sum"], dtype=torch.float32), int(state["tokens"])


@dataclass(frozen=True)
class EvaluatedLoss:
    """Summed cross-entropy and supervised tokens of each conversation, in order."""

    sums: list[float]
    tokens: list[int]

    @property
    def mean(self) -> float:
        return sum(self.sums) / max(sum(self.tokens), 1)


def shared_mean_loss(model: torch.nn.Module, rows: Sequence[Row], rank: Rank) -> float:
    """The mean over the supervised tokens of ``rows``, each computed by one of the ranks, which all get the result.

    All of them go through the model equally often: where its weights are shared out, each needs the others.
    """
    own = _evaluate(model, _share(_up_to(EVALUATED_TOGETHER, rows), rank), next(model.parameters()).device)
    summed, tokens = added_up([sum(own.sums), sum(own.tokens)])
    return summed / max(tokens, 1)


def evaluate_loss(model: torch.nn.Module, rows: Sequence[Row], device: torch.device) -> EvaluatedLoss:
    """Every conversation of ``rows`` once; the same for any packing, since segments do not see each other."""
    return _evaluate(model, _up_to(EVALUATED_TOGETHER, rows), device)


@torch.no_grad()
def _evaluate(model: torch.nn.Module, batches: Iterable[list[Row]], device: torch.device) -> EvaluatedLoss:
    was_training = model.training
    model.eval()
    loss_in_head(model)
    sums: list[float] = []
    tokens: list[int] = []
    for together in batches:
        batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in collate(together).items()}
        labels = batch.pop("labels")[1:]
        with without_compiling():
            losses = losses_of(model(**batch), labels, "none")
        segment = torch.bucketize(batch["logits_to_keep"], batch["segments"].query_borders[1:], right=True)
        count = sum(len(row.lengths) for row in together)
        sums += torch.zeros(count, device=device, dtype=torch.float64).index_add_(0, segment, losses.double()).tolist()
        tokens += torch.bincount(segment, minlength=count).tolist()
        beat("evaluate", len(sums), "conversation")
    model.train(was_training)
    return EvaluatedLoss(sums, tokens)


def _share(batches: Iterable[list[Row]], rank: Rank) -> Iterator[list[Row]]:
    """Every so many-th batch, and a row of nobody's where the last round does not reach this rank."""
    number = -1
    for number, batch in enumerate(batches):
        if number % rank.count == rank.index:
            yield batch
    left_over = (number + 1) % rank.count
    if left_over and rank.index >= left_over:
        yield [NO_ROW]


def _up_to(tokens: int, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Neighbouring rows of at most so many tokens together; a row that has more comes alone."""
    together: list[Row] = []
    held = 0
    for row in rows:
        if together and held + len(row.input_ids) > tokens:
            yield together
            together, held = [], 0
        together.append(row)
        held += len(row.input_ids)
    if together:
        yield together
