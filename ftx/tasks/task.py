"""What every task is made of: its items, what a model said to each of them, and what that is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ftx.config.evaluation_schema import EvaluationConfig
from ftx.data.conversation import Message
from ftx.data.prepare import Prepared
from ftx.engines.engine import Engine

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel

# The outcome of one item as JSON, with its ``id``; on disk the moment that it is there.
Record = dict[str, Any]
Keep = Callable[[Record], None]


@dataclass(frozen=True)
class Item:
    """One thing to score. ``id`` is unique in its task; ``gold`` is for scoring only, and no part of what is asked."""

    id: str
    messages: tuple[Message, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    gold: Any = None


@dataclass(frozen=True)
class TaskInput:
    """Who is asked, about what data, and how. ``model`` is None where it works elsewhere, behind a server.

    ``folder`` is for files of the task's own; who writes there makes it.
    """

    engine: Engine
    model: "PreTrainedModel | None"
    prepared: Prepared
    evaluation: EvaluationConfig
    seed: int
    folder: Path


@dataclass(frozen=True)
class TaskResult:
    """``scores`` in the form of scores.json, a record for each item, and figures by name.

    ``files`` (name → text) are kept beside the task's records.
    """

    scores: dict[str, dict[str, Any]]
    predictions: list[Record]
    figures: "dict[str, Figure]" = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


class Task(Protocol):
    """A module of ftx/tasks, or one of the user's own."""

    def check(self, prepared: Prepared, evaluation: EvaluationConfig) -> None:
        """Raise UserError, before anything is trained, for what cannot be scored so."""

    def items(self, prepared: Prepared, evaluation: EvaluationConfig) -> list[Item]:
        """What is scored, the same in every process."""

    def answer(self, given: TaskInput, items: Sequence[Item], keep: Keep) -> None:
        """Ask the model about these items, and ``keep`` a record of each as soon as there is one."""

    def score(self, items: Sequence[Item], records: Sequence[Record], evaluation: EvaluationConfig) -> TaskResult:
        """What the records are worth, one for each item and in their order; depends on nothing else."""
