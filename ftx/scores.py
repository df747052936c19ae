"""Scores in words, as the terminal shows them."""

from typing import Any

from ftx.sweep_arms import Arm, Metric, format_score, metrics_of


def describe(scores: dict[str, Any], *, brief: bool = False) -> str:
    """Every metric on a line of its own under its task; ``brief`` gives each task's first metric, all on one line."""
    arm = Arm("", {}, "finished", "", scores, {})
    described = []
    for task, entries in scores.items():
        metrics = [metric for metric in metrics_of([arm]) if metric.task == task]
        items = max(entry["n"] for entry in entries.values())
        width = max(len(metric.name) for metric in metrics)
        if brief:
            described.append(f"{task}: {metrics[0].name} {_shown(metrics[0], arm)} (n = {items:,})")
        else:
            lines = [f"  {metric.name:<{width}}  {_shown(metric, arm)}" for metric in metrics]
            described.append("\n".join([f"{task} (n = {items:,})", *lines]))
    return ("; " if brief else "\n").join(described) or "no task to score"


def _shown(metric: Metric, arm: Arm) -> str:
    return format_score(metric.score(arm), rate=metric.is_rate([arm]))
