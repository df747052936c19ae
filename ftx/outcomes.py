"""What each item came to in a run: what paired comparisons of two runs are made of."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """An item's part in ``sum(total) / sum(weight)``: 1 or 0 for right or wrong of weight 1, or its loss in nats over
    as many tokens. ``level`` is what kind of item it is, where a task tells kinds apart."""

    total: float
    weight: float
    level: str = ""


# (draw, item) → outcome. An item that is answered several times, under other seeds, has a draw of each.
Outcomes = Mapping[tuple[str, str], Outcome]


def read_outcomes(predictions: Path, seed: str = "") -> dict[tuple[str, str], Outcome]:
    """Of a file of predictions; {} where it is not there, or its records say neither ``correct`` nor a loss."""
    if not predictions.is_file():
        return {}
    found = {_key(record, seed): _outcome(record) for record in read_records(predictions)}
    known = {key: outcome for key, outcome in found.items() if outcome is not None}
    return known if len(known) == len(found) else {}


def read_records(predictions: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of predictions, in its order."""
    with predictions.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def of_metric(outcomes: Outcomes, name: str, names: Sequence[str]) -> Outcomes:
    """Those that the metric ``name`` counts: predictions say of each item what it means for its task's first metric.

    ``names`` are the task's metrics. Of ``official.easy`` it is the first one's items of that level, and of other
    metrics they say nothing: {}.
    """
    if not names or name == names[0]:
        return outcomes
    first, _, level = name.rpartition(".")
    return {key: one for key, one in outcomes.items() if one.level == level} if first == names[0] else {}


def mean(outcomes: Outcomes) -> float:
    """What the task's primary metric is, where it is a mean over items; NaN without any."""
    weight = sum(outcome.weight for outcome in outcomes.values())
    return sum(outcome.total for outcome in outcomes.values()) / weight if weight else math.nan


def is_right_or_wrong(outcomes: Iterable[Outcome]) -> bool:
    """Whether the items were answered right or wrong, as opposed to measured."""
    return all(outcome.weight == 1 and outcome.total in (0, 1) for outcome in outcomes)


def differences(first: Outcomes, second: Outcomes) -> dict[str, float]:
    """Item → how much more it came to in ``first``, over all its draws. Both have the same draws and items."""
    by_item: dict[str, float] = {}
    for key, outcome in first.items():
        by_item[key[1]] = by_item.get(key[1], 0.0) + outcome.total - second[key].total
    return by_item


def _key(record: Mapping[str, Any], seed: str) -> tuple[str, str]:
    """Several samples of a task are records of their own that name it."""
    name = str(record["id"])
    return (f"{seed}/{name}", str(record["task"])) if "task" in record else (seed, name)


def _outcome(record: Mapping[str, Any]) -> Outcome | None:
    if isinstance(record.get("correct"), bool):
        return Outcome(float(record["correct"]), 1.0, str(record.get("level", "")))
    if "loss" in record and "tokens" in record:
        return Outcome(record["loss"] * record["tokens"], record["tokens"])
    return None
