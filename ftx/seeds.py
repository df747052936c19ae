"""Several seeds of one setting as one arm: their mean, how far they lie apart, and an interval that knows of both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ftx.outcomes import Outcome, Outcomes, is_right_or_wrong, mean, of_metric
from ftx.statistics import cluster_bootstrap, wilson
from ftx.sweep_arms import SEED_KEY, Arm, swept_keys


def pool_seeds(arms: Sequence[Arm]) -> list[Arm]:
    """One arm for each setting, in order of first appearance; as they were where ``seed`` was not swept."""
    if SEED_KEY not in swept_keys(arms):
        return list(arms)
    settings: dict[tuple[tuple[str, str], ...], list[Arm]] = {}
    for arm in arms:
        settings.setdefault(tuple(pair for pair in arm.swept.items() if pair[0] != SEED_KEY), []).append(arm)
    return [_pooled(dict(setting), group) for setting, group in settings.items()]


def _pooled(setting: dict[str, str], group: Sequence[Arm]) -> Arm:
    """What is scored counts; the state is that of the first that is not finished."""
    scored = [arm for arm in group if arm.scores]
    unfinished = next((arm for arm in group if arm.state != "finished"), None)
    tasks = _in_all([arm.scores for arm in scored])
    first = group[0]
    return Arm(
        name=", ".join(arm.name for arm in group),
        swept=setting,
        state=unfinished.state if unfinished else "finished",
        reason=f"{SEED_KEY}={unfinished.swept[SEED_KEY]} {unfinished.reason}".strip() if unfinished else "",
        scores={task: _scores(scored, task) for task in tasks},
        train=first.train if len(group) == 1 else {},
        published=first.published,
        outcomes={task: _together(scored, task) for task in tasks},
        seeds=len(scored),
    )


def _scores(arms: Sequence[Arm], task: str) -> dict[str, Any]:
    """Of one task, in all metrics that every seed has."""
    names = _in_all([arm.scores[task] for arm in arms])
    return {name: _score([arm.scores[task][name] for arm in arms], _answers(arms, task, name)) for name in names}


def _score(entries: Sequence[dict[str, Any]], outcomes: Outcomes) -> dict[str, Any]:
    """The mean over seeds, its standard deviation, and an interval over items.

    Where there are answers, they are resampled by item. Else the ends of the seeds' own intervals are averaged, as if
    all seeds went wrong on the same items: rather too wide.
    """
    if len(entries) == 1:
        return entries[0]
    values = [entry["value"] for entry in entries]
    if any(value is None or not math.isfinite(value) for value in values):
        return {"value": None, "n": None, "ci95": None}
    spread = statistics.stdev(values)
    if outcomes:
        items = len({item for _, item in outcomes})
        return {"value": mean(outcomes), "n": items, "ci95": _over_items(outcomes), "spread": spread}
    n = entries[0].get("n") if len({entry.get("n") for entry in entries}) == 1 else None
    intervals = [entry.get("ci95") for entry in entries]
    return {"value": statistics.fmean(values), "n": n, "ci95": _averaged(intervals), "spread": spread}


def _over_items(outcomes: Outcomes) -> list[float]:
    """Answers that are all alike give a bootstrap nothing to draw from: they are then as sure as one seed's."""
    if is_right_or_wrong(outcomes.values()) and len({outcome.total for outcome in outcomes.values()}) == 1:
        items = len({item for _, item in outcomes})
        return list(wilson(round(mean(outcomes)) * items, items))
    return list(
        cluster_bootstrap(
            [outcome.total for outcome in outcomes.values()],
            [outcome.weight for outcome in outcomes.values()],
            [item for _, item in outcomes],
        )
    )


def _averaged(intervals: Sequence[Sequence[float | None] | None]) -> list[float] | None:
    ends = [[end for end in interval if end is not None] for interval in intervals if interval]
    if len(ends) < len(intervals) or any(len(pair) < 2 for pair in ends):
        return None
    return [statistics.fmean(pair[0] for pair in ends), statistics.fmean(pair[1] for pair in ends)]


def _answers(arms: Sequence[Arm], task: str, name: str) -> Outcomes:
    """What the metric is the mean of, in all seeds; {} where a seed's predictions do not say."""
    found: dict[tuple[str, str], Outcome] = {}
    for arm in arms:
        outcomes = of_metric(arm.outcomes.get(task, {}), name, list(arm.scores[task]))
        value = arm.scores[task][name]["value"] or 0.0
        if not outcomes or not math.isclose(mean(outcomes), value, rel_tol=1e-6, abs_tol=1e-9):
            return {}
        found.update(outcomes)
    return found


def _together(arms: Sequence[Arm], task: str) -> Outcomes:
    return {key: outcome for arm in arms for key, outcome in arm.outcomes.get(task, {}).items()}


def _in_all(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names that every one of them has, in the order of the first."""
    return [name for name in mappings[0] if all(name in other for other in mappings)] if mappings else []
