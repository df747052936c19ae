"""Learning rate schedules, as Trainer takes them."""

import math
from typing import Any

from ftx.config.schema import ScheduleConfig
from ftx.errors import UserError

TRAINERS_NAMES = {
    "cosine": "cosine",
    "cosine_with_min_lr": "cosine_with_min_lr",
    "linear": "linear",
    "constant": "constant_with_warmup",
    "wsd": "warmup_stable_decay",
}


def training_steps(schedule: ScheduleConfig, steps_per_epoch: int) -> int:
    """Optimizer steps of a whole training: those of its epochs, or of ``max_steps`` where these are fewer."""
    most = schedule.max_steps
    if schedule.epochs is None:
        return int(most or 0)
    steps = schedule.epochs * steps_per_epoch
    return min(steps, most or steps)


def scheduler_arguments(schedule: ScheduleConfig, steps: int) -> dict[str, Any]:
    """Trainer's arguments for a training of so many ``steps``.

    Raises UserError where warm-up and decay together are longer than that.
    """
    warmup = _steps(schedule.warmup, steps)
    options: dict[str, Any] = {}
    if schedule.name == "cosine_with_min_lr":
        options = {"min_lr_rate": schedule.min_lr_ratio}
    if schedule.name == "wsd":
        # Of shares that make up the whole, rounding up may have taken a step too many.
        decay = min(_steps(schedule.decay, steps), steps - warmup) if schedule.decay < 1 else int(schedule.decay)
        if warmup + decay > steps:
            raise UserError(
                f"schedule.decay={schedule.decay:g}: with {warmup} steps of warm-up longer than the {steps} steps of "
                "this training; shorten one of them, or write shares below 1"
            )
        options = {"num_decay_steps": decay, "decay_type": schedule.decay_shape}
    return {
        "lr_scheduler_type": TRAINERS_NAMES[schedule.name],
        "lr_scheduler_kwargs": options,
        "warmup_steps": warmup,
    }


def _steps(share_or_number: float, steps: int) -> int:
    return int(share_or_number) if share_or_number >= 1 else math.ceil(share_or_number * steps)
