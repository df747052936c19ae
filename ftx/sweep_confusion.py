"""What the arms of a sweep mistook for what, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftx.figures import confusion_matrices
from ftx.outcomes import read_records
from ftx.run_folder import RunFolder
from ftx.sweep_arms import SEED_KEY, Arm, in_order
from ftx.tasks.classification_scores import INVALID, score_classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASK = "classification"
# Beyond these, neither the counts nor the labels can be read.
MOST_ARMS, MOST_LABELS = 16, 20

Answers = list[tuple[str, str | None]]


def confusion_figures(arms: Sequence[Arm], runs: Mapping[str, RunFolder]) -> dict[str, Figure]:
    """``confusion``: a matrix for each setting, its seeds counted together; {} where there is nothing to show."""
    by_setting: dict[str, Answers] = {}
    for arm in in_order(arms):
        if TASK in arm.scores and arm.name in runs:
            by_setting.setdefault(_title(arm), []).extend(_answers(runs[arm.name]))
    by_setting = {title: answers for title, answers in by_setting.items() if answers}
    labels = sorted({label for answers in by_setting.values() for pair in answers for label in pair if label})
    if not 0 < len(by_setting) <= MOST_ARMS or len(labels) > MOST_LABELS:
        return {}
    counts = {title: _counts(answers, labels) for title, answers in by_setting.items()}
    return {"confusion": confusion_matrices(counts, labels, [*labels, INVALID], "Held-out answers")}


def _answers(folder: RunFolder) -> Answers:
    file = folder.predictions(TASK)
    return [(one["gold"], one["predicted"]) for one in read_records(file)] if file.is_file() else []


def _counts(answers: Answers, labels: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    gold, predicted = zip(*answers, strict=True)
    return score_classification(gold, predicted, labels).confusion


def _title(arm: Arm) -> str:
    words = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in arm.swept.items() if key != SEED_KEY]
    return ", ".join(words) or "all seeds"
