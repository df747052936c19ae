"""What the figure of a sweep shows: which key goes along the axis, and which arms are joined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftx.arm_figure import LINES, Point, metric_against
from ftx.sweep_arms import BASE_KEY, Arm, Metric, Score, in_order, main_metrics_of, number_in, swept_keys

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_metric(arms: Sequence[Arm], title: str, metric: Metric | None, key: str | None = None) -> Figure | None:
    """``metric`` against what was swept, the primary one where none is named; ``key``: one of ``scattered_keys``.

    None where nothing is scored or swept, and where so many keys were that the lines would not be told apart.
    """
    arms, known, keys = in_order(arms), main_metrics_of(arms), swept_keys(arms)
    if not known or not keys:
        return None
    metric = metric or known[0]
    scattered = scattered_keys(arms)
    key = key or _along_the_axis(arms, keys)
    named = [name for name in keys if name not in scattered]
    lines = {_line(arm, named, key) for arm in arms}
    points = [point for arm in arms for point in _points(arm, key, metric, _place(arm, key, arms), named)]
    if not any(not point.published for point in points) or len(lines) > len(LINES):
        return None
    has_numbers = _has_numbers(arms, key)
    labels = max(sum(name.startswith("f1.") for name in arm.scores.get(metric.task, {})) for arm in arms)
    return metric_against(
        points,
        x_label=key.rsplit(".", 1)[-1],
        y_label=f"{metric.task} {metric.name}".replace("_", " "),
        title=title,
        chance=1 / labels if metric.name == "accuracy" and labels else None,
        percent=metric.is_rate(arms),
        lower_is_better=metric.lower_is_better,
        base_at=0 if key == BASE_KEY else None,
        joined=has_numbers,
        scattered=bool(scattered),
    )


def scattered_keys(arms: Sequence[Arm]) -> list[str]:
    """The keys with numbers, where they differ from arm to arm as those of a search do, so that no line joins any.

    Each of them is worth an axis of its own; the first is the one that ``draw_metric`` takes by itself.
    """
    keys = swept_keys(arms)
    if not keys:
        return []
    first = _along_the_axis(arms, keys)
    if len({_line(arm, keys, first) for arm in arms}) <= len(LINES):
        return []
    numbers = [key for key in keys if _has_numbers(arms, key) and len({arm.swept.get(key) for arm in arms}) > 1]
    return sorted(numbers, key=lambda key: key != first)


def _along_the_axis(arms: Sequence[Arm], keys: Sequence[str]) -> str:
    """Epochs, else the first key with numbers, else the first; only keys that differ make an axis."""
    differing = [key for key in keys if len({arm.swept.get(key) for arm in arms}) > 1] or list(keys)
    numbers = [key for key in differing if _has_numbers(arms, key)]
    return BASE_KEY if BASE_KEY in numbers else (numbers or differing)[0]


def _has_numbers(arms: Sequence[Arm], key: str) -> bool:
    numbers = [number_in(arm.swept.get(key)) for arm in arms]
    return all(number is not None and math.isfinite(number) for number in numbers)


def _line(arm: Arm, named: Sequence[str], key: str) -> str:
    """What those of the ``named`` keys were set to that are not along the axis: ``method=lora``."""
    others = {name: value for name, value in arm.swept.items() if name in named and name != key}
    return ", ".join(f"{name.rsplit('.', 1)[-1]}={value}" for name, value in others.items())


def _place(arm: Arm, key: str, arms: Sequence[Arm]) -> tuple[float, str]:
    """x, and the word for it where it is no number."""
    value = arm.swept.get(key, "")
    if _has_numbers(arms, key):
        return float(value), ""
    return float(list(dict.fromkeys(other.swept.get(key, "") for other in arms)).index(value)), value


def _points(arm: Arm, key: str, metric: Metric, place: tuple[float, str], named: Sequence[str]) -> list[Point]:
    """The arm's own and the published one, as far as there are any."""
    pairs = [(metric.score(arm), False), (metric.published(arm), True)]
    return [
        Point(place[0], score.value, *_interval(score), place[1], _line(arm, named, key), published)
        for score, published in pairs
        if score is not None and math.isfinite(score.value)
    ]


def _interval(score: Score) -> tuple[float, float]:
    return score.interval or (math.nan, math.nan)
