"""How well answers hit their classes: accuracy, F1 and what was mistaken for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftx.statistics import Interval, bootstrap_many, wilson

if TYPE_CHECKING:
    import numpy as np

INVALID = "invalid"


@dataclass(frozen=True)
class ClassificationScores:
    """Scores over all items; an invalid answer is a wrong one and is never left out.

    ``confusion[i][j]`` counts the items of gold ``labels[i]`` that were answered ``columns[j]``.
    ``f1`` is in the order of ``labels``.
    """

    labels: tuple[str, ...]
    accuracy: float
    macro_f1: float
    f1: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    invalid: int
    n: int

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.labels, INVALID)

    def as_scores(self) -> dict[str, dict[str, Any]]:
        """What ``scores.json`` holds for one task; ``n`` is the number of scored items throughout, also for one F1."""
        correct = sum(row[i] for i, row in enumerate(self.confusion))
        macro_interval, *f1_intervals = self._f1_intervals()
        scores = {
            "accuracy": _score(self.accuracy, self.n, wilson(correct, self.n)),
            "macro_f1": _score(self.macro_f1, self.n, macro_interval),
        }
        for (label, value), interval in zip(self.f1.items(), f1_intervals, strict=True):
            scores[f"f1.{label}"] = _score(value, self.n, interval)
        scores["invalid_rate"] = _score(self.invalid / self.n, self.n, wilson(self.invalid, self.n))
        return scores

    def _f1_intervals(self) -> list[Interval]:
        """Of the macro mean and then of each label. The confusion counts say all about the items that F1 asks for."""
        import numpy as np

        counts = np.array(self.confusion)
        cell_of_item = np.repeat(np.arange(counts.size), counts.ravel())

        def macro_and_each(items: np.ndarray) -> np.ndarray:
            drawn = np.bincount(cell_of_item[items], minlength=counts.size).reshape(counts.shape)
            f1 = _f1_of_each(drawn)
            return np.concatenate([[f1.mean()], f1])

        return bootstrap_many(macro_and_each, self.n)


def score_classification(
    gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]
) -> ClassificationScores:
    """Compare answers with gold labels; ``None`` is an answer that names no label.

    The macro mean is over ``labels``, so one that neither occurs nor is answered counts as 0.
    Raises ``ValueError`` for no items, unequal lengths, and names that are not in ``labels``.
    """
    counts = _confusion(gold, predicted, labels)
    n = len(gold)
    f1 = _f1_of_each(counts)
    return ClassificationScores(
        labels=tuple(labels),
        accuracy=int(counts.trace()) / n,
        macro_f1=float(f1.mean()),
        f1=dict(zip(labels, f1.tolist(), strict=True)),
        confusion=tuple(tuple(row) for row in counts.tolist()),
        invalid=int(counts[:, -1].sum()),
        n=n,
    )


def _confusion(gold: Sequence[str], predicted: Sequence[str | None], labels: Sequence[str]) -> np.ndarray:
    """Counts of shape (labels, labels + 1); the last column holds invalid answers."""
    import numpy as np

    if not gold or len(gold) != len(predicted):
        raise ValueError(f"gold and predicted need the same items, at least one: got {len(gold)} and {len(predicted)}")
    if len(set(labels)) != len(labels):
        raise ValueError(f"labels repeat: {', '.join(labels)}")
    if unknown := ({*gold, *predicted} - {None}).difference(labels):
        raise ValueError(f"not among the labels: {', '.join(sorted(map(str, unknown)))}; known: {', '.join(labels)}")
    row = {label: i for i, label in enumerate(labels)}
    width = len(labels) + 1
    cells = [
        row[truth] * width + (width - 1 if answer is None else row[answer])
        for truth, answer in zip(gold, predicted, strict=True)
    ]
    return np.bincount(cells, minlength=len(labels) * width).reshape(len(labels), width)


def _f1_of_each(counts: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (gold + answered) of each label, 0 where a label neither occurs nor is answered."""
    import numpy as np

    gold_or_answered = counts.sum(axis=1) + counts[:, :-1].sum(axis=0)
    return 2 * counts.diagonal() / np.maximum(gold_or_answered, 1)


def _score(value: float, n: int, interval: Interval) -> dict[str, Any]:
    return {"value": value, "n": n, "ci95": list(interval)}
