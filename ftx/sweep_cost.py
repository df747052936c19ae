"""What the runs of a sweep took: time, tokens and memory of the training, and how fast they were scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ftx.config.hardware_schema import HardwareConfig
from ftx.markdown import Column, to_table
from ftx.sweep_arms import NOTHING, Arm, Metric, format_score, metrics_of


@dataclass(frozen=True)
class TrainingCost:
    """Of the steps that a run's model is made of; steps that a resume went through again count once.

    ``tokens_per_second`` is over all devices, ``gpu_hours`` and ``mfu`` are None without a GPU, ``mfu`` also where its
    peak is not known.
    """

    hours: float
    gpu_hours: float | None
    tokens_per_second: float
    mfu: float | None
    memory_gib: float


@dataclass(frozen=True)
class ArmCost:
    """A run beside its cost; None for one that has not trained."""

    arm: Arm
    training: TrainingCost | None


def training_cost(rows: Sequence[dict[str, Any]], hardware: HardwareConfig) -> TrainingCost | None:
    """From the rows of metrics.jsonl; None without a training row."""
    trained = [row for row in rows if "train_loss" in row]
    if not trained:
        return None
    steps = [row["step"] for row in trained]
    # Of the steps since the last training row only an evaluation row knows.
    seconds = [
        row["step_seconds"] * (step - before)
        for row, step, before in zip(trained, steps, [0, *steps[:-1]], strict=True)
    ]
    seconds_after = trained[-1]["step_seconds"] * (max(row["step"] for row in rows) - steps[-1])
    used = [(row["mfu"], spent) for row, spent in zip(trained, seconds, strict=True) if row.get("mfu") is not None]
    hours = (sum(seconds) + seconds_after) / 3600
    gpus = hardware.nodes * hardware.gpus_per_node if hardware.device == "cuda" else 0
    return TrainingCost(
        hours=hours,
        gpu_hours=hours * gpus if gpus else None,
        tokens_per_second=trained[-1]["total_tokens"] / max(sum(seconds), 1e-9),
        mfu=sum(mfu * spent for mfu, spent in used) / max(sum(spent for _, spent in used), 1e-9) if used else None,
        memory_gib=max(row.get("memory_gib") or 0.0 for row in trained),
    )


def cost_table(costs: Sequence[ArmCost]) -> str:
    """Markdown; columns that no run has are left out. Empty where no run has trained or was timed."""
    arms = [one.arm for one in costs]
    columns = [column for column in _training_columns(costs) if any(cell != NOTHING for cell in column.cells)]
    speeds = [metric for metric in metrics_of(arms) if metric.is_speed]
    one_task = len({metric.task for metric in speeds}) == 1
    columns += [_speed_column(metric.name if one_task else metric.full_name, metric, arms) for metric in speeds]
    return to_table([Column("run", [arm.title for arm in arms], False), *columns]) if columns else ""


def as_columns(cost: TrainingCost | None) -> dict[str, float | None]:
    """For report.csv."""
    if cost is None:
        return {}
    return {
        "cost.hours": cost.hours,
        "cost.gpu_hours": cost.gpu_hours,
        "cost.tokens_per_second": cost.tokens_per_second,
        "cost.mfu": cost.mfu,
        "cost.memory_gib": cost.memory_gib,
    }


def duration(hours: float) -> str:
    """``12.0 s``, ``3.4 min``, ``5.6 h``."""
    if hours < 1 / 40:
        return f"{3600 * hours:.1f} s"
    return f"{60 * hours:.1f} min" if hours < 1.5 else f"{hours:.1f} h"


def _training_columns(costs: Sequence[ArmCost]) -> list[Column]:
    shown: dict[str, Callable[[TrainingCost], str]] = {
        "training": lambda cost: duration(cost.hours),
        "GPU-hours": lambda cost: _or_nothing(cost.gpu_hours, "{:.3g}"),
        "tokens/s": lambda cost: f"{cost.tokens_per_second:,.0f}",
        "MFU": lambda cost: _or_nothing(cost.mfu, "{:.1%}"),
        "memory (GiB)": lambda cost: f"{cost.memory_gib:.1f}",
    }
    return [
        Column(title, [NOTHING if one.training is None else show(one.training) for one in costs])
        for title, show in shown.items()
    ]


def _or_nothing(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _speed_column(title: str, metric: Metric, arms: Sequence[Arm]) -> Column:
    rate = metric.is_rate(arms)
    return Column(title, [format_score(metric.score(arm), rate=rate) for arm in arms])
