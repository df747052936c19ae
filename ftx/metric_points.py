"""Rows of metrics.jsonl and system.jsonl as trackers' points: the same row is the same point, however often it is sent.

MLflow keeps a point once for each name, step, value and timestamp. A timestamp taken when a row is sent would make two
points of a row whose first arrival nobody heard of; so it says how long the run had trained, which its rows know.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.entities import Metric

# Training rows, evaluation rows and rows of system.jsonl: each kind has a metric of its own.
ROW_KINDS = ("train_loss", "eval_loss", "system/cpu_percent")


class TrainingTime:
    """When a row stands on the run's own clock: ``begin``, its start in MLflow, and the time it had trained by then."""

    def __init__(self, begin: int, rows: Iterable[dict[str, Any]]) -> None:
        self._begin = begin
        self._steps: list[int] = [0]
        self._seconds: list[float] = [0.0]
        self.hear(rows)

    def hear(self, rows: Iterable[dict[str, Any]]) -> None:
        """Further rows; none that was asked about is moved by later ones."""
        for row in rows:
            steps = row["step"] - self._steps[-1]
            if kind_of(row) == ROW_KINDS[0] and steps > 0:
                self._seconds.append(self._seconds[-1] + steps * row["step_seconds"])
                self._steps.append(row["step"])

    def of(self, row: dict[str, Any]) -> int:
        """Milliseconds since 1970; a row beside a training row of its step comes before it, and may be sent before."""
        find = bisect_right if kind_of(row) == ROW_KINDS[0] else bisect_left
        return self._begin + int(1000 * self._seconds[max(find(self._steps, row["step"]) - 1, 0)])


def later_than(sent: dict[str, int], rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of steps that were not sent; of a step that a resume went through again, the first."""
    newest, fresh = dict(sent), []
    for row in rows:
        if row["step"] > newest[kind_of(row)]:
            newest[kind_of(row)] = row["step"]
            fresh.append(row)
    return fresh


def kind_of(row: dict[str, Any]) -> str:
    """Rows of one step come apart; each kind is known by a metric that only it has."""
    return next(kind for kind in ROW_KINDS if kind in row)


def values_of(row: dict[str, Any]) -> dict[str, float]:
    """What a tracker is told of a row.

    ``epoch`` comes with training rows only: an evaluation row of the same step would bring it a second time.
    """
    left_out = {"step"} if kind_of(row) == ROW_KINDS[0] else {"step", "epoch"}
    return {name: float(value) for name, value in row.items() if name not in left_out and value is not None}


def points_of(row: dict[str, Any], time: TrainingTime) -> "list[Metric]":
    """The same as MLflow takes it."""
    from mlflow.entities import Metric

    stamp = time.of(row)
    return [Metric(name, value, stamp, row["step"]) for name, value in values_of(row).items()]
