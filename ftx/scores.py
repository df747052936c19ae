"""Scores in words, as the terminal shows them."""

from typing import Any

from ftx.sweep_table import Arm, Metric, format_score, metrics_of


def describe(scores: dict[str, Any], *, brief: bool = False) -> str:
    """``classification: accuracy 63.2 % [59.1, 67.1], … (n = 530)``, a line for each task.

    ``brief`` gives each task's first metric only, all on one line.
    """
    arm = Arm("", {}, "finished", "", scores, {})
    lines = []
    for task, entries in scores.items():
        metrics = [metric for metric in metrics_of([arm]) if metric.task == task]
        items = max(entry["n"] for entry in entries.values())
        shown = ", ".join(_in_words(metric, arm) for metric in metrics[: 1 if brief else None])
        lines.append(f"{task}: {shown} (n = {items:,})")
    return ("; " if brief else "\n").join(lines) or "no task to score"


def _in_words(metric: Metric, arm: Arm) -> str:
    return f"{metric.name} {format_score(metric.score(arm), rate=metric.is_rate([arm]))}"
