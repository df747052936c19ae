"""Arms of a sweep over epochs, made up: scored by counts, or by what each item came to."""

from collections.abc import Sequence
from typing import Any

from ftx.outcomes import Outcome
from ftx.statistics import wilson
from ftx.sweep_arms import Arm


def counted(epochs: object, right: int, n: int, **more: Any) -> Arm:
    """An arm of which only the counts are known."""
    score = {"value": right / n, "n": n, "ci95": list(wilson(right, n))}
    return Arm(
        f"epochs-{epochs}", {"schedule.epochs": str(epochs)}, "finished", "", {"task": {"accuracy": score}}, {}, **more
    )


def answered(epochs: object, right: Sequence[bool], seed: str = "", ids: Sequence[str] = ()) -> Arm:
    """An arm whose answers are known, item by item."""
    items = ids or [f"item-{at}" for at in range(len(right))]
    outcomes = {(seed, item): Outcome(float(one), 1.0) for item, one in zip(items, right, strict=True)}
    swept = {"schedule.epochs": str(epochs)} | ({"seed": seed} if seed else {})
    count = sum(right)
    score = {"value": count / len(right), "n": len(right), "ci95": list(wilson(count, len(right)))}
    name = f"epochs-{epochs}-{seed}"
    return Arm(name, swept, "finished", "", {"task": {"accuracy": score}}, {}, outcomes={"task": outcomes})


def measured(epochs: object, losses: Sequence[float], tokens: Sequence[int]) -> Arm:
    """An arm scored by its loss, weighted by tokens."""
    total = sum(loss * count for loss, count in zip(losses, tokens, strict=True))
    outcomes = {
        ("", f"item-{at}"): Outcome(loss * count, count)
        for at, (loss, count) in enumerate(zip(losses, tokens, strict=True))
    }
    scores = {"loss": {"eval_loss": {"value": total / sum(tokens), "n": len(losses), "ci95": None}}}
    swept = {"schedule.epochs": str(epochs)}
    return Arm(f"epochs-{epochs}", swept, "finished", "", scores, {}, outcomes={"loss": outcomes})
