"""What every task is given, and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from ftx.data.conversation import Conversation
from ftx.data.prepare import Prepared

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TaskInput:
    """A model, base or tuned, and what was held out for it."""

    model: PreTrainedModel
    prepared: Prepared
    limit: int | None
    batch_size: int
    seed: int

    @property
    def conversations(self) -> Sequence[Conversation]:
        return self.prepared.held_out[: self.limit]


@dataclass(frozen=True)
class TaskResult:
    """``scores`` in the form of scores.json, a record for each item, and figures by name."""

    scores: dict[str, dict[str, Any]]
    predictions: list[dict[str, Any]]
    figures: "dict[str, Figure]" = field(default_factory=dict)
