"""Cross-entropy over supervised tokens only, summed over the global batch and divided by its supervised tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from ftx.compiled import without_compiling
from ftx.data.collate import collate
from ftx.data.store import Row


class TokenLoss:
    """Trainer's ``compute_loss_func``, which also remembers what has been summed since the last metrics row."""

    def __init__(self) -> None:
        self._sum: torch.Tensor | float = 0.0
        self._tokens = 0

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """``outputs.logits`` ``[1, targets, vocabulary]``, ``labels`` as ``collate`` makes them."""
        if num_items_in_batch is None or int(num_items_in_batch) == 0:
            raise RuntimeError("a global batch without a single supervised token: there is nothing to learn from it")
        summed = cross_entropy(outputs.logits[0].float(), labels[1:], reduction="sum")
        self._sum = self._sum + summed.detach()
        self._tokens += len(labels) - 1
        return summed / num_items_in_batch

    def mean_and_reset(self) -> float:
        """The mean over the supervised tokens since the last call."""
        mean = float(self._sum) / max(self._tokens, 1)
        self._sum, self._tokens = 0.0, 0
        return mean

    def state(self) -> dict[str, float]:
        """What a checkpoint has to keep so that the next row after a resume is the same."""
        return {"sum": float(self._sum), "tokens": self._tokens}

    def restore(self, state: dict[str, float]) -> None:
        self._sum, self._tokens = torch.tensor(state["sum"], dtype=torch.float32), int(state["tokens"])


@dataclass(frozen=True)
class EvaluatedLoss:
    """Summed cross-entropy and supervised tokens of each conversation, in order."""

    sums: list[float]
    tokens: list[int]

    @property
    def mean(self) -> float:
        return sum(self.sums) / max(sum(self.tokens), 1)


@torch.no_grad()
def evaluate_loss(model: torch.nn.Module, rows: Sequence[Row], device: torch.device) -> EvaluatedLoss:
    """Every conversation of ``rows`` once; the same for any packing, since segments do not see each other."""
    was_training = model.training
    model.eval()
    sums: list[float] = []
    tokens: list[int] = []
    for row in rows:
        batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in collate([row]).items()}
        labels = batch.pop("labels")[1:]
        with without_compiling():
            logits = model(**batch).logits[0]
        losses = cross_entropy(logits.float(), labels, reduction="none")
        segment = torch.bucketize(batch["logits_to_keep"], batch["segments"].query_borders[1:], right=True)
        count = len(row.lengths)
        sums += torch.zeros(count, device=device).index_add_(0, segment, losses).tolist()
        tokens += torch.bincount(segment, minlength=count).tolist()
    model.train(was_training)
    return EvaluatedLoss(sums, tokens)
